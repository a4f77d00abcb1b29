"""Gaps between a theory curve and a recorded run of the same problem: the numbers, the table and the figure's data.

All arrays are NumPy arrays: the results are not differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from gradstarve.ground import as_number, deprecated, html_table, is_concrete, number, readable, short_repr, shown, table_text
from gradstarve.problem import GradientFlow, Network, PhasedCurve, Schedule, Steps, StochasticGradientDescent, TwoLayerReLU


@dataclass(frozen=True)
class Worst:
    """The largest logit gap: the network, t and point at which it occurs, and the two logits.

    - `network`: index along the batch axes, () for one network;
    - `t`: step number or time, as in the trajectory's grid;
    - `point`: index into the data;
    - `theory`, `simulated`: the two logits f(x_point).
    """

    network: tuple[int, ...]
    t: int | float
    point: int
    theory: float
    simulated: float


@dataclass(frozen=True)
class ClassGap:
    """The gaps on the points of one class (`label` +1 or -1), over all networks and records.

    - `frequency`: p, the total weight of the class; `norms`: the smallest and largest |x_i|;
    - `gap`: max |f_theory - f_simulated|; `relative_gap`: the same over sqrt(1 + f^2); `rms`: root mean square gap;
    - `not_learnt_theory`, `not_learnt_simulated`: the number of networks with a margin <= 0 on some point of the class at
      the last record: networks that fail for ever (4.1)-(4.3), and networks that need more time.
    """

    label: int
    frequency: float
    norms: tuple[float, float]
    gap: float
    relative_gap: float
    rms: float
    not_learnt_theory: int
    not_learnt_simulated: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """The result of `compare`. Logits are [*batch, records, n], labels ±1, t in the units of the trajectory's grid.

    - `gap`: the largest |df|, df = f_theory - f_simulated; `relative_gap`: the largest |df| / sqrt(1 + f^2); `rms`: the
      root mean square of df;
    - `gaps`: the largest |df| of each network, [*batch];
    - `worst`: the `Worst` record, which has the gap `gap`; `classes`: one `ClassGap` for each class in the data, + first;
    - `grid`: the compared steps (integers) or times, [records]; `unit`: "step" or "time";
    - `theory`, `simulated`: the logits; `time_scale`: theory's t is `time_scale` * grid;
    - `both_infinite`: the number of logits left out because neither curve is finite there (training diverged as predicted);
    - `data_gap`: for a law of nearby data, `Solution.on(data)`, how far its points are from those of the run; else None.

    A record where exactly one of the two curves is finite counts as an infinite gap.
    """

    solution: Any = field(repr=False)
    trajectory: Any = field(repr=False)
    grid: np.ndarray = field(repr=False)
    unit: str
    time_scale: float
    theory: np.ndarray = field(repr=False)
    simulated: np.ndarray = field(repr=False)
    gap: float
    relative_gap: float
    rms: float
    gaps: np.ndarray = field(repr=False)
    worst: Worst
    classes: tuple[ClassGap, ...]
    both_infinite: int
    data_gap: Any = None

    @property
    def networks(self) -> int:
        """The number of compared networks."""
        return int(self.gaps.size)

    def theory_at(self, t: Any) -> np.ndarray:
        """The logits of theory at any t, recorded or not, in the units of `grid`: [*batch, *t.shape, n]."""
        return np.asarray(self.solution.logits(theory_argument(self.solution, np.asarray(t), self.time_scale)))

    def rows(self) -> list[tuple[str, ...]]:
        """The table as strings, its header first: one row for each class and one for all points."""
        header = ("class", "p", "r", "max |gap|", "max |gap|/√(1+f²)", "rms gap", "not learnt: theory", "simulation")
        body = []
        for c in self.classes:
            low, high = c.norms
            norms = number(low) if number(low) == number(high) else f"{number(low)}–{number(high)}"
            gaps = (number(c.gap), number(c.relative_gap), number(c.rms))
            lost = (f"{n} of {self.networks}" for n in (c.not_learnt_theory, c.not_learnt_simulated))
            body.append((f"{'+' if c.label > 0 else '−'}", number(c.frequency), norms, *gaps, *lost))
        total = ("all", "", "", number(self.gap), number(self.relative_gap), number(self.rms), "", "")
        return [header, *body, total]

    def summary(self) -> str:
        """One sentence: the worst gap, and where it is."""
        w = self.worst
        where = f"{self.unit} {number(w.t, 6)}, point {w.point}"
        if w.network:
            where = f"network {', '.join(map(str, w.network))}, {where}"
        logits = f"theory {number(w.theory, 6)}, simulation {number(w.simulated, 6)}"
        text = f"Worst gap {number(self.gap)} at {where}: {logits}."
        if self.both_infinite:
            text += f" Left out: {self.both_infinite} logits that are infinite in theory and in simulation."
        if self.data_gap is not None:
            text += f" The law is of nearby data: {self.data_gap}."
        return text

    def conclusion(self) -> str:
        """In one sentence, how far apart both sides are."""
        many = f"{self.networks} network{'s' * (self.networks != 1)}"
        return f"Law and training differ by {self.gap:.3g} at most, in the logits of {many} at {self.grid.size} records"

    def table(self) -> str:
        """The gap table as plain text, with the worst record below it."""
        return table_text(self.rows()) + "\n" + self.summary()

    __repr__ = short_repr

    def rich_table(self) -> Any:
        """The gap table as a `rich.table.Table`, with the worst record as its caption."""
        from rich.table import Table

        header, *body = self.rows()
        table = Table(title="Theory against simulation: logits f(x)", caption=self.summary(), caption_justify="left")
        for i, name in enumerate(header):
            table.add_column(name, justify="left" if i == 0 else "right")
        for i, row in enumerate(body):
            table.add_row(*row, end_section=i == len(body) - 2)
        return table

    def _repr_html_(self) -> str:
        return html_table(self.rows(), self.summary())

    def to_dict(self) -> dict[str, Any]:
        """Every number of the table, and the worst gap of each network, in a dictionary that can be written as JSON."""
        return {
            "gap": self.gap,
            "relative_gap": self.relative_gap,
            "rms": self.rms,
            "networks": self.networks,
            "records": int(self.grid.size),
            "unit": self.unit,
            "first": self.grid[0].item(),
            "last": self.grid[-1].item(),
            "time_scale": self.time_scale,
            "both_infinite": self.both_infinite,
            "data_gap": None if self.data_gap is None else self.data_gap._asdict(),
            "worst": vars(self.worst),
            "classes": [vars(c) for c in self.classes],
            "gaps": self.gaps,
        }

    def plot(
        self,
        path: Any = None,
        ax: Any = None,
        *,
        what: str = "both",
        networks: Any = 2,
        scale: str = "auto",
        title: str | None = None,
        note: str = "",
        figsize: Any = None,
    ) -> Any:
        """The overlay as a matplotlib `Figure`, saved to `path` if given: theory as lines, training as markers and quantile
        bands.

        - `what`: "error", "margins", or "both", in a panel each; `ax`: axes to draw into, two for "both";
        - `networks`: how many single networks to show for each class, or a sequence of their flat indices;
        - `scale`: of the t axis, "linear", "log" or "auto"; `title`: the first line; `note`: added to the second line;
        - `figsize`: inches, by default 9 x 4.6, or 6.4 x 4.6 for one panel.

        Sizes and fonts that you have set in Matplotlib stay yours.
        """
        from gradstarve.comparison._overlay import overlay

        how: dict[str, Any] = {"what": what, "networks": networks, "scale": scale, "title": title, "note": note}
        return overlay(self, ax=ax, path=path, figsize=figsize, **how)


@deprecated("solution", "trajectory", "t", "step_size")
def compare(solution: Any, trajectory: Any, *, t: Any = None, step_size: Any = None) -> Comparison:
    """The gaps between a curve of theory and a recorded run, in the logits f(x_i) on the grid of the run.

    - `solution`: the result of `solve`, or any learning curve defined at every t: logits [*batch, *t.shape, n]. Evaluate a
      law of nearby data at the points of the run first, `solve(data.means(), network, loss).on(data)`: the result then has
      the gap of the data beside the gap of the curves;
    - `trajectory`: the result of `simulate` or `simulate_flow`, a learning curve with a `.grid`;
    - `t`: the recorded steps or times to compare (default: all of them), scalar or [k], in rising order;
    - `step_size`: required if one curve counts steps and the other time, t = step_size * step: the law of gradient flow
      against a run of descent, or the law of descent against a simulated flow. Otherwise it must be left out.

    Both curves may be float32 or float64; gaps are computed in float64. `ValueError` if the two curves have different
    points, labels, weights, loss, step size (or momentum, weight decay) or batch of networks, if their logits at t = 0
    differ, or if their units differ without `step_size`. The law of gradient flow may be compared with a run of descent:
    the gap is then due to the finite step size.

    >>> from gradstarve.problem import GradientDescent, TwoLayerReLU, datasets
    >>> from gradstarve.simulation import simulate
    >>> from gradstarve.theory import solve
    >>> data, net = datasets.antipodal(), TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
    >>> descent = GradientDescent(0.5)
    >>> run = simulate(data, net, "cross-entropy", descent, steps=50)
    >>> compare(solve(data, net, "cross-entropy", descent), run).gap < 1e-5
    True
    """
    for name, value, needed in (("solution", solution, ("logits",)), ("trajectory", trajectory, ("logits", "grid"))):
        if not all(hasattr(value, attribute) for attribute in (*needed, "data", "loss_function")):
            hint = " (a trajectory has a .grid; is the order of the two arguments right?)" if "grid" in needed else ""
            raise ValueError(f"{name} must be a learning curve, got {type(value).__name__}{hint}")
    if isinstance(solution, PhasedCurve) or isinstance(trajectory, PhasedCurve):
        raise ValueError("data that change are compared in each phase: compare(solution.parts[k], trajectory.parts[k])")
    _check_same_problem(solution, trajectory)
    grid, recorded = np.asarray(trajectory.grid), trajectory.logits()
    if t is not None:
        grid = np.atleast_1d(np.asarray(readable("t", t)))
        if grid.dtype.kind == "b" or grid.ndim != 1 or grid.size == 0 or (np.diff(grid) < 0).any():
            raise ValueError(f"t must be a recorded step or time, or a rising sequence of them, got {shown(t)}")
        recorded = trajectory.logits(grid)
        grid = grid.astype(np.asarray(trajectory.grid).dtype)
    if not is_concrete(recorded):
        raise ValueError("compare reads numbers, so call it outside jit, grad and vmap")
    unit = "step" if grid.dtype.kind in "iu" else "time"
    scale = _time_scale(solution, unit, step_size)
    theory = np.asarray(solution.logits(theory_argument(solution, grid, scale)), np.float64)
    simulated = np.asarray(recorded, np.float64)
    if theory.shape != simulated.shape:
        raise ValueError(
            f"theory gives logits of shape {theory.shape} and the trajectory {simulated.shape}; both must be "
            "[*batch, records, n] for the same networks: solve and simulate the same `network`"
        )
    _check_same_start(solution, trajectory)
    _check_same_dynamics(solution, trajectory, step_size)
    return _measure(solution, trajectory, grid, unit, scale, theory, simulated)


def theory_argument(solution: Any, grid: np.ndarray, scale: float) -> np.ndarray:
    """The t of `solution` at the entries of `grid`: scale * grid, rounded to step numbers for a law of descent."""
    values = grid * scale if scale != 1 else grid
    if isinstance(getattr(solution, "dynamics", None), Steps):
        steps = np.rint(values)
        # A multiple of the step size is a whole step up to the rounding of the product and of the recorded time.
        slack = 1e-9 if grid.dtype != np.float32 else 1e-4
        off = np.abs(values - steps) > slack * np.maximum(steps, 1)
        if off.any():
            raise ValueError(
                f"descent theory exists at whole steps only, but time {grid[off][0]} is step {values[off][0]:.6g}; "
                "simulate the flow at multiples of the step size"
            )
        return np.asarray(steps, np.int64)
    return values


def _check_same_problem(solution: Any, trajectory: Any) -> None:
    ours, theirs = solution.data, trajectory.data
    for name in ("points", "labels", "weights"):
        a, b = np.asarray(getattr(ours, name)), np.asarray(getattr(theirs, name))
        if a.shape != b.shape:
            raise ValueError(f"the two curves are about different data: {name} of shape {a.shape} and {b.shape}")
        # One of the curves may be computed in float32 from data that were given in float64.
        tol = 4 * max(np.finfo(a.dtype).eps, np.finfo(b.dtype).eps) * np.abs(a).max()
        off = np.abs(a.astype(np.float64) - b) > tol
        if off.any():
            where = tuple(int(i) for i in np.argwhere(off)[0])
            place = ", ".join(map(str, where))
            raise ValueError(f"the two curves are about different data: {name}[{place}] = {a[where]} and {b[where]}")
    losses = (solution.loss_function, trajectory.loss_function)
    names = [getattr(loss, "name", type(loss).__name__) for loss in losses]
    kinds = [jax.tree.structure(loss) for loss in losses]  # types, also those of a loss inside another one
    if names[0] != names[1] or kinds[0] != kinds[1]:
        if names[0] == names[1]:
            names = [f"{name} of type {type(loss).__name__}" for name, loss in zip(names, losses, strict=True)]
        raise ValueError(f"theory is for the loss {names[0]!r} and the trajectory for {names[1]!r}; use one of them")
    numbers = [[np.asarray(leaf) for leaf in jax.tree.leaves(loss)] for loss in losses]  # penalties and the like
    for a, b in zip(*numbers, strict=True):
        if a.shape != b.shape or not np.allclose(a, b, rtol=1e-6, atol=0):
            raise ValueError(f"the two curves are for different numbers in the loss {names[0]!r}: {a} and {b}")


def _check_same_start(solution: Any, trajectory: Any) -> None:
    """`ValueError` unless the logits at t = 0 agree, up to the rounding of their terms."""
    grid = np.asarray(trajectory.grid)
    initial = getattr(trajectory, "initial", None)
    if isinstance(initial, Network):
        simulated = np.asarray(initial(trajectory.data.points))[..., None, :]
    elif grid.size and grid[0] == 0:
        simulated = np.asarray(trajectory.logits(grid[:1]))
    else:
        return
    theory = np.asarray(solution.logits(np.zeros(1, grid.dtype)))
    eps = max(float(np.finfo(values.dtype).eps) for values in (theory, simulated))
    theory, simulated = theory.astype(np.float64), simulated.astype(np.float64)
    if theory.shape != simulated.shape:
        return
    # The tolerance is 64 eps of the terms z_j (w_j . x) of a logit, which may cancel, if the network is at hand.
    size = np.maximum(np.abs(theory), np.abs(simulated))
    for network in (getattr(solution, "start", None), initial):
        if isinstance(network, TwoLayerReLU):
            seen = np.abs(np.asarray(network.w, np.float64)) @ np.abs(np.asarray(trajectory.data.points, np.float64)).T
            terms = np.einsum("...h,...hn->...n", np.abs(np.asarray(network.z, np.float64)), seen)
            if terms[..., None, :].shape == size.shape:
                size = np.maximum(size, terms[..., None, :])
    with np.errstate(invalid="ignore"):
        off = np.abs(theory - simulated) > 64 * eps * size
    if off.any():
        where = np.unravel_index(int(np.argmax(np.where(off, np.abs(theory - simulated), 0))), off.shape)
        network = ", ".join(str(int(i)) for i in where[:-2])
        which = f"network {network}, point {int(where[-1])}" if network else f"point {int(where[-1])}"
        raise ValueError(
            f"the two curves start from different networks: at t = 0 theory has the logit {theory[where]:.6g} and the "
            f"trajectory {simulated[where]:.6g} ({which}); solve and simulate the same `network`"
        )


def _check_same_dynamics(solution: Any, trajectory: Any, step_size: Any) -> None:
    """`ValueError` if both curves have dynamics whose numbers differ."""
    ours, theirs = (getattr(curve, "dynamics", None) for curve in (solution, trajectory))
    if isinstance(ours, Steps) and isinstance(theirs, StochasticGradientDescent):
        raise ValueError(
            "theory is of full-batch descent and the trajectory of random points in each step; compare the latter with "
            "solve_mode(mode, loss, dynamics).distribution(step)"
        )
    if isinstance(ours, Steps) and isinstance(theirs, Steps):
        if type(ours) is not type(theirs):
            names = f"theory is of {type(ours).__name__} and the trajectory of {type(theirs).__name__}"
            raise ValueError(f"{names}; use one dynamics for both")
        steps = int(np.max(trajectory.grid, initial=0))
        ours, theirs = (dynamics.tabled(steps, np.dtype(np.float64)) for dynamics in (ours, theirs))
        for name in type(ours).__dataclass_fields__:
            _check_same_number(name, ours, theirs)
    descent = ours if isinstance(ours, Steps) else theirs
    if step_size is None or not isinstance(descent, Steps) or descent.scheduled:
        return
    # Time per step: with momentum, step_size and step_size / (1 - momentum) are both in use.
    known = np.asarray(descent.step_size, np.float64)
    rest = 1 - np.asarray(getattr(descent, "momentum", 0.0), np.float64)
    if not (np.isclose(known, float(step_size), rtol=1e-6) | np.isclose(known / rest, float(step_size), rtol=1e-6)).all():
        raise ValueError(
            f"step_size = {float(step_size):.6g} was given, but descent has the step size {known.flat[0]:.6g}; "
            "t = step_size * step needs that of the run"
        )


def _check_same_number(name: str, ours: Any, theirs: Any) -> None:
    a, b = (getattr(dynamics, name) for dynamics in (ours, theirs))
    if isinstance(a, Schedule) and isinstance(b, Schedule):
        a, b = (np.asarray(schedule.values) for schedule in (a, b))
        steps = min(a.size, b.size)
        a, b = a[:steps], b[:steps]
    elif isinstance(a, Schedule) or isinstance(b, Schedule) or (a is None) != (b is None):
        raise ValueError(f"theory has {name} = {shown(a)} and the trajectory {shown(b)}; use one dynamics for both")
    if a is None or isinstance(a, str):
        return
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    try:
        a, b = np.broadcast_arrays(a, b)
    except ValueError:
        raise ValueError(
            f"theory has {name} of shape {a.shape} and the trajectory of shape {b.shape}; use one dynamics for both"
        ) from None
    off = ~np.isclose(a, b, rtol=1e-6, atol=0)  # one of them may have been rounded to float32
    if off.any() and not (name == "nesterov" and not np.asarray(ours.momentum).any()):
        raise ValueError(
            f"theory has {name} = {a[off].flat[0]:.6g} and the trajectory {b[off].flat[0]:.6g}; use one dynamics for both"
        )


def _time_scale(solution: Any, unit: str, step_size: Any) -> float:
    """Theory's t per unit of the grid."""
    dynamics = getattr(solution, "dynamics", None)
    wanted = "time" if isinstance(dynamics, GradientFlow) else "step" if isinstance(dynamics, Steps) else unit
    if wanted == unit:
        if step_size is not None:
            raise ValueError(
                f"step_size = {shown(step_size)} was given, but theory and trajectory both count in {unit}s; leave it out"
            )
        return 1.0
    if step_size is None:
        raise ValueError(
            f"theory counts in {wanted}s and the trajectory in {unit}s; give step_size, or solve with "
            f"{'GradientDescent(step_size)' if unit == 'step' else 'GradientFlow()'}"
        )
    try:
        value = as_number("step_size", step_size, 0, with_low=False)
    except ValueError:
        raise ValueError(f"step_size must be one positive number, got {shown(step_size)}") from None
    return value if wanted == "time" else 1 / value


