"""A sweep as tables with a row for each configuration, step or point: for pandas, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np

from gradstarve.ground import as_choice, files
from gradstarve.simulation.sweep._plan import told
from gradstarve.simulation.sweep._statistics import OF_EVERY_SWEEP

WHAT = ("curve", "points", "summary")
_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def table(result: Any, what: str) -> tuple[dict[str, list], dict[str, np.ndarray]]:
    """The index and the columns by name, each with a value for every row."""
    what = as_choice("what", what, WHAT)
    sizes = [*result.shape, *({"curve": [len(result.grid)], "points": [len(result.grid), _points(result)]}.get(what, []))]
    rows = list(itertools.product(*map(range, sizes)))
    index: dict[str, list] = {}
    for place, (key, values) in enumerate(result.over.items()):
        for name, column in told(key, values).items():
            index[name] = [column[row[place]] for row in rows]
    front = len(result.shape)
    if what != "summary":
        index["step"] = [int(result.grid[row[front]]) for row in rows]
    if what == "points":
        index["point"] = [row[front + 1] for row in rows]
    return index, {name: np.asarray(values).reshape(len(rows)) for name, values in _columns(result, what)}


def _points(result: Any) -> int:
    return result["margin_mean"].shape[-1]


def _columns(result: Any, what: str) -> Any:
    front = len(result.shape)
    if what == "summary":
        yield "networks", np.full(result.shape, len(result.seeds))
        yield "diverged", result["diverged"]
        for name in ("", "_all"):
            yield f"learnt{name}", result[f"learnt{name}"][..., -1]
            yield f"never_learnt{name}", result[f"never_learnt{name}"]
        yield "median_step", result.time_to_learn(0.5)
        for name in ("error", "loss"):
            yield f"{name}_mean", result[f"{name}_mean"][..., -1]
        for level, values in zip(_LEVELS, np.moveaxis(result.quantile("error", _LEVELS)[..., -1, :], -1, 0), strict=True):
            yield f"error_quantile_{level}", values
    else:
        dims = front + (1 if what == "curve" else 2)
        starts = ("error_", "loss_", "learnt", "first_learnt")
        if what == "points":
            starts = ("margin_", "learnt_point", "first_learnt_point")
        for name, values in result.statistics.items():
            if name.startswith(starts) and values.ndim == dims and not name.endswith("_histogram"):
                yield name, values
        name = "error" if what == "curve" else "margin"
        for level, values in zip(_LEVELS, np.moveaxis(result.quantile(name, _LEVELS), -1, 0), strict=True):
            yield f"{name}_quantile_{level}", values
    if what == "summary":
        for name, values in result.statistics.items():
            if not name.startswith(OF_EVERY_SWEEP) and values.ndim == front:
                yield name, values


def frame(result: Any, what: str, needs: str = "to_pandas needs pandas") -> Any:
    """The table of `SweepResult.to_pandas`."""
    try:
        import pandas
    except ImportError:
        raise ImportError(f"{needs}: pip install 'gradstarve[sweep]' (or pip install pandas)") from None
    index, columns = table(result, what)
    if not index:
        return pandas.DataFrame(columns)
    arrays = list(index.values())
    return pandas.DataFrame(columns, index=pandas.MultiIndex.from_arrays(arrays, names=list(index)))


def write_csv(result: Any, path: Any, what: str) -> Path:
    """Numbers as their shortest decimals that read back to the same bits."""
    index, columns = table(result, what)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow([*index, *columns])
    rows.writerows(zip(*index.values(), *(values.tolist() for values in columns.values()), strict=True))
    return files.write_text(path, text.getvalue())


def write_parquet(result: Any, path: Any, what: str) -> Path:
    """By pandas, which has pyarrow do it."""
    path = files.as_path(path)
    made = frame(result, what, "to_parquet needs pandas and pyarrow")
    try:
        import pyarrow  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("to_parquet needs pyarrow: pip install pyarrow; or write to_csv, which needs nothing") from None
    with files.whole(path) as part:
        made.reset_index().to_parquet(part, index=False)
    return path
