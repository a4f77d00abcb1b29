"""`starvation_report`, as users call it: with a model, with a kernel or Jacobian from elsewhere, or with logged margins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from gradstarve.diagnosis._data import Samples, join, read_classes, read_samples
from gradstarve.diagnosis._groups import number_between, read_groups, read_labels
from gradstarve.diagnosis._margins import from_margins
from gradstarve.diagnosis._models import read_model
from gradstarve.diagnosis._report import StarvationReport, Unseen, UsersTraining, diagnose
from gradstarve.ground import as_floats, as_number, as_seed, check_finite, deprecated, positive_int, readable

_COLUMNS = 2**16  # of a Jacobian, multiplied at a time


def _either_form(function: Any) -> Any:
    """(apply, params, data, groups), with params None for a model, as well as (model, data, groups)."""

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> StarvationReport:
        if "apply" in options or "params" in options:
            both = dict(zip(("apply", "params", "data", "groups"), args, strict=False)) | options
            args, options = (), both
            apply, params = options.pop("apply", None), options.pop("params", None)
            options["model"] = apply if params is None else (apply, params)
        elif len(args) > 2 or (len(args) == 2 and "data" in options):
            plain = callable(args[0]) and not hasattr(args[0], "parameters") and not _holds(args[0])
            if args[1] is None or plain or len(args) > 3:
                args = (args[0] if args[1] is None else (args[0], args[1]), *args[2:])
        return function(*args, **options)

    return called


def _holds(model: Any) -> bool:
    return hasattr(model, "__dict__") and bool(jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))


@deprecated(seed="key")
@_either_form
def starvation_report(
    model: Any,
    data: Any,
    groups: Any = None,
    *,
    test: Any = None,
    edited: Any = None,
    splits: Any = 5,
    parameters: Any = None,
    step_size: Any = None,
    batch_size: Any = None,
    momentum: Any = 0.0,
    until_error: Any = 0.05,
    times: Any = None,
    penalty: Any = 0.02,
    features: Any = 8,
    memory: Any = None,
    permutations: Any = 999,
    key: Any = 0,
    progress: Any = None,
) -> StarvationReport:
    """Which features of your data will starve in your model, told from its first parameters, before any training.

    - `model`: a `torch.nn.Module`, an equinox model, a flax model (of nnx, or (module, variables) of linen), or (apply,
      params) with apply(params, x) of a batch in plain JAX. It gives one logit a sample, [n] or [n, 1], or two, of which the
      difference is taken. PyTorch models are taken as they are, in evaluation mode and on their device;
      `starvation_report(apply, params, data, groups)` is the same as `starvation_report((apply, params), data, groups)`;
    - `data`: samples [n, ...] and labels ±1 or 0 and 1 [n] as (x, y), or (x, y, groups), of arrays or tensors; a `Dataset`
      of equal weights; a `Dataset` or `DataLoader` of PyTorch; or the path of an .npz file with arrays x and y;
    - `groups`: what some samples have and others lack, such as the background: one value a sample, [n] strings or integers;
      a mapping of names to booleans [n]; a table [n, G] of 0 and 1; or the name of an array of the .npz file. Crossed with
      the label inside. Without groups the clusters of each class are looked for;
    - `test`: samples to predict, as `data` and with their groups; without it the parts of the data are held out in turn,
      `splits` in number; `edited`: the samples of `data`, and then those of `test`, [N, ...], without the feature, as you
      would edit them;
    - `parameters`: of which parameters the kernel is: "last" (layer), a prefix of names or a list of these, or a function of
      the name;
    - `step_size`, `batch_size` (default all), `momentum` of your training, on the mean loss: times as steps and epochs too;
    - `until_error`: indices refer to the time, the horizon, at which the mean error sigmoid(-m) of training is down to this;
      `times`: times to be predicted in place of those chosen, the last of which is then the horizon;
    - `penalty`: of spectral decoupling, among the remedies; `features`: how many eigenvectors to list, 0 for none;
    - `memory`: bytes for the kernel and the gradients at hand, default 1 GiB; `permutations`, `key`: of the tests by chance;
      `progress`: True, False, a callable (done, total), or None for a row on a terminal.

    `.heldout` predicts the accuracy of every cell (label, attribute) on samples that training has not seen, the worst first,
    and what remedies do to it. Indices and errors beside it are about the trained samples.

    Everything follows from K = Y Phi Phi^T Y, the kernel of the network at `params`, in whose linearisation training on the
    summed cross-entropy is dm/dt = K sigmoid(-m) (14.1); time is step size x step. The feature of a group is the difference
    delta of the mean gradients of members and others within a class. What the network learns along it and what it learns
    of the rest add up to the margins, and the starvation index (10.6) of the rest is 1 - (its gain in this training) / (its
    gain where delta is taken from the members). An index above 1 says that the rest is driven to the wrong side; an index
    of nan cannot be told, because the gain in the denominator is within the error of its computation, as where every sample
    occurs with both labels. Such an index raises no alarm.

    The rule of alarm: the feature favours the class of its members, the index at the horizon is at least 0.25, and p <= 0.01
    in a permutation test of |delta| within classes; for clusters that were found, in place of p, a gap of 25 standard
    deviations or more between them. It was set on handwritten digits (two-layer networks): natural clusters there reach 24,
    and of 90 data sets without a patch none raised an alarm, with chance groups or without groups; patches of full
    brightness on 80 and 90 % of a class were found without groups in 33 and 40 of 45 pairs of digits. On other data read
    the table and not the alarm alone.

    Valid while training stays near the linearisation: wide networks, moderate steps. `after_training` tells whether it did.
    Weak features (fainter than the variation of the class, or of few samples) are missed without `groups`.

    `ValueError` for an output of another shape, a gradient or logit that is not finite, labels other than ±1 (or 0 and 1)
    or of one class, groups that do not fit the samples, a `memory` too small, parameters that have learnt the data already,
    half precision. Setting of Pezeshki et al. 2021 (arXiv:2011.09468). Other ways in:
    `starvation_report.from_kernel`, `.from_jacobian`, `.from_margins`.

    >>> rng = np.random.default_rng(0)
    >>> x, y = 0.1 * rng.normal(size=(60, 8)), np.repeat([1, -1], 30)
    >>> x[:30, 0] += 1  # the shape of class +
    >>> x[30:, 1] += 1  # the shape of class -
    >>> x[:27, 7] += 3  # a bright spot on nine tenths of class +
    >>> x = x.astype("float32")
    >>> spot = ["spot"] * 27 + ["plain"] * 33
    >>> report = starvation_report(lambda w, x: x @ w, np.zeros(8, "float32"), (x, y), spot, features=0)
    >>> [law.name for law in report.alarms], bool(report.alarms[0].index[report.at] > 0.4)
    (['spot'], True)
    >>> report = starvation_report(lambda w, x: x @ w, np.zeros(8, "float32"), (x, y), features=0)  # nobody says where it is
    >>> [law.size for law in report.alarms]
    [27]
    """
    samples = read_samples(data, groups)
    count = len(samples)
    unseen = None if test is None else read_samples(test, name="test")
    both = samples.x if unseen is None else join(samples, unseen)
    source = read_model(model, both, memory, parameters)
    if source.outputs > 1:
        raise ValueError(
            f"the model has {source.outputs} outputs, and the report is about two classes; take one class against the "
            "others: give (apply, params), or a module, of one logit such as f_k less logsumexp of the others, and labels ±1"
        )
    classes = read_classes(samples.y if unseen is None else np.concatenate([samples.y, unseen.y]), 1)
    read_labels(classes.signs[:count])
    steps = _steps(step_size, batch_size, momentum, count)
    logits = source.logits()
    kernel = source.kernel(progress=progress)
    _check_kernel(kernel)
    signs = classes.signs
    trained = np.arange(len(signs)) < count
    given = _with_test(samples, unseen, signs, trained)
    other = None
    if edited is not None:
        x = jax.tree.map(np.asarray, read_samples((edited, signs)).x)
        again = read_model(model, x, memory, parameters)
        other = (again.kernel(progress=progress), again.logits())
    hidden = None
    if unseen is not None or other is not None:
        hidden = Unseen(
            kernel=kernel,
            logits=logits,
            classes=classes,
            trained=trained,
            groups=given,
            splits=positive_int("splits", splits, minimum=2),
            penalty=number_between("penalty", penalty, 0, float("inf")),
            seed=as_seed(key),
            edited=other,
        )
    kernel = signs[:count, None] * kernel[:count, :count] * signs[:count]
    return diagnose(
        kernel,
        signs[:count] * logits[:count, 0],
        signs[:count],
        samples.groups,
        until_error=until_error,
        times=times,
        penalty=penalty,
        features=features,
        permutations=permutations,
        key=key,
        model=source,
        progress=progress,
        unseen=hidden,
        splits=splits,
        training=steps,
        notes=(*samples.notes, *source.notes),
    )


def _check_kernel(kernel: np.ndarray) -> None:
    if not np.isfinite(kernel).all():
        raise ValueError("products of rows of the Jacobian are beyond the floats; scale the samples, or the output, down")


def _steps(step_size: Any, batch_size: Any, momentum: Any, count: int) -> UsersTraining | None:
    if step_size is None:
        return None
    step_size = number_between("step_size", step_size, 0, float("inf"))
    batch = count if batch_size is None else positive_int("batch_size", batch_size, maximum=count)
    return UsersTraining(step_size, batch, count, as_number("momentum", momentum, 0, 1, with_high=False))


def _with_test(samples: Samples, test: Samples | None, signs: np.ndarray, trained: np.ndarray) -> Any:
    """Names and members [N, G] of the groups of all samples, and whether they exclude each other."""
    groups = samples.groups
    if groups is None:
        return (), np.zeros((len(signs), 0), bool), False
    if test is not None:
        if test.groups is None:
            raise ValueError("groups are given for data and not for test; give test=(x, y, groups)")
        if isinstance(groups, Mapping) != isinstance(test.groups, Mapping):
            raise ValueError("the groups of test must be of the same form as those of data")
        if isinstance(groups, Mapping):
            missing = [name for name in groups if name not in test.groups]
            if missing:
                raise ValueError(f"the groups of test lack {missing[0]!r}; name the same groups as for data")
            groups = {name: np.concatenate([np.asarray(groups[name]), np.asarray(test.groups[name])]) for name in groups}
        else:
            groups = np.concatenate([np.asarray(groups), np.asarray(test.groups)])
    tags = read_groups(groups, signs)
    return tags.names, tags.members, tags.exclusive


def from_kernel(kernel: Any, labels: Any, logits: Any = None, groups: Any = None, **options: Any) -> StarvationReport:
    """The `starvation_report` of a model in any framework, from the kernel of its gradients.

    - `kernel`: Phi Phi^T [n, n], products of the gradients of the logits (not of margins) of all pairs of samples;
    - `labels`: ±1, [n]; `logits`: f(x_i) at these parameters, [n], default 0;
    - `groups` and the options: those of `starvation_report` that are not about the model.

    >>> x = np.concatenate([np.eye(12), 0.1 * np.ones((12, 12))], axis=1)
    >>> report = from_kernel(x @ x.T, np.repeat([1, -1], 6), groups={"first": np.arange(12) < 3}, features=0)
    >>> len(report.groups), report.alarms
    (1, ())
    """
    kernel = as_floats("kernel", kernel)
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or len(kernel) < 2:
        raise ValueError(f"kernel must be numbers [n, n], one row and column a sample, got shape {kernel.shape}")
    check_finite("kernel", kernel)
    gap = float(np.abs(kernel - kernel.T).max())
    if gap > 1e-4 * np.abs(kernel).max() or (np.diag(kernel) < 0).any():
        raise ValueError(
            f"kernel must be symmetric with a diagonal >= 0, as products of gradients are; it is off by {gap:.3g}"
        )
    return _of_kernel((kernel + kernel.T) / 2, labels, logits, groups, "kernel", options)


def _of_kernel(kernel: np.ndarray, labels: Any, logits: Any, groups: Any, name: str, options: Any) -> StarvationReport:
    count = len(kernel)
    labels = read_labels(labels, count)
    start = np.zeros(count) if logits is None else as_floats("logits", logits)
    if start.shape == (count, 1):
        start = start[:, 0]
    if start.shape != labels.shape:
        raise ValueError(f"logits must be [n] = [{count}], one a row of the {name}, got shape {start.shape}")
    check_finite("logits", start)
    steps = _steps(options.pop("step_size", None), options.pop("batch_size", None), options.pop("momentum", 0.0), count)
    return diagnose(labels[:, None] * kernel * labels, labels * start, labels, groups, training=steps, **options)


def from_jacobian(jacobian: Any, labels: Any, logits: Any = None, groups: Any = None, **options: Any) -> StarvationReport:
    """The `starvation_report` of a model in any framework, from its Jacobian on the data.

    - `jacobian`: d f(x_i) / d theta, [n, P], of the logits (not of margins) at the parameters before training; in PyTorch
      `torch.func.jacrev`, its parts reshaped to [n, -1] and concatenated;
    - `labels`: ±1, [n]; `logits`: f(x_i) at these parameters, [n], default 0;
    - `groups` and the options: those of `starvation_report`, but `memory`.

    >>> x = np.concatenate([np.eye(12), 0.1 * np.ones((12, 12))], axis=1)
    >>> report = from_jacobian(x, np.repeat([1, -1], 6), groups={"first": np.arange(12) < 3}, features=0)
    >>> len(report.groups), report.alarms
    (1, ())
    """
    rows = np.asarray(readable("jacobian", jacobian))
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise ValueError(f"jacobian must be numbers [n, P], one row a sample, got shape {rows.shape}")
    check_finite("jacobian", rows)
    # In 32 bits where the numbers are such, a part of the columns at a time.
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = sum(_products(rows[:, k : k + _COLUMNS]) for k in range(0, max(rows.shape[1], 1), _COLUMNS))
    if not np.isfinite(kernel).all():
        largest = np.abs(rows).max()
        raise ValueError(f"jacobian has entries up to {largest:.3g}, whose squares are no floats; scale the samples down")
    return _of_kernel(np.asarray(kernel), labels, logits, groups, "jacobian", options)


def _products(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide @ wide.T


# Functions of the function, so that users find them where they look.
starvation_report.from_kernel = from_kernel  # pyright: ignore[reportFunctionMemberAccess]
starvation_report.from_margins = from_margins  # pyright: ignore[reportFunctionMemberAccess]
starvation_report.from_jacobian = from_jacobian  # pyright: ignore[reportFunctionMemberAccess]
