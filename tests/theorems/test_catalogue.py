"""Every entry holds, and wrong laws turn it red: the mutation test of the whole catalogue. Its tables lie beside it."""

import functools
import inspect
from collections import Counter

import jax
import mutants_of_features
import mutants_of_modes
import numpy as np
import pytest
from matplotlib.figure import Figure

from gradstarve import theory
from gradstarve.theorems import CATALOGUE, verify
from gradstarve.theorems import _sampling as sampling
from gradstarve.theorems._entry import plain
from gradstarve.theorems._verify import hypothesis_violations
from gradstarve.theorems.laws import features, hinge, linearised, plateaus, sliding

# Entry -> its wrong laws. `pytest -s -k wrong_laws_are_counted` prints how many there are and which stay green.
MUTANTS = mutants_of_modes.MUTANTS | mutants_of_features.MUTANTS

# Few trials: compiling costs the same for all of them, and a wrong law is wrong everywhere.
TRIALS = (
    {
        "exact-descent": 48,
        "weight-decay-and-momentum": 48,
        "sgd-distribution": 5 * 4000,
        "sgd-time-to-margin": 5 * 4000,
        "decay-threshold": 192,
        "decay-curve": 36,
        "no-sliding-edges": 24,
        "sliding-edges": 24,
        "waking-hinge": 48,
        "hinge-exact": 24,
        "finite-events": 48,
        "hinge-end": 24,
        "hinge-max-margin": 48,
        "generator-signal": 48,
        "features": 256,
        "shortcut": 256,
        "shortcut-end": 256,
        "margin-control": 32,
        "shared-neurons": 256,
        "softmax": 24,
        "softmax-clock": 24,
        "depth": 24,
        "unbalanced-depth": 24,
    }
    | mutants_of_modes.TRIALS
    | mutants_of_features.TRIALS
)


def remembered(train):
    """`train`, which trains (or retraces) what it has before only once: a wrong law changes no training."""
    results = {}

    def again(*problem, **options):
        leaves, shape = jax.tree.flatten((problem, options))
        key = (str(shape), *(np.asarray(leaf).tobytes() if hasattr(leaf, "dtype") else leaf for leaf in leaves))
        if key not in results:
            results[key] = train(*problem, **options)
        return results[key]

    return again


@pytest.fixture(autouse=True)
def _train_once(monkeypatch):
    for name in ("simulate", "simulate_flow", "simulate_hinge_exact"):
        monkeypatch.setattr(sampling, name, remembered(getattr(sampling, name)))
    for module, names in ((features, ("_flows", "_descents")), (linearised, ("_ends",)), (plateaus, ("_exits",))):
        for name in names:
            monkeypatch.setattr(module, name, remembered(getattr(module, name)))
    retraced = remembered(hinge.retraced)
    for module in (hinge, sliding):
        monkeypatch.setattr(module, "retraced", retraced)


def public_laws():
    """Every public function of the theory, and the laws that are built as objects: name -> (where it lives, its name)."""
    of = "gradstarve.theory"
    rooms = {
        "": (theory, of),
        "ntk.": (theory.ntk, f"{of}._linearised"),
        "jacobian.": (theory.jacobian, f"{of}._jacobian"),
    }
    functions = {
        prefix + name: (room, name)
        for prefix, (room, written_in) in rooms.items()
        for name, law in ((name, getattr(room, name)) for name in room.__all__)
        if callable(law) and not inspect.isclass(law) and law.__module__.startswith(written_in)
    }
    return functions | {name: (theory, name) for name in ("KappaDistribution", "LearningTime")}


PUBLIC = public_laws()
CALLED = set()
# What no entry calls, as it states nothing about training.
NO_STATEMENT = {
    "KappaDistribution": "how initial weights are distributed, against SciPy in its own tests",
    "LearningTime": "an average of (3.4) over initial weights, against quadrature in its own tests",
    "jacobian.check_linear_regime": "a warning",
    "ntk.features": "the eigenvectors of a kernel, against NumPy in its own tests",
}


def recorded(name, law):
    @functools.wraps(law)
    def again(*given, **more):
        CALLED.add(name)
        return law(*given, **more)

    return again


@pytest.fixture
def _laws_recorded(monkeypatch):
    for name, (room, attribute) in PUBLIC.items():
        monkeypatch.setattr(room, attribute, recorded(name, getattr(room, attribute)))


def uncalled():
    missing = sorted(PUBLIC.keys() - CALLED - NO_STATEMENT.keys())
    print(f"{len(PUBLIC) - len(missing) - len(NO_STATEMENT)} of {len(PUBLIC)} public laws called; not: {missing}")
    return missing


def outcome(name, trials=None):
    with jax.enable_x64(True):
        return CATALOGUE[name].check(jax.random.key(2), trials or TRIALS.get(name, 96))


