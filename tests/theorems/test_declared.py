"""A law declared in one module is in the catalogue, the command line, its completion, the table of laws and the pages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import gradstarve
from gradstarve.ground import laws
from gradstarve.theorems import CATALOGUE, Drop, TrialLog, Trials, compared, draw_gaps, register, verify

PACKAGE = Path(gradstarve.__file__).parent
ROOT = Path(__file__).parents[2]

STUB = '''"""A law that only this test has."""

import numpy as np

from gradstarve.symbolic import derives
from gradstarve.theorems._entry import draw_gaps
from gradstarve.theorems._register import Drop, Trials, compared, register


@derives(name="made-up", equation="3.5", title="Halves of a number", losses=("hinge",))
def derivation(chain, loss):
    """Halves."""
    return {}


@register(
    name="made-up",
    equation="3.5",
    title="Halves of a number",
    claim="half of a number is the number times 0.5",
    formula=r"x / 2 = x \\cdot 0.5",
    hypotheses=("a number",),
    tolerance=1e-12,
    why_tolerance="rounding",
    checked_with="NumPy",
    default_trials=24,
    drops=(Drop("no offset", {"offset": 1.0}),),
    figure=draw_gaps,
)
def made_up(rng: np.random.Generator, offset: float = 0.0) -> Trials:
    """Numbers between 0 and 1."""
    x = rng.uniform(size=24)
    return compared(x / 2 + offset, x * 0.5, 1.0, lambda i: {"x": x[i]}, quantity="half of a number")
'''

PAGES = """
import json
from site_parts import laws
from test_readme import law_table
pages = laws.pages([], {})
print(json.dumps({"table": law_table().splitlines(), "pages": pages}))
"""

RUN = """
import jax
from gradstarve.theorems import verify
report = verify("made-up", progress=False)
print(report.ok, report.rows[0].counterexamples[0].gap)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python with a copy of the package that has one module more."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "gradstarve", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gradstarve" / "theorems" / "laws" / "made_up.py").write_text(STUB, encoding="utf-8")
    paths = os.pathsep.join(map(str, (folder, ROOT / "docs", ROOT / "tests", *(path for path in sys.path if path), ROOT)))

    def run(*command, **variables):
        environment = {"PYTHONPATH": paths, "PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"} | variables
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def completed(run, line):
    """What bash offers for the last word of `line`."""
    words = ["gradstarve", *line.split(" ")]
    variables = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    code = "from gradstarve.cli.main import main; main()"
    return run("-c", code, _GRADSTARVE_COMPLETE="complete_bash", **variables).split()


def test_one_module_puts_a_law_everywhere(run):
    names = [line.split()[0] for line in run("-m", "gradstarve", "verify", "--list").splitlines()]
    assert names == ["name", *list(CATALOGUE)[:5], "made-up", *list(CATALOGUE)[5:]]
    assert completed(run, "verify made") == ["made-up"]
    assert "made-up --loss hinge" in run("-m", "gradstarve", "derive", "--list")
    assert completed(run, "derive made") == ["made-up"]
    told = json.loads(run("-c", PAGES))
    assert "| [made-up](../gradstarve/theorems/laws/made_up.py) | 3.5 | Halves of a number |" in told["table"]
    assert "Half of a number is the number times 0.5." in told["pages"]["made-up"]
    assert "[Halves of a number](made-up.md) (3.5)" in told["pages"]["index"]
    assert run("-c", RUN).split() == ["True", "1.0"]


def declared(name, **how):
    """A law of the test: x^2 on `rounds`, tried where `how` says."""
    entry = {"equation": "yours", "title": "t", "claim": "c", "formula": "x", "hypotheses": ("h",), "tolerance": 0.1}
    entry |= {"why_tolerance": "w", "checked_with": "c", "default_trials": 12, "figure": draw_gaps}
    return register(name=name, **entry, **how)


@pytest.fixture
def law(monkeypatch):
    for name in list(CATALOGUE):
        monkeypatch.setitem(CATALOGUE, name, CATALOGUE[name])  # put back what a test declares anew
    yield "of-the-test"
    CATALOGUE.pop("of-the-test", None)


def test_rounds_are_gone_through_again_and_extras_are_joined(law):
    @declared(law, rounds=({"shift": 0}, {"shift": 1}), batch=4, details={"each": 4})
    def draw(rng, shift):
        return Trials(np.full(4, 0.01 * shift), lambda i: {"i": i}, group=f"by {shift}", extra={"seen": np.ones(4), "n": 1})

    found = CATALOGUE[law].check(jax.random.key(0), 10)
    assert found.trials == 12
    assert found.groups.tolist() == [*4 * ["by 0"], *4 * ["by 1"], *4 * ["by 0"]]
    assert (found.worst_gap, found.worst_instance) == (0.01, {"group": "by 1", "i": 0})
    assert (found.extra["each"], found.extra["n"], found.extra["seen"].shape) == (4, 3, (12,))
    assert draw(None, 1).group == "by 1"  # the function is what it was


def test_a_drop_quotes_the_worst_place_of_the_worst_trial_that_is_not_lost(law):
    trained = np.array([[0.0, 1.0], [5.0, 0.0], [2.0, 3.0]])

    def other(rng):
        lost, texts = [False, True, False], {"quantity": lambda i, k: f"u_{k}", "when": "then", "axes": ("place",)}
        return compared(trained, 0.0, 2.0, lambda i: {"i": i}, lost, **texts, rest=lambda i: f"so it is for {i}")

    @declared(law, drops=(Drop("this", other), Drop("that", {"sign": -1})))
    def draw(rng, sign=1):
        found = trained if sign < 0 else 0 * trained
        return compared(found, 1.0, 1.0, lambda i: {"i": i}, judge=np.negative, quantity="u", group="g")

    this, that = CATALOGUE[law].counterexamples(jax.random.key(0))
    assert this.failure == "then u_1 is 3, and 0 by the law (a gap of 1.5); so it is for 2"
    assert (this.numbers, this.gap, this.tolerance) == ({"i": 2, "place": 1}, 1.5, 0.1)
    assert (that.numbers, that.gap) == ({"i": 0}, 1.0)  # the one furthest below


def test_a_whole_check_is_taken_as_it_is(law):
    log = TrialLog(0.1)
    log.add(np.zeros(3), "g", lambda i: {"i": i})
    outcome = log.outcome()

    @declared(law, no_drop="none")
    def check(key, trials):
        return outcome

    assert CATALOGUE[law].check is check
    assert verify(law, progress=False).rows[0].outcome is outcome


def test_a_name_of_another_module_is_refused():
    with pytest.raises(ValueError, match=r"'sign' is declared twice, in gradstarve\.theorems\.laws\.independence too"):
        declared("sign")(lambda rng: None)


def test_declarations_say_what_the_entries_say():
    for name, law in laws("register").items():
        entry = CATALOGUE[name]
        told = (entry.equation, entry.title, tuple(entry.losses), tuple(entry.dynamics))
        assert told == (law.equation, law.title, tuple(law.losses), tuple(law.dynamics))
