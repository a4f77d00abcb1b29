"""The report: names, exit conditions, what is written, and that 64 bits are on for the duration only."""

import dataclasses
import hashlib
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from gradstarve.theorems import BATCH, CATALOGUE, Counterexample, Quote, Report, Row, TrialLog, generator, two_rays, verify
from gradstarve.theorems._sampling import cone_data, exclusive_start

CHEAP = "sign"
CATALOGUE_CHECK = CATALOGUE[CHEAP].check


@pytest.fixture(scope="module")
def report():
    return verify(CHEAP, trials=BATCH, progress=False)


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(ValueError, match=r"'signs'.*balance, sign, no-sliding-edges, independent-modes"):
        verify(["sign", "signs"])
    with pytest.raises(ValueError, match="names is empty, so that no theorem is named; use one of balance"):
        verify([])
    with pytest.raises(ValueError, match="a name or a list of names"):
        verify(3)
    with pytest.raises(ValueError, match="trials"):
        verify(CHEAP, trials=0)
    with pytest.raises(ValueError, match="JAX key"):
        verify(CHEAP, key=-7)


def test_names_come_out_in_catalogue_order_and_once(monkeypatch):
    from gradstarve.theorems._verify import _choose

    assert [t.name for t in _choose(["exact-descent", "sign", "sign"])] == ["sign", "exact-descent"]
    assert [t.name for t in _choose("all")] == list(CATALOGUE)


def test_runs_in_64_bits_and_leaves_the_setting(report):
    assert not jax.config.jax_enable_x64
    assert report.ok
    assert report.rows[0].outcome.gaps.dtype == np.float64


def test_quick_and_single_precision(monkeypatch):
    monkeypatch.setitem(CATALOGUE, "nothing", dataclasses.replace(CATALOGUE[CHEAP], name="nothing", single_tolerance=None))
    single = verify([CHEAP, "nothing"], quick=True, precision="float32", progress=False)
    assert single.ok
    assert single.skipped == ("nothing",)
    assert [row.outcome.trials for row in single.rows] == [BATCH]
    assert single.rows[0].outcome.tolerance == 1e-2
    assert single.to_dict()["precision"] == "float32"
    assert single.to_dict()["theorems"][0]["tolerance"] == 1e-2
    assert not jax.config.jax_enable_x64
    with pytest.raises(ValueError, match="leave out either"):
        verify(CHEAP, quick=True, trials=3)
    with pytest.raises(ValueError, match="precision must be"):
        verify(CHEAP, precision="half")


def test_a_failure_says_how_to_run_it_again(monkeypatch):
    strict = dataclasses.replace(CATALOGUE[CHEAP], check=lambda key, trials: CATALOGUE_CHECK(key, trials).judged(-1.0))
    monkeypatch.setitem(CATALOGUE, CHEAP, strict)
    failed = verify(CHEAP, quick=True, key=jax.random.key(5), progress=False)
    (line,) = [line for line in failed.failures().splitlines() if "again: " in line]
    again = eval(line.partition("again: ")[2], {"verify": verify, "jax": jax, "jnp": jax.numpy})
    assert again.rows[0].outcome.worst_instance == failed.rows[0].outcome.worst_instance


def test_a_line_a_theorem_fits_a_terminal(report):
    row = report.rows[0]

    def line(gap, tolerance):
        outcome = dataclasses.replace(row.outcome, worst_gap=gap, tolerance=tolerance)
        return dataclasses.replace(report, rows=(dataclasses.replace(row, outcome=outcome),)).brief().splitlines()[1]

    # From rounding to the tolerance in powers of ten, from 0 where the tolerance is large.
    gaps = [(0.0, 1e-9), (4.6e-13, 1e-9), (1e-9, 1e-9), (2.0, 5.0), (6.0, 5.0), (np.nan, 5.0)]
    assert [line(*pair).count("█") for pair in gaps] == [0, 10, 20, 8, 20, 20]
    assert line(0.003, 5.0).endswith("3.0e-03 of 5")
    assert line(1e-14, 1e-9).endswith("1.0e-14 of 1e-09")
    every = dataclasses.replace(report, rows=tuple(dataclasses.replace(row, theorem=entry) for entry in CATALOGUE.values()))
    lines = every.brief().splitlines()
    assert max(map(len, lines)) <= 80
    assert [text.split()[0] for text in lines[1:-1]] == list(CATALOGUE)
    many = len(CATALOGUE) * len(row.counterexamples)
    assert lines[-1].startswith(f"{len(CATALOGUE)} of {len(CATALOGUE)} theorems hold ({many} of {many} counterexamples")


def test_same_key_same_instances(report):
    again = verify([CHEAP], trials=BATCH, key=jax.random.key(0), progress=False)
    assert again.rows[0].outcome.worst_instance == report.rows[0].outcome.worst_instance
    other = verify([CHEAP], trials=BATCH, key=jax.random.key(1), progress=False)
    assert other.rows[0].outcome.worst_instance != report.rows[0].outcome.worst_instance


def test_progress_is_one_line_a_theorem_on_stderr(capsys):
    verify(CHEAP, trials=BATCH)
    written = capsys.readouterr()
    assert written.out == ""
    assert "sign (2.0): holds" in written.err


