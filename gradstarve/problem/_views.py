"""Views of a learning curve: a figure, a table, and arrays with named axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import (
    GUIDE,
    as_choice,
    axes_for,
    figure_size,
    line_width,
    positive_int,
    save,
    sheet,
)
from gradstarve.problem._curve import given
from gradstarve.problem._data import ClassDataset, Dataset

QUANTILES = (0.1, 0.9)
_LABELS = {
    "error": "error σ(−m)",
    "loss": "loss l(m)",
    "mistakes": "share of mistakes",
    "margins": "margin of the true label",
}
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
_RECORDS = 400  # points of a line of theory
_LEFT = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)  # shares of the initial loss; a curve of theory is drawn to the least one reached


def draw(
    curve: Any, path: Any, what: Any, *, t: Any, ax: Any, title: Any, figsize: Any, label: Any, scale: Any, networks: Any
) -> Any:
    """The figure of `LearningCurve.plot`."""
    what = as_choice("what", what, tuple(_LABELS))
    scale = as_choice("scale", scale, ("linear", "log"))
    networks = positive_int("networks", networks, minimum=0)
    if 0 in curve._batch:
        raise ValueError(f"there is no network to draw: the batch has the shape {tuple(curve._batch)}")
    grid = times_of(curve, t, scale)
    many = len(curve._batch) > 0 and int(np.prod(curve._batch)) > 1
    with sheet(own=True):
        figure, panel = axes_for(ax, figure_size(figsize, (6.4, 4.0)))
        # A second curve in the same axes takes the next colour of their cycle, and the next line style.
        drawn = len(panel.get_legend_handles_labels()[0]) or min(len(panel.lines), 1)
        for place, (name, values) in enumerate(_series(curve, what, t, grid), start=drawn):
            name = ", ".join(part for part in (label, name) if part)
            values = values.reshape(-1, grid.size)
            look: dict[str, Any] = {"linestyle": _LINES[place % len(_LINES)], "linewidth": line_width(2.2), "zorder": 4}
            (line,) = panel.plot(grid, np.median(values, axis=0), label=name or None, **look)
            if many:
                low, high = np.nanquantile(values, QUANTILES, axis=0)
                panel.fill_between(grid, low, high, color=line.get_color(), alpha=0.16, linewidth=0, zorder=1)
                for one in np.unique(np.linspace(0, len(values) - 1, min(networks, len(values))).round().astype(int)):
                    panel.plot(grid, values[one], color=line.get_color(), linewidth=0.7, alpha=0.6, zorder=3)
        if not drawn:
            _dress(panel, curve, what, grid, scale, many)
        if title is not None:
            panel.set_title(title, loc="left")
        if panel.get_legend_handles_labels()[0]:
            panel.legend()
        if path is not None:
            save(figure, path) if ax is None else save(figure, path, figure.dpi)
    return figure


def times_of(curve: Any, t: Any, scale: str = "linear") -> np.ndarray:
    """The times or steps of a figure, rising, [records]."""
    if t is not None:
        grid = np.atleast_1d(np.asarray(t))
        if grid.ndim != 1 or grid.size == 0 or not (np.diff(grid) > 0).all():
            raise ValueError(f"t must be rising times or steps, [records], got shape {np.shape(t)}")
    elif hasattr(curve, "grid"):
        grid = np.asarray(curve.grid)
    else:
        end = _end(curve)
        early = end * np.geomspace(1e-4, 1, _RECORDS)
        grid = early if scale == "log" else np.linspace(0, end, _RECORDS)
        if curve._unit == "step":
            grid = np.unique(np.rint(grid)).astype(np.int64)
    return grid[grid > 0] if scale == "log" else grid


def _end(curve: Any) -> float:
    """The end of the t axis of a figure of theory: when most of the loss is gone, in the networks that get that far."""
    start = float(np.median(np.asarray(curve.loss(0))))
    left = start * np.array(_LEFT)
    times = np.asarray(curve.time_to_loss(left, max_steps=20_000)).reshape(-1, left.size)
    # For each network, the time of the smallest share of the loss that it reaches.
    reached = np.max(np.where(np.isfinite(times), times, -np.inf), axis=-1)
    reached = reached[reached > 0]
    return 1.3 * float(np.max(reached)) if reached.size else (100.0 if curve._unit == "step" else 10.0)


def _series(curve: Any, what: str, t: Any, grid: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(name, values [*batch, records]) of every line."""
    at = None if t is None and hasattr(curve, "grid") and grid.size == np.size(curve.grid) else grid
    if what != "margins":
        return [("", np.asarray(getattr(curve, what)(at)))]
    margins = np.asarray(curve.margins(at))
    data = getattr(curve, "data", None)
    if data is None:
        return [("", margins[..., 0])]
    groups = np.asarray(data.classes if isinstance(data, ClassDataset) else data.labels)
    names = {1: "class +", -1: "class −"} if isinstance(data, Dataset) else {}
    found = []
    for group in np.unique(groups)[::-1] if isinstance(data, Dataset) else np.unique(groups):
        mine = groups == group
        share = np.asarray(data.weights)[mine]
        found.append((names.get(int(group), f"class {int(group)}"), margins[..., mine] @ (share / share.sum())))
    return found


