"""`starvation_report`, as users call it: with a JAX model, with a Jacobian from elsewhere, or with logged margins."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.diagnosis._groups import read_labels
from gradstarve.diagnosis._margins import from_margins
from gradstarve.diagnosis._models import read_model
from gradstarve.diagnosis._report import StarvationReport, diagnose
from gradstarve.ground import as_floats, check_finite, deprecated


@deprecated(seed="key")
def starvation_report(
    apply: Any,
    params: Any,
    data: Any,
    groups: Any = None,
    *,
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

    - `apply`, `params`: a function apply(params, x) of a batch that gives one logit a sample, [n] or [n, 1], in plain JAX,
      flax (`module.apply`) or anything else that JAX differentiates; or an equinox model as `apply` with `params` None;
    - `data`: a `Dataset` of equal weights, or (x, y): samples [n, ...] and labels ±1 [n];
    - `groups`: what some samples have and others lack: the type of each sample, [n] strings or integers; a mapping of names
      to booleans [n]; or a table [n, G] of 0 and 1. Without groups the clusters of each class are looked for;
    - `until_error`: indices refer to the time, the horizon, at which the mean error sigmoid(-m) of training is down to this;
      `times`: times to be predicted in place of those chosen, the last of which is then the horizon;
    - `penalty`: of spectral decoupling, among the remedies; `features`: how many eigenvectors to list, 0 for none;
    - `memory`: bytes for the Jacobian and K [n, n], 1 GiB if not given; `permutations`, `key`: of the test of groups;
    - `progress`: as in `simulate`, in parts of the report, once the kernel is there.

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

    `ValueError` for an output of another shape, a gradient or logit that is not finite, labels other than ±1 or of one
    class, groups that do not fit the samples, a `memory` too small, parameters that have learnt the data already, half
    precision. Setting
    of Pezeshki et al. 2021 (arXiv:2011.09468). Other ways in: `starvation_report.from_jacobian`, `.from_margins`.

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
    model = read_model(apply, params, data, memory)
    start = model.margins(model.params)
    return diagnose(
        model.kernel(),
        start,
        model.labels,
        groups,
        until_error=until_error,
        times=times,
        penalty=penalty,
        features=features,
        permutations=permutations,
        key=key,
        model=model,
        progress=progress,
    )


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
    rows = as_floats("jacobian", jacobian)
    if rows.ndim != 2 or rows.shape[0] < 2:
        raise ValueError(f"jacobian must be numbers [n, P], one row a sample, got shape {rows.shape}")
    check_finite("jacobian", rows)
    labels = read_labels(labels, len(rows))
    start = np.zeros(len(rows)) if logits is None else as_floats("logits", logits)
    if start.shape == (len(rows), 1):
        start = start[:, 0]
    if start.shape != labels.shape:
        raise ValueError(f"logits must be [n] = [{len(rows)}], one a row of the jacobian, got shape {start.shape}")
    check_finite("logits", start)
    rows = labels[:, None] * rows
    with np.errstate(over="ignore", invalid="ignore"):
        kernel = rows @ rows.T
    if not np.isfinite(kernel).all():
        largest = np.abs(rows).max()
        raise ValueError(f"jacobian has entries up to {largest:.3g}, whose squares are no floats; scale the samples down")
    return diagnose(kernel, labels * start, labels, groups, **options)


# Functions of the function, so that users find them where they look.
starvation_report.from_margins = from_margins  # pyright: ignore[reportFunctionMemberAccess]
starvation_report.from_jacobian = from_jacobian  # pyright: ignore[reportFunctionMemberAccess]
