"""The overlay figure: theory as lines, training as open markers and a quantile band; a panel for error, one for margin.

The two classes differ in colour (Okabe-Ito blue and vermillion), line style and marker shape, so that the figure can be
read by the colour-blind and on a grey print. Matplotlib is imported only when a figure is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit

from gradstarve.ground import (
    COLOURS,
    DPI,
    GUIDE,
    INK,
    NOTE,
    as_choice,
    figure_size,
    new_figure,
    number,
    positive_int,
    save,
    sheet,
    text_size,
)
from gradstarve.problem import Steps

QUANTILES = (0.1, 0.9)
_SINGLES = (0.03, 0.97)  # quantiles of the single networks: outside of the band, to show that theory holds for outliers
_STYLES = {1: (COLOURS[0], "-", "o", "+"), -1: (COLOURS[1], (0, (5, 2)), "s", "−")}
"""Class label -> colour, line style, marker, sign in words."""
_MARKERS = 13  # per curve: enough to show the shape, few enough to leave the line between them visible
_DENSE = 240  # points of a theory line, if the run recorded fewer
_BUDGET = 1_000_000  # logits beyond which theory is not evaluated again for smoother lines


@dataclass(frozen=True)
class _Class:
    """The margins of one class, averaged over its points: [networks, t] each; `error` likewise of sigmoid(-m)."""

    label: int
    theory: np.ndarray
    theory_error: np.ndarray
    simulated: np.ndarray
    simulated_error: np.ndarray

    @property
    def learns(self) -> np.ndarray:
        """Which networks end the run with a margin above 0, [networks]."""
        return self.simulated[:, -1] > 0

    @property
    def typical(self) -> np.ndarray:
        """Flat indices of the networks in the median and the band: those that learn, or all if none does."""
        return np.flatnonzero(self.learns | (not self.learns.any()))


def overlay(
    comparison: Any,
    *,
    ax: Any = None,
    path: Any = None,
    what: str = "both",
    networks: Any = 2,
    scale: str = "auto",
    title: str | None = None,
    note: str = "",
    figsize: Any = None,
) -> Any:
    """Theory over training, both classes, as a matplotlib `Figure`, which is also saved to `path` if given.

    - `what`: "error", "margins", or "both", in a panel each;
    - `ax`: axes to draw into, two for "both"; by default a new figure of `figsize` inches (9 x 4.6, or 6.4 x 4.6 for one
      panel) at 150 dpi, which needs no display;
    - `networks`: how many single networks to show for each class, from the fastest to the slowest (plus one that does not
      learn the class, if there is one), or a sequence of their flat indices, shown for both classes;
    - `scale`: of the t axis: "linear", "log" (from the first positive t), or "auto" (log if learning is over early);
    - `title`: replaces the first line; `note`: added to the second line, for example "small start, σ = 0.01".

    Lines are theory: thin for a network, thick for the median over networks. Open markers are training, and the band
    holds its 10 to 90 % quantiles over networks. Networks that end with a margin <= 0 on a class are counted in the
    legend and left out of its median and band; one of them is drawn with crosses. Error is sigmoid(-m), the probability
    given to the wrong label, and m the margin y f(x), both averaged over the points of the class. Sizes and fonts that
    you have set in Matplotlib stay yours. `ValueError` for unknown options.

    >>> from gradstarve.problem import GradientDescent, TwoLayerReLU, datasets
    >>> from gradstarve.simulation import simulate
    >>> from gradstarve.theory import solve
    >>> from gradstarve.comparison import compare
    >>> data, net = datasets.antipodal(), TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
    >>> run = simulate(data, net, "hinge", GradientDescent(0.1), steps=60)
    >>> figure = overlay(compare(solve(data, net, "hinge", GradientDescent(0.1)), run))
    >>> [axes.get_ylabel() for axes in figure.axes]
    ['error σ(−m)', 'margin m = y f(x)']
    """
    if scale not in ("auto", "linear", "log"):
        raise ValueError(f"scale must be 'auto', 'linear' or 'log', got {scale!r}")
    wanted = ("error", "margins") if as_choice("what", what, ("both", "error", "margins")) == "both" else (what,)
    grid = np.asarray(comparison.grid, np.float64)
    at = _line_grid(comparison)
    classes, lines = _classes(comparison, at), np.asarray(at, np.float64)
    with sheet(own=True):
        if ax is None:
            size = figure_size(figsize, (9.0, 4.6) if len(wanted) == 2 else (6.4, 4.6))
            figure = new_figure(*size)
            axes = np.ravel(figure.subplots(1, len(wanted)))
        else:
            size = figure_size(figsize, (9.0, 4.6))
            axes = np.ravel(np.asarray(ax, dtype=object))
            if axes.size != len(wanted):
                right = "two axes, for error and margin" if what == "both" else f"one axes, for {what}"
                more = "; what='error' or what='margins' needs one" if what == "both" else ""
                raise ValueError(f"ax must be {right}, got {axes.size}{more}")
            figure = axes[0].figure
        use_log = _use_log(lines, classes) if scale == "auto" else scale == "log"
        for panel in axes:
            if use_log:
                panel.set_xscale("log")
        for one in classes:
            shown = _pick(one, networks)
            for kind, panel in zip(wanted, axes, strict=True):
                pair = (one.theory_error, one.simulated_error) if kind == "error" else (one.theory, one.simulated)
                _draw(panel, one, lines, pair[0], grid, pair[1], shown, use_log)
        _dress(comparison, dict(zip(wanted, axes, strict=True)), lines, use_log)
        if ax is None:
            first, second = _title(comparison, title, note)
            # A bold line over a plain one, as two texts: the layout reserves space for the upper one only.
            room = size[0] / 9  # the width in units of the default width
            sizes = min(12.0, 12 * 90 * room / len(first)), min(10.0, 10 * 122 * room / len(second))
            bold, plain = (text_size(points) for points in sizes)
            figure.suptitle(f"{first}\n", x=0.012, ha="left", fontsize=bold, fontweight="bold", linespacing=1.4)
            below = 0.092 * 4.6 * bold / min(12.0, 12 * 90 / len(first))  # the height of the upper line in inches
            figure.text(0.012, 1 - below / size[1], second, fontsize=plain, color=INK)
            handles = _legend(comparison, classes, networks)
            columns = 3 if room > 0.8 else 2
            figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=2.2)
        else:
            axes[-1].legend(handles=_legend(comparison, classes, networks), fontsize=text_size(9))
        if path is not None:
            save(figure, path, DPI if ax is None else figure.dpi)
    return figure


def _line_grid(comparison: Any) -> np.ndarray:
    """The t at which theory lines are drawn: the recorded grid, refined if it is coarse and theory is cheap enough."""
    grid = comparison.grid
    records, n = comparison.theory.shape[-2:]
    if records >= _DENSE // 2 or records < 2 or comparison.networks * n * _DENSE > _BUDGET:
        return grid
    span = float(grid[-1]) - float(grid[0])
    even = float(grid[0]) + span * np.linspace(0, 1, _DENSE // 2)
    # The early part again on a log scale, in case the axis is one.
    early = float(grid[0]) + span * np.geomspace(1e-4, 1, _DENSE // 2)
    fine = np.concatenate([even, early])
    if comparison.unit == "step":
        fine = np.rint(fine)
    elif isinstance(getattr(comparison.solution, "dynamics", None), Steps):
        return grid  # a law of whole steps on recorded times has no values in between
    return np.unique(np.concatenate([fine.astype(grid.dtype), grid]))


def _classes(comparison: Any, lines: np.ndarray) -> list[_Class]:
    data = comparison.trajectory.data
    labels, weights = np.asarray(data.labels), np.asarray(data.weights, np.float64)
    drawn = comparison.theory if lines is comparison.grid else comparison.theory_at(lines)

    def means(logits: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray]:
        mine = labels == label
        share = weights[mine] / weights[mine].sum()
        margin = label * np.asarray(logits, np.float64)[..., mine].reshape(-1, logits.shape[-2], mine.sum())
        return margin @ share, expit(-margin) @ share

    return [_Class(c.label, *means(drawn, c.label), *means(comparison.simulated, c.label)) for c in comparison.classes]


def _pick(one: _Class, networks: Any) -> np.ndarray:
    """Flat indices of the networks to show for a class."""
    count = one.simulated.shape[0]
    if not isinstance(networks, int):
        chosen = np.asarray(networks)
        if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or ((chosen < 0) | (chosen >= count)).any():
            raise ValueError(f"networks must be a number of them or indices in 0..{count - 1}, got {networks!r}")
        return chosen
    wanted = min(positive_int("networks", networks, minimum=0), count)
    if count == 1 or not wanted:
        return np.arange(min(wanted, 1))
    typical = one.typical
    speed = np.nan_to_num(one.simulated_error[typical], nan=1.0).mean(axis=-1)
    order = typical[np.argsort(speed, kind="stable")]
    levels = np.linspace(*_SINGLES, wanted) if wanted > 1 else np.array([_SINGLES[1]])
    chosen = order[np.rint(levels * (order.size - 1)).astype(int)]
    return np.unique(np.append(chosen, np.flatnonzero(~one.learns)[:1]))


def _draw(panel, one: _Class, lines, theory, grid, simulated, shown, use_log) -> None:
    """One class in one panel."""
    colour, style, marker, sign = _STYLES[one.label]
    many = simulated.shape[0] > 1
    line = {"color": colour, "linestyle": style}
    if many:
        low, high = np.nanquantile(simulated[one.typical], QUANTILES, axis=0)
        panel.fill_between(grid, low, high, color=colour, alpha=0.16, linewidth=0, label=f"band {sign}", zorder=1)
    for network in shown if many else ():
        panel.plot(lines, theory[network], linewidth=0.9, zorder=3, **line)
        if one.learns[network]:
            look = {"marker": marker, "markersize": 4.0}
        else:
            look = {"marker": "x", "markersize": 5.0}
        # Between the markers of the median; the two classes have different offsets, in case both stay at 0.
        _mark(panel, grid, simulated[network], use_log, 0.5 + 0.2 * one.label, colour, look, sign)
    middle = np.median(theory[one.typical], axis=0)
    panel.plot(lines, middle, linewidth=2.4 if many else 1.8, label=f"theory {sign}", zorder=4, **line)
    look = {"marker": marker, "markersize": 6.0 if many else 5.5}
    _mark(panel, grid, np.median(simulated[one.typical], axis=0), use_log, 0.0, colour, look, sign)


def _mark(panel, grid, values, use_log, offset, colour, look, sign) -> None:
    """Open markers at records spread evenly along the curve, `offset` in units of their spacing.

    Even spacing in t would put only two or three markers on the steep part of the curve, where theory is tested most.
    """
    usable = np.flatnonzero((grid > 0 if use_log else np.full(grid.size, True)) & np.isfinite(values))
    if not usable.size:
        return
    place = np.log(grid[usable]) if use_log else grid[usable]
    steps = [np.diff(along) / (np.ptp(along) or 1.0) for along in (place, values[usable])]
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*steps))])
    wanted = length[-1] * (np.arange(_MARKERS) + offset) / (_MARKERS - 1)
    wanted = wanted[wanted <= length[-1] * (1 + 1e-9)]
    at = usable[np.unique(np.abs(length[None, :] - wanted[:, None]).argmin(axis=1))]
    panel.plot(
        grid[at],
        values[at],
        linestyle="none",
        **look,
        markerfacecolor="white",
        markeredgecolor=colour,
        markeredgewidth=1.1,
        label=f"simulation {sign}",
        zorder=5,
    )


def _use_log(lines: np.ndarray, classes: list[_Class]) -> bool:
    """Whether the median error of every class makes half of its change in the first tenth of the run."""
    if (lines > 0).sum() < 3:
        return False
    halfway = []
    for one in classes:
        error = np.median(one.theory_error[one.typical], axis=0)
        made = np.abs(error - error[0]) >= 0.5 * abs(error[-1] - error[0])
        halfway.append(lines[np.argmax(made)])
    return bool(max(halfway) < lines[-1] / 10)


def _dress(comparison, panels, lines, use_log) -> None:
    for panel in panels.values():
        # A little room, so that the markers at both ends are not clipped.
        if use_log:
            first = lines[lines > 0][0]
            room = (lines[-1] / first) ** 0.015
            panel.set_xlim(first / room, lines[-1] * room)
        else:
            room = 0.015 * (np.ptp(lines) or 1.0)
            panel.set_xlim(lines[0] - room, lines[-1] + room)
        panel.set_xlabel(_time_label(comparison))
    if "error" in panels:
        panel = panels["error"]
        panel.set_ylabel("error σ(−m)")
        panel.set_ylim(-0.02, min(max(panel.get_ylim()[1], 0.55), 1.02))
        panel.axhline(0.5, color=GUIDE, linewidth=0.8, linestyle=":", zorder=2)
        panel.set_title("probability given to the wrong label", loc="left")
    if "margins" in panels:
        panel = panels["margins"]
        panel.set_ylabel("margin m = y f(x)")
        rest = comparison.trajectory.loss_function.rest
        aims = (0, rest) if isinstance(rest, float) and np.isfinite(rest) else (0,)
        for level in aims:
            panel.axhline(level, color=GUIDE, linewidth=0.8, linestyle=":", zorder=2)
        panel.set_title("margin of the true label", loc="left")


def _time_label(comparison: Any) -> str:
    if comparison.unit == "time":
        return "time t"
    step = _step_size(comparison)
    return "step k" if step is None else f"step k  (time t = {step} k)"


def _step_size(comparison: Any) -> str | None:
    """The step size as text, or None if the curves do not define it or it differs between networks."""
    dynamics = getattr(comparison.solution, "dynamics", None)
    if isinstance(dynamics, Steps):
        values = np.unique([] if dynamics.scheduled else np.asarray(dynamics.step_size))
        return number(values[0]) if values.size == 1 else None
    return number(comparison.time_scale) if comparison.unit == "step" and comparison.time_scale != 1 else None


def _title(comparison: Any, title: str | None, note: str) -> tuple[str, str]:
    trajectory = comparison.trajectory
    if title is None:
        loss = getattr(trajectory.loss_function, "name", type(trajectory.loss_function).__name__)
        shape = trajectory.data.separability()
        geometry = [name for name in ("antipodal", "orthogonal") if getattr(shape, name)]
        parts = [f"{geometry[0]} classes"] if geometry and len(comparison.classes) == 2 else []
        parts += [f"{loss} loss", "gradient flow" if comparison.unit == "time" else "gradient descent"]
        title = f"Exact theory on training: {', '.join(parts)}"
    count = comparison.networks
    numbers = [f"{count} network{'s' * (count > 1)}"]
    initial: Any = getattr(trajectory, "initial", None)
    if hasattr(initial, "width") and hasattr(initial, "dim"):
        numbers.append(f"h = {initial.width} neurons, d = {initial.dim}")
    step = _step_size(comparison)
    if step is not None and comparison.unit == "step":
        numbers.append(f"step size {step}")
    if note:
        numbers.append(note)
    numbers.append(f"largest logit gap {_power(comparison.gap)}")
    return title, "  ·  ".join(numbers)


def _power(value: float) -> str:
    """A small number as a reader of a paper expects it: 3.4 × 10⁻¹⁴."""
    text = number(value, 2)
    if "e" not in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa} × 10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _legend(comparison: Any, classes: list[_Class], networks: Any) -> list[Any]:
    """Handles in columns: the classes, the theory, the simulation."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    grey, many = NOTE, comparison.networks > 1
    empty: dict[str, Any] = {"markerfacecolor": "white"}
    columns: tuple[list[Any], ...] = ([], [], [])
    for one, row in zip(classes, comparison.classes, strict=True):
        colour, style, marker, sign = _STYLES[one.label]
        low, high = (number(value) for value in row.norms)
        norm = f"r = {low}" if low == high else f"r = {low}–{high}"
        text = f"class {sign}:  p = {number(row.frequency)},  {norm}"
        look: dict[str, Any] = {"color": colour, "linestyle": style, "linewidth": 2.2, "marker": marker}
        columns[0].append(Line2D([], [], label=text, **look, **empty))
    columns[2].append(Line2D([], [], color=grey, marker="o", linestyle="none", label="simulation", **empty))
    if many:
        columns[1].append(Line2D([], [], color=grey, linewidth=2.4, label="theory, median over networks"))
        if not isinstance(networks, int) or networks > 0:
            which = "a fast and a slow network" if isinstance(networks, int) and networks == 2 else "single networks"
            columns[1].append(Line2D([], [], color=grey, linewidth=0.9, label=f"theory, {which}"))
        low, high = (f"{100 * q:.0f}" for q in QUANTILES)
        columns[2].append(Patch(color=grey, alpha=0.25, linewidth=0, label=f"simulation, {low}–{high} % of networks"))
    else:
        columns[1].append(Line2D([], [], color=grey, linewidth=1.8, label="theory"))
    lost = [f"{_STYLES[one.label][3]} by {n}" for one in classes if (n := int((~one.learns).sum()))]
    if many and lost:
        text = f"class not learnt:  {',  '.join(lost)}"
        columns[0].append(Line2D([], [], color=grey, linewidth=0.9, marker="x", label=text))
    # Matplotlib fills column by column, so the columns are made equally long.
    longest = max(map(len, columns))
    return [h for column in columns for h in column + [Line2D([], [], alpha=0, label=" ")] * (longest - len(column))]
