"""`starvation_report`, as users call it: with a model, with a kernel or Jacobian from elsewhere, or with logged margins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import numpy as np

from gradstarve.diagnosis._data import Classes, Samples, batch_of, join, read_classes, read_samples
from gradstarve.diagnosis._groups import DOUBLE, number_between, read_groups, read_labels, rounding_of
from gradstarve.diagnosis._margins import from_margins
from gradstarve.diagnosis._models import read_model
from gradstarve.diagnosis._report import StarvationReport, Unseen, UsersTraining, diagnose
from gradstarve.ground import (
    any_array,
    as_flag,
    as_floats,
    as_number,
    as_seed,
    check_finite,
    deprecated,
    positive_int,
    readable,
)

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
    attribute: Any = None,
    test: Any = None,
    edited: Any = None,
    last_layer: Any = False,
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
      params) with apply(params, x) of a batch in plain JAX. It gives one logit a sample, [n] or [n, 1], two, of which the
      difference is taken, or K, [n, K]. PyTorch models are taken as they are, in evaluation mode and on their device;
      `starvation_report(apply, params, data, groups)` is the same as `starvation_report((apply, params), data, groups)`;
    - `data`: samples [n, ...] and labels ±1, 0 and 1, or 0..K-1 [n] as (x, y), or (x, y, groups), of arrays or tensors; a
      `Dataset` of equal weights; a `Dataset` or `DataLoader` of PyTorch; or the path of an .npz file with arrays x and y;
    - `groups`: what some samples have and others lack, such as the background: one value a sample, [n] strings or integers;
      a mapping of names to booleans [n]; a table [n, G] of 0 and 1; or the name of an array of the .npz file. Crossed with
      the label inside; groups that say whether a sample agrees with its label, and groups that are cells of label and
      attribute already, are recognised and noted. Without groups the clusters of each class are looked for;
    - `attribute`: the same as one value a sample, strings, integers or booleans;
    - `test`: samples to predict, as `data` and with their groups; without it the parts of the data are held out in turn,
      `splits` in number; `edited`: the samples of `data`, and then those of `test`, [N, ...], without the feature, as you
      would edit them; `last_layer`: True to predict re-training of the last layer too, which needs its kernel;
    - `parameters`: of which parameters the kernel is: "last" (layer, or array where these are not named by layers), a prefix
      of names or a list of these, or a function of the name;
    - `step_size`, `batch_size` (default: that of a `DataLoader`, or all), `momentum` of your training, on the mean loss:
      times as steps and epochs too;
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
    in a permutation test of |delta| within classes, in which the largest of all groups counts, so that p does not shrink
    with their number; for clusters that were found, in place of p, a gap of 25 standard deviations or more between them, in
    the directions that hold 95 % of the variation of the class. On data without a shortcut (blobs in 2 to 50 dimensions, two
    moons, digits, random convolutional features, 300 sets each) none of the sets raised an alarm, with chance groups, with
    cells or without groups; docs/pytorch.md has the table, and how strong a shortcut must be to be found.

    Valid while training stays near the linearisation: wide networks, moderate steps. `.regime` predicts when it is left,
    from the kernel at the weights to which the linearised network moves, and `after_training` tells whether it was.
    Weak features (fainter than the variation of the class, or of few samples) are missed without `groups`.

    Of K classes the network is trained on the softmax cross-entropy with all of its outputs, and each law is about one class
    against the others: u_k = f_k less the mean of the other logits. The kernel is that of all pairs of outputs where it
    takes at most half of `memory`, else the mean over outputs stands for each of them. In-sample remedies and eigenvectors
    are left to two classes.

    `ValueError` for an output of another shape, a gradient or logit that is not finite, labels that are not those of
    classes or of one class, groups that do not fit the samples, a `memory` too small, parameters that have learnt the data
    already, half precision. Setting of Pezeshki et al. 2021 (arXiv:2011.09468). Other ways in:
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
    >>> report = starvation_report(lambda w, x: x @ w, np.zeros(8, "float32"), (x, y), features=0)  # without groups
    >>> [law.size for law in report.alarms]
    [27]
    """
    samples = read_samples(data, _one_value_each(groups, attribute))
    count = len(samples)
    unseen = None if test is None else read_samples(test, name="test")
    both = samples.x if unseen is None else join(samples, unseen)
    source = read_model(model, both, memory, parameters)
    several = source.outputs > 1
    classes = read_classes(samples.y if unseen is None else np.concatenate([samples.y, unseen.y]), source.outputs)
    if not several:
        read_labels(classes.signs[:count])
    elif len(np.unique(classes.index[:count])) < 2:
        raise ValueError(f"all {count} labels are {classes.index[0]}: a single class has nothing to tell apart; add others")
    labels = classes.index if several else classes.signs
    steps = _steps(step_size, batch_of(data, count) if batch_size is None else batch_size, momentum, count)
    notes = (*samples.notes, *source.notes)
    alike = several and not source.fits
    if alike:
        size = 8 * (len(labels) * source.outputs) ** 2
        notes += (
            f"The kernel of all pairs of {source.outputs} outputs takes {size:.2g} bytes, more than half "
            "of `memory`: the mean over outputs is taken for each of them, as in wide networks.",
        )
    logits = source.logits()
    kernel = source.kernel(progress=progress, alike=alike)
    _check_kernel(kernel)
    trained = np.arange(len(labels)) < count
    given = _with_test(samples, unseen, labels, trained)
    other = None
    if edited is not None:
        try:
            x = jax.tree.map(np.asarray, read_samples((edited, labels)).x)
        except ValueError as error:
            raise ValueError(f"edited must be the samples of data, and then those of test: {error}") from None
        again = read_model(model, x, memory, parameters)
        other = (again.kernel(progress=progress, alike=alike), again.logits())
    hidden = None
    last = None
    if as_flag("last_layer", last_layer):
        last = read_model(model, both, memory, "last").kernel(progress=progress, alike=alike)
        if np.ptp(last) <= 1e-6 * np.abs(last).max():
            raise ValueError(
                "the last layer of the parameters is taken to be a bias alone, which tells no samples apart; give "
                "parameters in layers, such as {'head': {'w': ..., 'b': ...}}, or leave out last_layer"
            )
    if unseen is not None or other is not None or last is not None:
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
            last=last,
            rounding=source.rounding,
        )
    rows = count * (source.outputs if several and not alike else 1)
    kernel, logits, labels = kernel[:rows, :rows], logits[:count], labels[:count]
    return diagnose(
        kernel if several else labels[:, None] * kernel * labels,
        logits if several else labels * logits[:, 0],
        labels,
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
        notes=notes,
        classes=Classes(labels, classes.names) if several else None,
        rounding=source.rounding,
    )