def _dress(panel: Any, curve: Any, what: str, grid: np.ndarray, scale: str, many: bool) -> None:
    if scale == "log":
        panel.set_xscale("log")
    if grid.size > 1:
        panel.set_xlim(grid[0], grid[-1])
    panel.set_xlabel("time t" if curve._unit == "time" else "step k")
    panel.set_ylabel(_LABELS[what])
    if what == "margins":
        panel.axhline(0, color=GUIDE, linewidth=0.8, linestyle=":", zorder=2)
    else:
        panel.set_ylim(bottom=0)
    if many:
        panel.set_title(f"{int(np.prod(curve._batch))} networks: median and 10–90 %", loc="left")


# Tables.


def _batch_names(curve: Any) -> list[str]:
    """ "network", or "network_0", "network_1", ... for several batch axes."""
    axes = len(curve._batch)
    return ["network"] if axes == 1 else [f"network_{i}" for i in range(axes)]


def _records(curve: Any, t: Any) -> np.ndarray:
    """The times or steps of a table, [records]."""
    if t is None and hasattr(curve, "grid"):
        return np.asarray(curve.grid)
    grid = np.asarray(given(t))
    if grid.ndim > 1:
        raise ValueError(f"t must be a number or [records], got shape {grid.shape}")
    return np.atleast_1d(grid)


def _of_curve(curve: Any, at: Any) -> dict[str, np.ndarray]:
    """error, loss and mistakes, [*batch, records]."""
    return {name: np.asarray(getattr(curve, name)(at)) for name in ("error", "loss", "mistakes")}


def _of_points(curve: Any) -> dict[str, np.ndarray]:
    """label (class of a softmax network) and weight, [n]."""
    data = getattr(curve, "data", None)
    if data is None:
        return {}
    labels = data.classes if isinstance(data, ClassDataset) else data.labels
    return {"label": np.asarray(labels).astype(int), "weight": np.asarray(data.weights)}


def frame(curve: Any, t: Any, what: Any) -> Any:
    """The table of `LearningCurve.to_pandas`."""
    try:
        import pandas
    except ImportError:
        raise ImportError("to_pandas needs pandas: pip install 'gradstarve[sweep]' (or pip install pandas)") from None

    what = as_choice("what", what, ("curve", "points", "events"))
    if what == "events":
        return _event_frame(pandas, curve)
    grid = _records(curve, t)
    names = [*_batch_names(curve), curve._unit]
    ranges = [range(size) for size in curve._batch]
    if what == "curve":
        index = pandas.MultiIndex.from_product([*ranges, grid], names=names)
        return pandas.DataFrame({name: values.reshape(-1) for name, values in _of_curve(curve, grid).items()}, index)
    margins = np.asarray(curve.margins(grid))
    logits = np.asarray(curve.logits(grid))
    count = margins.shape[-1]
    index = pandas.MultiIndex.from_product([*ranges, grid, range(count)], names=[*names, "point"])
    columns = {name: np.tile(values, margins.size // count) for name, values in _of_points(curve).items()}
    if logits.ndim == margins.ndim:
        columns["logit"] = logits.reshape(-1)
    else:
        columns |= {f"logit_{k}": logits[..., k].reshape(-1) for k in range(logits.shape[-1])}
    return pandas.DataFrame(columns | {"margin": margins.reshape(-1)}, index)


def _event_frame(pandas: Any, curve: Any) -> Any:
    events = getattr(curve, "events", None)
    if not hasattr(events, "names"):
        raise ValueError(f"{type(curve).__name__} has no list of events; simulate_hinge_exact(...) records them")
    assert events is not None
    happened = np.asarray(events.kind) > 0
    where = np.nonzero(happened)
    index = pandas.MultiIndex.from_arrays([axis for axis in where], names=[*_batch_names(curve), "event"])
    columns = {"time": events.time[happened], "kind": pandas.Categorical(events.names[happened])}
    columns |= {"neuron": events.neuron[happened], "point": events.point[happened]}
    return pandas.DataFrame(columns, index)


def labelled(curve: Any, t: Any) -> Any:
    """The arrays of `LearningCurve.to_xarray`."""
    try:
        import xarray
    except ImportError:
        raise ImportError("to_xarray needs xarray: pip install 'gradstarve[sweep]' (or pip install xarray)") from None

    grid = _records(curve, t)
    names = [*_batch_names(curve), curve._unit]
    entries: dict[str, Any] = {name: (names, values) for name, values in _of_curve(curve, grid).items()}
    logits, margins = np.asarray(curve.logits(grid)), np.asarray(curve.margins(grid))
    entries["margins"] = ([*names, "point"], margins)
    entries["logits"] = ([*names, "point", "class"][: logits.ndim], logits)
    coordinates: dict[str, Any] = {name: np.arange(size) for name, size in zip(names, curve._batch, strict=False)}
    coordinates |= {curve._unit: grid, "point": np.arange(margins.shape[-1])}
    coordinates |= {name: ("point", values) for name, values in _of_points(curve).items()}
    events = getattr(curve, "events", None)
    if hasattr(events, "names"):
        assert events is not None
        rows = {"event_time": events.time, "event_kind": events.names, "event_neuron": events.neuron}
        rows |= {"event_point": events.point}
        entries |= {name: ([*names[:-1], "event"], np.asarray(values)) for name, values in rows.items()}
    loss = getattr(curve.loss_function, "name", type(curve.loss_function).__name__)
    return xarray.Dataset(entries, coordinates, {"loss": loss})