def _measure(solution, trajectory, grid, unit, scale, theory, simulated) -> Comparison:
    fine, found = np.isfinite(theory), np.isfinite(simulated)
    neither = ~fine & ~found
    if not neither.size:
        raise ValueError(f"there is no logit to compare: the logits have the shape {neither.shape}")
    if neither.all():
        raise ValueError("no logit is finite in either curve, so there is nothing to compare; use a smaller step size")
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(theory - simulated)
        difference = np.where(fine & found, difference, np.where(neither, 0.0, np.inf))
        relative = difference / np.sqrt(1 + np.where(fine, theory, 0.0) ** 2)
    where = np.unravel_index(int(np.argmax(difference)), difference.shape)
    worst = Worst(
        network=tuple(int(i) for i in where[:-2]),
        t=grid[where[-2]].item(),
        point=int(where[-1]),
        theory=float(theory[where]),
        simulated=float(simulated[where]),
    )
    data = trajectory.data
    labels, weights = np.asarray(data.labels), np.asarray(data.weights, np.float64)
    norms = np.linalg.norm(np.asarray(data.points, np.float64), axis=-1)
    classes = []
    for label in (1, -1):
        mine = labels == label
        if not mine.any():
            continue
        lost = [int((~(label * curve[..., -1, mine] > 0)).any(axis=-1).sum()) for curve in (theory, simulated)]
        classes.append(
            ClassGap(
                label=label,
                frequency=float(weights[mine].sum()),
                norms=(float(norms[mine].min()), float(norms[mine].max())),
                gap=float(difference[..., mine].max()),
                relative_gap=float(relative[..., mine].max()),
                rms=_rms(difference[..., mine], neither[..., mine]),
                not_learnt_theory=lost[0],
                not_learnt_simulated=lost[1],
            )
        )
    return Comparison(
        solution=solution,
        trajectory=trajectory,
        grid=grid,
        unit=unit,
        time_scale=scale,
        theory=theory,
        simulated=simulated,
        gap=float(difference.max()),
        relative_gap=float(relative.max()),
        rms=_rms(difference, neither),
        gaps=np.asarray(difference.max(axis=(-2, -1))),
        worst=worst,
        classes=tuple(classes),
        both_infinite=int(neither.sum()),
        data_gap=getattr(solution, "gap", None),
    )


def _rms(difference: np.ndarray, left_out: np.ndarray) -> float:
    count = int((~left_out).sum())
    # Scaled by the largest entry, so that squares neither overflow nor vanish.
    largest = float(difference.max())
    if count == 0 or largest == 0 or not np.isfinite(largest):
        return largest
    return largest * float(np.sqrt(np.sum((difference / largest) ** 2) / count))
