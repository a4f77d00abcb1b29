"""The benchmarks compare like with like: every peer trains the same networks, and the tables say what was measured."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

# They are run from a clone and are no part of the installation; last, so that the installed package is the one tested.
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import first, growth, simulation
from benchmarks.peers import PEERS, torch_one_by_one
from benchmarks.problems import Size, problem
from benchmarks.timing import interleaved

TINY = Size("tiny", 16, 16, 4, 4, 100)


@pytest.mark.slow
def test_all_peers_train_the_same_networks():
    given = problem(TINY)
    exact = simulation.truth(TINY)
    assert exact.shape == (2, 16, 4)
    runs = {name: peer(given, TINY) for name, peer in PEERS.items()} | {"torch one by one": torch_one_by_one(given, TINY)}
    present = [name for name, run in runs.items() if run is not None]
    assert {"gradstarve", "naive vmap(grad) + scan", "NumPy batched"} <= set(present)
    for name in present:
        found = np.asarray(runs[name]())
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5, err_msg=name)


def test_times_are_taken_in_turns():
    calls = []
    times = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, turns=3)
    assert calls == ["a", "b"] * 4
    assert times["a"]["turns"] == 3
    assert times["b"]["least"] <= times["b"]["seconds"] <= times["b"]["most"]


def test_arithmetic_is_counted_as_said():
    assert Size("", 1, 8, 2, 2, 1).flops == 312
    assert Size("", 1, 16, 8, 16, 1).flops == 10_336
    assert Size("", 1, 64, 32, 64, 1).flops == 554_368


def test_a_part_is_printed_and_stored(tmp_path, monkeypatch, capsys):
    rows = [{"size": "S1", "what": "gradstarve", "seconds": 0.01234, "times_naive": 30.0, "note": None}]
    monkeypatch.setattr(command, "measure", lambda name, quick: rows if name == "sizes" else [])
    assert command.main(["sizes", "gpu", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| S1 | gradstarve | 0.0123 | 30 |" in printed
    assert "nothing to measure here" in printed
    stored = json.loads((tmp_path / "sizes.json").read_text())
    assert stored["rows"] == rows
    assert {"jax", "cpu", "cores", "quick"} <= set(stored["environment"])
    assert "| S1 | gradstarve | 0.0123 | 30 |" in (tmp_path / "sizes.md").read_text()
    assert not (tmp_path / "gpu.json").exists()
    with pytest.raises(SystemExit):
        command.main(["speed"])
    error = capsys.readouterr().err
    assert "unknown part 'speed'; choose from first, sizes, grid, growth, theory, hinge, sweep, report, gpu" in error


def test_growth_is_fitted_to_what_was_timed(monkeypatch):
    def make(n, m):
        return lambda: np.linspace(0, 1, n)

    monkeypatch.setattr(growth, "least", lambda run, turns: float(len(run())) ** 1.5)
    monkeypatch.setitem(growth.TASKS, "root", growth.Task(make, {"n": 2, "m": 5}, {"n": ((10, 100, 10_000), 2)}))
    rows = growth.grown("root", growth.TASKS["root"], "n", False)
    found = [(row["grows"], row["value"], row["processor_seconds"]) for row in rows[:2]]
    assert found == [("n", 10, 10**1.5), ("n", 100, 1000.0)]
    assert rows[2]["exponent"] == pytest.approx(1.5)
    assert rows[2]["stated"] == 2


@pytest.mark.parametrize("name", growth.TASKS)
def test_nothing_grows_faster_than_is_stated(name):
    """By the figures that are stored: noise, and what a cache can hold, are a fifth of a power."""
    rows = json.loads((command.HERE / "results" / "growth.json").read_text())["rows"]
    fitted = {row["grows"]: row["exponent"] for row in rows if row["task"] == name and "exponent" in row}
    assert list(fitted) == list(growth.TASKS[name].grows)
    assert not [size for size, found in fitted.items() if found > growth.TASKS[name].grows[size][1] + 0.2]


STORED = {row["what"]: row for row in json.loads((command.HERE / "results" / "first.json").read_text())["rows"]}


def test_every_question_has_a_figure():
    assert list(STORED) == list(first.QUESTIONS)
    assert [row["asked_seconds"] for row in STORED.values()] == list(first.ASKED.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", first.QUESTIONS)
def test_a_first_answer_takes_at_most_twice_its_figure(name):
    """In units of a compilation in the same process, so that a slow machine does not fail; the better one of two tries."""
    ratio = min(answer / reference for answer, _, reference in (first.ask(name, None) for _ in range(2)))
    assert ratio < 2 * STORED[name]["times_reference"]


def test_a_first_answer_is_asked_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setitem(first.QUESTIONS, "small", ("x = jnp.ones(3)", "gs.sigmoid_of_nothing(x)"))
    with pytest.raises(RuntimeError, match=r"(?s)small: .*sigmoid_of_nothing"):
        first.ask("small", None)
    monkeypatch.setitem(first.QUESTIONS, "small", ("x = jnp.ones(3)", "jnp.sin(x)"))
    answer, again, reference = first.ask("small", None)
    assert again < answer < reference  # the first one compiles, the reference a hundred times as much
