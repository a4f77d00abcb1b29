"""`open_sweep`: the result in a directory, without the arguments of its sweep."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.problem import Dataset
from gradstarve.simulation.sweep import _plan as sweep_plan
from gradstarve.simulation.sweep._remember import axes_of, configurations_of, precision
from gradstarve.simulation.sweep._result import SweepResult, made
from gradstarve.simulation.sweep._run import Job
from gradstarve.simulation.sweep._store import Reader, as_directory, checksum


def open_sweep(directory: Any) -> SweepResult:
    """The result of the sweep in `directory`, as `sweep(..., directory=directory)` gave it, to the last bit.

    Its arguments are not needed, nor its versions, hardware or precision: statistics are those that were computed, in
    float64, and `.network`, `.trajectory` and `.final` are in the precision of the sweep. Nothing is trained or written.
    `.trajectory` needs the loss and the dynamics, which a directory holds where they are those of gradstarve; code of your
    own is not stored, and `ValueError` says so.

    Of a directory that was extended it is the whole of it. `ValueError` where no sweep is in the directory, where it is not
    complete, or damaged, with the names of what is missing.

    >>> import tempfile
    >>> from gradstarve.problem import datasets
    >>> from gradstarve.simulation import sweep
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = sweep(datasets.antipodal(), 10, steps=20, over={"step_size": [0.1, 0.5]}, directory=folder)
    ...     again = open_sweep(folder)
    >>> again.over, bool((again["error_mean"] == result["error_mean"]).all())
    ({'step_size': [0.1, 0.5]}, True)
    """
    store = Reader(as_directory(directory))
    manifest, settings = store.manifest, store.settings
    name = repr(str(directory))
    try:
        with precision(settings["precision"]):
            over = axes_of(manifest["over"])
            codes = {code for one in manifest["configurations"] for code in one["data"]}
            datasets = {code: _dataset(store, code) for code in sorted(codes)}
            found = configurations_of(manifest["configurations"], over, datasets)
        kind, *words = settings["key"]
        key = jax.random.wrap_key_data(jnp.asarray(np.array(words, np.uint32)), impl=kind)
        sizes = [one["block"] for one in settings["configurations"].values()]
        seeds = range(*settings["seeds"])
        fields = {one: settings[one] for one in ("threshold", "record_every", "engine", "keep")}
        grid = sweep_plan.grid_of(found[0], settings["steps"], settings["record_every"])
        note = manifest["note"]
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"the manifest in {name} is damaged ({error!r}); {_AGAIN}") from None
    job = Job(sweep_plan.blocks_of(len(seeds), sizes), sizes, 1, seeds.start, store)
    missing, wrong = job.read()
    if missing:
        what = f"{missing} of {job.total} networks are missing" + (f", as {'; '.join(wrong[:5])}" if wrong else "")
        raise ValueError(f"the sweep in {name} is not complete: {what}; {_AGAIN}")
    parts, kept = job.everything()
    return made(parts, over=over, configurations=found, grid=grid, seeds=seeds, key=key, kept=kept, note=note, **fields)


_AGAIN = "call gs.sweep again with its arguments and this directory, and it is made complete"


def _dataset(store: Reader, code: str) -> Dataset:
    path = store.directory / f"data-{code}.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes())) as stored:
            arrays = [stored[name] for name in ("points", "labels", "weights")]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{str(path)!r}, the data of the sweep, cannot be read ({error}); {_AGAIN}") from None
    if checksum(*arrays) != code:
        raise ValueError(f"{str(path)!r}, the data of the sweep, is damaged; {_AGAIN}")
    return Dataset(*arrays)