def _one_value_each(groups: Any, attribute: Any) -> Any:
    """`attribute` as groups: one value a sample, or the name of an array of such."""
    if attribute is None:
        return groups
    if groups is not None:
        raise ValueError("groups and attribute are both given; give attribute where every sample has one value of it")
    if isinstance(attribute, Mapping):
        raise ValueError("attribute must be one value a sample, [n]; give a mapping of names to booleans as groups")
    if not isinstance(attribute, str):
        values = any_array("attribute", attribute)
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise ValueError(f"attribute must be one value a sample, [n], got shape {values.shape}")
        return {"attribute": values} if values.dtype.kind == "b" else values
    return attribute


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

    - `kernel`: Phi Phi^T [n, n], products of the gradients of the logits (not of margins) of all pairs of samples; of K
      classes [n K, n K], outputs of a sample side by side, or [n, n] where the outputs are taken to be alike;
    - `labels`: ±1, or the numbers 0..K-1 of K > 2 classes, [n]; `logits`: f(x_i) at these parameters, [n] or [n, K],
      default 0;
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
    gap, lowest = float(np.abs(kernel - kernel.T).max()), int(np.argmin(np.diag(kernel)))
    if gap > 1e-4 * np.abs(kernel).max() or kernel[lowest, lowest] < 0:
        entry = kernel[lowest, lowest]
        off = f"kernel[{lowest}, {lowest}] = {entry:.3g}" if entry < 0 else f"it is off by {gap:.3g}"
        raise ValueError(f"kernel must be symmetric with a diagonal >= 0, as products of gradients are; {off}")
    return _of_kernel((kernel + kernel.T) / 2, labels, logits, groups, "kernel", options, rounding_of(kernel))