def test_table_and_files(report, tmp_path):
    console = Console(width=200, record=True, quiet=True)
    console.print(report.rich_table())
    console = Console(width=200)
    with console.capture() as text:
        console.print(report.rich_table())
    assert "sign" in text.get()
    lines = report.table().splitlines()
    assert lines[0].split()[:2] == ["theorem", "eq."]
    assert lines[2].split()[:3] == ["sign", "2.0", str(report.rows[0].outcome.trials)]
    assert lines[2].endswith("holds")
    assert "2.0" in text.get()
    paths = report.save(tmp_path / "new" / "folder")
    assert [p.name for p in paths] == ["verify.json", "sign.png"]
    loaded = json.loads(paths[0].read_text())
    assert loaded["ok"] is True
    entry = loaded["theorems"][0]
    assert entry["necessity"][0]["found"] is True
    assert {"points", "labels", "weights", "w", "z", "loss"} <= set(entry["worst_instance"])
    assert paths[1].read_bytes()[:4] == b"\x89PNG"
    assert loaded["figures"] == {"sign.png": hashlib.sha256(paths[1].read_bytes()).hexdigest()}
    assert (loaded["environment"]["jax"], loaded["environment"]["precision"]) == (jax.__version__, "float64")
    assert {p.name for p in paths[0].parent.iterdir()} == {"verify.json", "sign.png"}


def row(gaps, tolerance=1.0, undecided=False, counterexamples=()):
    log = TrialLog(tolerance)
    log.add(np.array(gaps), "group", lambda i: {"index": i, "value": np.arange(2.0)}, undecided)
    return Row(CATALOGUE[CHEAP], log.outcome(), counterexamples, 0.1)


def test_a_violation_is_told_with_its_instance():
    bad = row([0.5, 3.0, 0.1])
    assert (bad.ok, bad.outcome.violations, bad.outcome.worst_gap) == (False, 1, 3.0)
    report = Report((row([0.5]), bad), (0, 0))
    assert not report.ok
    assert report.violated == (bad,)
    assert '"index": 1' in report.failures()
    assert '"value": [0.0, 1.0]' in report.failures()
    assert "1 of 3 trials violate it" in report.failures()


def test_nan_is_a_violation_unless_undecided():
    assert row([0.5, np.nan]).outcome.violations == 1
    assert row([0.5] * 19 + [np.nan], undecided=np.arange(20) == 19).ok
    few = row([0.5] * 4 + [np.nan], undecided=np.arange(5) == 4)
    assert not few.ok
    assert "undecided" in few.verdict
    json.dumps(Report((row([np.nan]),), (0, 0)).to_dict(), allow_nan=False)


def test_a_hypothesis_that_is_not_needed_is_told():
    needless = Counterexample("all is well", "nothing happened", 0.1, 1.0)
    spare = row([0.5], counterexamples=(needless,))
    assert not spare.ok
    assert "all is well" in spare.verdict


@pytest.mark.parametrize(
    ("law", "trained", "unit", "gap", "told"),
    [
        (0.05318, 0.05304, 1.0, 0.00014, "is 0.05304, and 0.05318 by"),
        (1.0, 1.0000123, 1.0, 1.23e-5, "is 1.000012, and 1 by"),
        (2.0, 0.5, 3.0, 0.5, "is 0.5, and 2 by"),
        (1.0, np.inf, 1.0, np.inf, "is inf, and 1 by"),
        (1.0, np.nan, 1.0, np.inf, "is nan, and 1 by"),
        (1.0, 2.0, 0.0, np.inf, "is 2, and 1 by"),
    ],
)
def test_a_counterexample_is_told_by_the_numbers_of_its_gap(law, trained, unit, gap, told):
    found = Counterexample.of("all", Quote("the logit", "at t = 3", law, trained, unit), 1e-8, {}, "a start", "an end")
    assert found.gap == pytest.approx(gap)
    assert found.failure.startswith(f"a start; at t = 3 the logit {told}")
    assert found.failure.endswith("an end")
    entry = row([0.5], counterexamples=(found,)).to_dict()["necessity"][0]
    assert (entry["quote"]["law"], entry["quote"]["quantity"], entry["gap"]) == (law, "the logit", found.gap)


def test_why_nothing_is_dropped_is_written(monkeypatch):
    silent = dataclasses.replace(CATALOGUE[CHEAP], necessity=(), no_drop="its one hypothesis is a definition")
    written = Row(silent, row([0.5]).outcome, (), 0.1)
    assert written.to_dict()["no_drop"] == "its one hypothesis is a definition"
    assert "no_drop" not in row([0.5]).to_dict()


def test_samplers_stay_within_the_hypotheses():
    with jax.enable_x64(True):
        for seed in range(20):
            rng = generator(jax.random.key(seed))
            assert cone_data(rng).separability().orthogonally_separable
            assert two_rays(rng, -1.0).data.separability().antipodal
            geometry = two_rays(rng, 0.0)
            assert geometry.data.separability().orthogonal
            network = exclusive_start(rng, wrong_signs=0.5, crowd=True).network(rng, geometry)
            along = np.asarray(network.w) @ geometry.axes.T
            assert not ((along > 0).all(-1)).any()
            # Rounding of an inactive coordinate must not decide: it is away from 0 by far more.
            seen = (along > 0).any(-1)
            assert (along.min(-1)[seen] < -1e-12 * np.linalg.norm(np.asarray(network.w), axis=-1)[seen]).all()
