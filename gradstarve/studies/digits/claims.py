"""Claims and their verdicts: the measured value, the criterion, and whether the claim holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradstarve.ground import table_text


@dataclass(frozen=True)
class Claim:
    """One claim: its `part` of the study, the `claim` in words, the `measured` value, and the `criterion` by which it
    `holds`.

    A `detail` is in a separate table, and is not listed among the claims.
    """

    part: str
    claim: str
    measured: str
    criterion: str
    holds: bool
    detail: bool = False

    @property
    def verdict(self) -> str:
        """"holds" or "does not hold"."""
        return "holds" if self.holds else "does not hold"

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, with the verdict in words."""
        return {
            "part": self.part,
            "claim": self.claim,
            "measured": self.measured,
            "criterion": self.criterion,
            "verdict": self.verdict,
        }


def claims_table(claims: Sequence[Claim]) -> str:
    """One row per claim: the measured value and the verdict.

    >>> print(claims_table([Claim("a", "the error falls", "0.5 to 0.1", "it falls", True)]))
       claim              measured  verdict
    -  ---------------  ----------  -------
    a  the error falls  0.5 to 0.1    holds
    """
    widest = max(len(one.claim) for one in claims)
    rows = [("", "claim".ljust(widest), "measured", "verdict")]
    rows += [(one.part, one.claim.ljust(widest), one.measured, one.verdict) for one in claims]
    return table_text(rows)


def between(mean: Any, low: Any, high: Any, form: str = ".3g", percent: bool = False) -> str:
    """A mean with its confidence interval as text.

    >>> between(-1.0268, -1.0344, -1.0192, ".3f"), between(0.913, 0.89, 0.936, ".1f", percent=True)
    ('-1.027 (-1.034 to -1.019)', '91.3 % (89.0 to 93.6)')
    """
    factor, unit = (100, " %") if percent else (1, "")
    return f"{factor * mean:{form}}{unit} ({factor * low:{form}} to {factor * high:{form}})"