def test_the_wrong_laws_are_counted():
    """Every entry has some; labels tell them apart; the few that stay green say why."""
    assert not set(mutants_of_modes.MUTANTS) & set(mutants_of_features.MUTANTS)
    assert set(MUTANTS) == set(CATALOGUE)
    assert all(any(mutant.red for mutant in mutants) for mutants in MUTANTS.values())
    for name, mutants in MUTANTS.items():
        twice = [label for label, times in Counter(m.label for m in mutants).items() if times > 1]
        assert not twice or len(twice) < len(mutants), (name, twice)
    everything = [(name, mutant) for name, mutants in MUTANTS.items() for mutant in mutants]
    green = [(name, mutant) for name, mutant in everything if not mutant.red]
    print(f"{len(everything)} wrong laws, {len(everything) - len(green)} of them turn their entry red")
    for name, mutant in green:
        print(f"{name}, {mutant.label}: {mutant.reason}")
    assert len(everything) >= 85
    assert all(mutant.reason for _, mutant in green)
    assert 10 * len(green) <= len(everything)


# How many statements each section of the theory has, and where the first of them is tried.
SECTIONS = {1: (3, 3), 2: (0, 1), 3: (1, 12), 4: (1, 4), 5: (1, 4), 6: (1, 3), 7: (1, 2), 8: (1, 3), 9: (1, 1), 10: (1, 7)}
SECTIONS |= {11: (1, 2), 12: (1, 1), 13: (1, 1), 14: (1, 4), 15: (1, 1), 16: (1, 5), 17: (1, 6), 18: (1, 3), 19: (1, 5)}
SECTIONS |= {20: (1, 5), 21: (1, 1), 22: (1, 2), 23: (1, 1)}


def test_every_statement_has_an_entry():
    tried = set()
    for theorem in CATALOGUE.values():
        first, _, last = theorem.equation.partition("-")
        section, low = map(int, first.split("."))
        high = int(last.split(".")[1]) if last else low
        tried |= {(section, number) for number in range(low, high + 1)}
    assert tried == {(s, n) for s, (low, high) in SECTIONS.items() for n in range(low, high + 1)}


def test_the_catalogue_is_in_order_and_complete():
    numbers = [tuple(map(int, t.equation.split("-")[0].split("."))) for t in CATALOGUE.values()]
    assert numbers == sorted(numbers)
    for name, theorem in CATALOGUE.items():
        assert name == theorem.name == name.lower()
        assert theorem.hypotheses
        assert all([theorem.title, theorem.claim, theorem.why_tolerance, theorem.checked_with])
        assert theorem.tolerance > 0


@pytest.mark.parametrize("name", CATALOGUE)
def test_a_hypothesis_is_dropped_or_it_is_said_why_none_can_be(name):
    assert bool(CATALOGUE[name].necessity) != bool(CATALOGUE[name].no_drop)


def drawn(found):
    """What a few trials were drawn as and trained to: everything in their records but what the law says of them."""
    places = np.linspace(0, found.trials - 1, 5).astype(int)
    records = [found.instance(int(i)) for i in places]
    return {
        (i, name): repr(plain(value))
        for i, record in enumerate(records)
        for name, value in record.items()
        if "law" not in name
    }


def draw(theorem, true):
    ax = Figure().add_subplot()
    with jax.enable_x64(True):
        theorem.figure(true, ax)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert any(axes.get_legend() is not None for axes in ax.figure.axes)  # under the strip of gaps, where there is one


@pytest.mark.usefixtures("_laws_recorded")
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["one", "every"])
@pytest.mark.parametrize("name", CATALOGUE)
def test_entry_holds_and_a_wrong_law_turns_it_red(name, every, monkeypatch):
    """One test a name, so that what is compiled for the true law serves the wrong ones: one of them, or every one.

    A wrong law changes no problem and no training: were samplers to read it, it could hide behind what it draws.
    """
    true = outcome(name)
    assert true.tolerance == CATALOGUE[name].tolerance
    assert true.ok, (true.violations, true.undecided, true.worst_gap, true.worst_instance)
    with jax.enable_x64(True):
        assert not hypothesis_violations(CATALOGUE[name], true)
    draw(CATALOGUE[name], true)
    before = drawn(true)
    for mutant in MUTANTS[name][: None if every else 1]:
        with monkeypatch.context() as patch:
            patch.setattr(mutant.place, mutant.attribute, mutant.wrong)
            if mutant.inside:
                jax.clear_caches()
            changed = outcome(name)
        if mutant.inside:
            jax.clear_caches()
        after = drawn(changed)
        moved = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        assert not moved, (mutant.label, moved)
        assert (changed.violations > 0) == mutant.red, (mutant.label, changed.worst_gap)
        assert not mutant.red or changed.worst_gap > true.worst_gap


@pytest.mark.parametrize("name", [name for name, theorem in CATALOGUE.items() if theorem.necessity])
def test_dropping_a_hypothesis_gives_a_counterexample(name, request):
    """Every hypothesis that is said to matter does, whatever the key. Beside the entries, whose programs it runs again."""
    quick = "not slow" in request.config.option.markexpr
    with jax.enable_x64(True):
        for seed in range(1 if quick else 12):
            for found in CATALOGUE[name].counterexamples(jax.random.key(seed)):
                assert found.found, (seed, found.failure)
                assert found.dropped
                assert found.numbers
                quote = found.quote
                if quote is not None:
                    assert found.gap == quote.gap == abs(quote.trained - quote.law) / quote.unit
                    assert str(quote) in found.failure


@pytest.mark.slow
@pytest.mark.usefixtures("_laws_recorded")
def test_every_public_law_is_called_by_the_quick_run():
    CALLED.clear()
    assert verify(quick=True, progress=False).ok
    assert not uncalled()