def _of_kernel(
    kernel: np.ndarray, labels: Any, logits: Any, groups: Any, name: str, options: Any, rounding: float
) -> StarvationReport:
    options = dict(options)
    groups = _one_value_each(groups, options.pop("attribute", None))
    start = None if logits is None else as_floats("logits", logits)
    several = _several(labels, start)
    if several:
        classes, start = _classes_of(len(kernel), labels, start, several, name)
        count = len(start)
        steps = _steps(options.pop("step_size", None), options.pop("batch_size", None), options.pop("momentum", 0.0), count)
        return diagnose(
            kernel, start, classes.index, groups, training=steps, classes=classes, rounding=rounding, **options
        )
    count = len(kernel)
    labels = read_labels(labels, count)
    start = np.zeros(count) if start is None else start
    if start.shape == (count, 1):
        start = start[:, 0]
    if start.shape != labels.shape:
        raise ValueError(f"logits must be [n] = [{count}], one a row of the {name}, got shape {start.shape}")
    check_finite("logits", start)
    steps = _steps(options.pop("step_size", None), options.pop("batch_size", None), options.pop("momentum", 0.0), count)
    signed = labels[:, None] * kernel * labels
    return diagnose(signed, labels * start, labels, groups, training=steps, rounding=rounding, **options)


def _several(labels: Any, start: np.ndarray | None) -> int:
    """The number of classes where there are more than two, else 0."""
    if start is not None and start.ndim == 2 and start.shape[1] > 2:
        return start.shape[1]
    values = any_array("labels", labels)
    whole = values.ndim == 1 and values.dtype.kind in "iu" and values.size and values.min() == 0 and values.max() > 1
    return int(values.max()) + 1 if whole and np.isin(np.arange(values.max()), values).all() else 0


def _classes_of(
    size: int, labels: Any, start: np.ndarray | None, count: int, name: str
) -> tuple[Classes, np.ndarray]:
    """Classes and logits [n, K] of a kernel [n K, n K], or [n, n] for outputs that are alike."""
    classes = read_classes(labels, count)
    n = len(classes.index)
    if size not in (n, n * count):
        raise ValueError(
            f"the {name} of {n} samples in {count} classes must have {n * count} rows, one a sample and output, or {n} "
            f"where the outputs are alike; it has {size}"
        )
    start = np.zeros((n, count)) if start is None else start
    if start.shape != (n, count):
        raise ValueError(f"logits must be [n, K] = [{n}, {count}], got shape {start.shape}")
    check_finite("logits", start)
    return classes, start


def from_jacobian(jacobian: Any, labels: Any, logits: Any = None, groups: Any = None, **options: Any) -> StarvationReport:
    """The `starvation_report` of a model in any framework, from its Jacobian on the data.

    - `jacobian`: d f(x_i) / d theta, [n, P], of the logits (not of margins) at the parameters before training; in PyTorch
      `torch.func.jacrev`, its parts reshaped to [n, -1] and concatenated; of K classes [n, K, P];
    - `labels`: ±1, or the numbers 0..K-1 of K > 2 classes, [n]; `logits`: f(x_i) at these parameters, [n] or [n, K],
      default 0;
    - `groups` and the options: those of `starvation_report`, but `memory`.

    >>> x = np.concatenate([np.eye(12), 0.1 * np.ones((12, 12))], axis=1)
    >>> report = from_jacobian(x, np.repeat([1, -1], 6), groups={"first": np.arange(12) < 3}, features=0)
    >>> len(report.groups), report.alarms
    (1, ())
    """
    rows = np.asarray(readable("jacobian", jacobian))
    if rows.ndim == 3:
        rows = rows.reshape(-1, rows.shape[2])
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise ValueError(f"jacobian must be numbers [n, P], one row a sample, got shape {rows.shape}")
    check_finite("jacobian", rows)
    # In 32 bits where the numbers are such, a part of the columns at a time.
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = sum(_products(rows[:, k : k + _COLUMNS]) for k in range(0, max(rows.shape[1], 1), _COLUMNS))
    if not np.isfinite(kernel).all():
        largest = np.abs(rows).max()
        raise ValueError(f"jacobian has entries up to {largest:.3g}, whose squares are no floats; scale the samples down")
    return _of_kernel(np.asarray(kernel), labels, logits, groups, "jacobian", options, DOUBLE)


def _products(rows: np.ndarray) -> np.ndarray:
    wide = rows.astype(np.float64)
    return wide @ wide.T


# Functions of the function, so that users find them where they look.
starvation_report.from_kernel = from_kernel  # pyright: ignore[reportFunctionMemberAccess]
starvation_report.from_margins = from_margins  # pyright: ignore[reportFunctionMemberAccess]
starvation_report.from_jacobian = from_jacobian  # pyright: ignore[reportFunctionMemberAccess]
