"""Ways of training against gradient starvation, and the list of them for a table of sample types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import ConvergenceError, HypothesisError
from gradstarve.problem import Loss, SpectralDecoupling, as_loss


@dataclass(frozen=True)
class Remedy:
    """One way of training. What is not given is as without a remedy.

    `name`; `loss`: inside any penalty; `penalty`: lambda of spectral decoupling, 0 for none, in the `scaling` of
    `SpectralDecoupling`, on the sample types `types` or on all (None); `weight_decay`; `step_factor`: of the step size, at
    the same time = step size x step; `stop_loss`: the mean cross-entropy on the data at which training stops; `factors`: by
    which the samples of each type are weighted, [S].
    """

    name: str
    loss: str = "cross-entropy"
    penalty: float = 0.0
    scaling: str = "added"
    types: tuple[int, ...] | None = None
    weight_decay: float = 0.0
    step_factor: float = 1.0
    stop_loss: float | None = None
    factors: tuple[float, ...] | None = None

    @classmethod
    def of(cls, given: Any) -> Remedy:
        """A remedy, or one from a dict of its fields, in which JSON has turned tuples into lists."""
        if isinstance(given, Remedy):
            return given
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return cls(**values)

    def loss_for(self, types: Any) -> Loss:
        """The loss of samples whose types are `types`, [n] integers.

        >>> Remedy("some", penalty=0.5, types=(1,)).loss_for([0, 1, 1]).penalty.tolist()
        [0.0, 0.5, 0.5]
        """
        if self.penalty == 0:
            return as_loss(self.loss)
        penalty: Any = self.penalty
        if self.types is not None:
            penalty = np.where(np.isin(np.asarray(types), self.types), self.penalty, 0.0).tolist()
        return SpectralDecoupling(self.loss, penalty, scaling=self.scaling)

    def weights_for(self, types: Any, weights: Any) -> np.ndarray:
        """`weights` [n] of samples of these types under the remedy, of sum 1. Those of a type of factor 0 are 0."""
        weights = np.asarray(weights, np.float64)
        if self.factors is not None:
            weights = weights * np.asarray(self.factors)[np.asarray(types)]
        return weights / weights.sum()


def list_remedies(types: Any, probabilities: Any, scales: Any = None, logit: float = 2.0) -> tuple[Remedy, ...]:
    """The remedies that the study compares, first of all none, with weights computed from the laws of this table.

    Starved is the feature that is slowest at the start by (10.1); penalties "on the samples without it" are on the types
    that do not show it (left out where all do), and re-weighting is `fastest_weights`, `equal_speed_weights` and
    `equal_time_weights` to `logit`, those that exist and differ, for one layer.

    >>> for remedy in list_remedies([[1, 0], [1, 1]], [0.9, 0.1])[-5:]:
    ...     print(remedy.name)
    hinge loss
    early stopping
    step size ÷ 4
    step size × 4
    weights: equal speeds
    """
    plain = theory.fastest_weights(types, probabilities, scales=scales)
    shown = np.asarray(types)
    starved = int(np.argmin(plain.before))
    without = tuple(int(s) for s in np.flatnonzero(shown[:, starved] == 0))
    remedies = [
        Remedy("nothing"),
        Remedy("penalty 0.1 added", penalty=0.1),
        Remedy("penalty 2 added", penalty=2.0),
        Remedy("penalty 2 divided", penalty=2.0, scaling="divided"),
        Remedy("penalty 0.1 multiplied", penalty=0.1, scaling="multiplied"),
    ]
    if without:
        remedies += [
            Remedy(f"penalty {k:g} on samples without {starved + 1}", penalty=k, types=without) for k in (0.01, 0.1)
        ]
    remedies += [Remedy(f"weight decay {decay:g}", weight_decay=decay) for decay in (1e-3, 1e-2, 5e-2)]
    remedies += [
        Remedy("hinge loss", loss="hinge"),
        Remedy("early stopping", stop_loss=0.3),
        Remedy("step size ÷ 4", step_factor=0.25),
        Remedy("step size × 4", step_factor=4.0),
    ]
    makers = {
        "equal speeds": lambda: theory.equal_speed_weights(types, probabilities, scales=scales),
        "equal times": lambda: theory.equal_time_weights(types, probabilities, logit, scales=scales),
        "fastest": lambda: plain,
    }
    seen: list[np.ndarray] = []
    for name, make in makers.items():
        try:
            weights = make().factors
        except (HypothesisError, ConvergenceError):
            continue
        if not any(np.allclose(weights, other, rtol=1e-6, atol=1e-9) for other in seen):
            seen.append(weights)
            remedies.append(Remedy(f"weights: {name}", factors=tuple(weights.tolist())))
    return tuple(remedies)
