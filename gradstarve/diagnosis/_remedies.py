"""What each remedy would change for the rest that a feature starves, in the linearised network, before any is tried."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from gradstarve.diagnosis._groups import Group, GroupLaw, index_of
from gradstarve.diagnosis._training import train_linearised


@dataclass(frozen=True)
class RemedyOutcome:
    """One remedy for one group, at the horizon of the report unless its name says another time.

    - `rest`: gain of the margin without the feature, mean over the class it favours; `index`: 1 - rest / what the rest gains
      alone and without any remedy in the same time (10.6) (below 0: better than without the feature; nan: cannot be told);
    - `rest_error`: mean sigmoid(-m) of the same samples without the feature; `error`: of all samples as they are.
    """

    group: str
    remedy: str
    rest: float
    index: float
    rest_error: float
    error: float


def balanced_weights(group: Group, labels: np.ndarray) -> np.ndarray:
    """Weights [n] under which members and others of each class count alike, the class as a whole as before.

    >>> one = Group("g", "", np.array([True, True, True, False, False]), np.zeros(5), (1,), np.array([1, 1, 1, 1, -1]))
    >>> balanced_weights(one, np.array([1.0, 1.0, 1.0, 1.0, -1.0])).round(2).tolist()
    [0.67, 0.67, 0.67, 2.0, 1.0]
    """
    weights = np.ones(len(labels))
    for sign in group.classes:
        mine = labels == sign
        for part in (mine & group.members, mine & ~group.members):
            weights[part] = mine.sum() / (2 * part.sum())
    return weights


class Remedies:
    """The flows that remedies share between groups, each run when first asked for."""

    def __init__(
        self,
        kernel: np.ndarray,
        labels: np.ndarray,
        margins: np.ndarray,
        times: np.ndarray,
        at: int,
        ridge: float,
        penalty: float,
    ):
        self.kernel, self.labels, self.margins, self.times, self.at = kernel, labels, margins, times, at
        self.ridge, self.penalty = ridge, penalty
        self._kept: dict[str, np.ndarray] = {}

    def _run(self, ridge: float = 0.0, penalty: float = 0.0) -> np.ndarray:
        """Margins at the horizon and at the last time, [2, n]."""
        name = f"{ridge} {penalty}"
        if name not in self._kept:
            until = self.times[[self.at, -1]]
            self._kept[name] = train_linearised(self.kernel, self.margins[0], until, ridge=ridge, penalty=penalty)
        return self._kept[name]

    def outcomes(self, law: GroupLaw) -> list[RemedyOutcome]:
        """Every remedy for the group of `law`, the plain training first."""
        group, at, times = law.group, self.at, self.times
        early, late = int(np.searchsorted(times, times[at] / 10)), len(times) - 1
        plain, decoupled = self.margins[at], self._run(penalty=self.penalty)
        runs = [("none", at, plain)]
        if early < at:
            runs.append((f"stop at time {times[early]:.2g}", early, self.margins[early]))
        if late > at:
            runs.append((f"train to time {times[late]:.2g}", late, self.margins[late]))
        runs += [
            ("re-weight members and others alike", at, self._weighted(group)),
            (f"weight decay {self.ridge:.2g}", at, self._run(ridge=self.ridge)[0]),
            (f"spectral decoupling {self.penalty:.2g}", at, decoupled[0]),
        ]
        if late > at:
            runs.append((f"spectral decoupling {self.penalty:.2g} to time {times[late]:.2g}", late, decoupled[1]))
        removal = group.removal(self.labels)
        mine = self.labels == law.favours
        found = []
        for name, when, margins in runs:
            without = removal @ margins
            rest = float((without - removal @ self.margins[0])[mine].mean())
            found.append(self._outcome(law, name, rest, when, without[mine], margins))
        alone = train_linearised(removal @ self.kernel @ removal.T, removal @ self.margins[0], times[[at]])[0]
        found.append(self._outcome(law, "remove the feature", float(law.rest_alone[at]), at, alone[mine], alone))
        return found

    def _weighted(self, group: Group) -> np.ndarray:
        weights = balanced_weights(group, self.labels)
        return train_linearised(self.kernel, self.margins[0], self.times[[self.at]], weights=weights)[0]

    @staticmethod
    def _outcome(law, name, rest, when, without, margins) -> RemedyOutcome:
        index = index_of(rest, law.rest_alone[when], law.noise[when])
        return RemedyOutcome(
            law.name, name, rest, float(index), float(expit(-without).mean()), float(expit(-margins).mean())
        )
