"""The pictures of the catalogue: how far from the claim the trials are, against the tolerance."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import FILLS
from gradstarve.theorems._entry import Outcome

COLOURS = FILLS  # black is kept for the law and for the tolerance
_FLOOR = 1e-17  # where gaps of exactly zero are drawn


def draw_gaps(outcome: Outcome, ax: Any, xlabel: str = "gap between law and simulation (relative)") -> None:
    """A stacked histogram of log10(gap), one colour per group of trials, and the tolerance as a dashed line."""
    decided = ~np.isnan(outcome.gaps)
    logs = np.log10(np.clip(outcome.gaps[decided], _FLOOR, 1e3))
    groups = outcome.groups[decided]
    names = list(dict.fromkeys(groups.tolist()))
    limit = np.log10(outcome.tolerance)
    low = min(float(logs.min(initial=limit)), limit) - 0.5
    high = max(float(logs.max(initial=limit)), limit) + 1
    bins = np.linspace(low, high, 45)
    ax.hist(
        [logs[groups == name] for name in names],
        bins=bins,
        stacked=True,
        label=names,
        color=[COLOURS[i % len(COLOURS)] for i in range(len(names))],
    )
    ax.axvline(limit, color="black", linestyle="--", linewidth=1.5, label=f"tolerance {outcome.tolerance:.0e}")
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = ticks[:: max(1, int(np.ceil(ticks.size / 9)))]
    ax.set_xticks(ticks, [f"$10^{{{int(t)}}}$" if t > np.log10(_FLOOR) else "0" for t in ticks])
    ax.set_xlabel(xlabel)
    ax.set_ylabel("trials")
    ax.yaxis.get_major_locator().set_params(integer=True)
    columns = 5 if sum(map(len, names)) < 50 else 3
    # Under the axes, where it hides neither the trials nor the tolerance.
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)
