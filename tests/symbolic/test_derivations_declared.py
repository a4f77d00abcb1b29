"""A law declared in one module is in the table, the command line, its completion, the help and the pages."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradstarve

PACKAGE = Path(gradstarve.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"

STUB = '''"""A law that only this test knows."""

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import LOGIT_FLOW, Chain
from gradstarve.symbolic._derivation import Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._opening import cite_loss


@derives(name="stub", equation="3.6", title="A stub", losses=("exponential", "hinge"))
def stub(chain: Chain, loss: str) -> dict[str, Target]:
    """What the stub says, in one paragraph.

    And what the help leaves out.
    """
    cite_loss(chain, loss)
    chain.cite(derive("one-layer", loss), "logit equation", "Its logit.")
    time = derive("one-layer", loss).result["t(u)"].rhs
    where = n.LOGIT_RANGE[loss]
    chain.add("stub", "The time again.", {n.t_of(n.u): time}, domain=where, reference="(3.6)", inverts=LOGIT_FLOW)
    return {"t(u)": Target("stub", n.t_of(n.u), (n.u, n.p, n.r, n.u0))}
'''

PAGES = """
import json, pathlib
import gradstarve
from site_parts import derivations
wanted = derivations.wanted()
derivations.wanted = lambda: [pair for pair in wanted if pair[0] == "stub"]  # the others take half a minute
pages = derivations.pages(derivations.chains(pathlib.Path("store")))
print(json.dumps({"wanted": wanted, "pages": pages, "help": gradstarve.derive.__doc__}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Runs Python with a copy of the package that has one module more."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "gradstarve", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "gradstarve" / "symbolic" / "_stub.py").write_text(STUB, encoding="utf-8")
    paths = os.pathsep.join([str(folder), str(DOCS), *(path for path in sys.path if path)])

    def run(*command, **variables):
        environment = {"PYTHONPATH": paths, "PATH": os.environ["PATH"], "PYTHONSAFEPATH": "1"} | variables
        command = [sys.executable, *command]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
        assert done.returncode == 0 or "_GRADSTARVE_COMPLETE" in variables, done.stderr
        return done.stdout

    return run


def test_it_is_listed_and_derived(run):
    lines = run("-m", "gradstarve", "derive", "--list").splitlines()
    names = list(dict.fromkeys(line.split(" --loss ")[0] for line in lines))
    assert names[:3] == ["mode", "stub", "one-layer"]  # in the order of equations
    assert [line for line in lines if line.startswith("stub")] == ["stub --loss exponential", "stub --loss hinge"]
    assert "4. stub (3.6). The time again." in run("-m", "gradstarve", "derive", "stub", "--loss", "hinge")


@pytest.mark.parametrize(
    ("line", "offered"), [("derive st", ["starvation", "step", "stub"]), ("derive stub --loss ", ["exponential", "hinge"])]
)
def test_it_is_completed(run, line, offered):
    words = ["gradstarve", *line.split(" ")]
    told = {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1), "_GRADSTARVE_COMPLETE": "complete_bash"}
    found = run("-c", "from gradstarve.cli.main import main; main()", **told).split()
    assert sorted(found) == offered


@pytest.mark.slow
def test_it_has_a_page_and_a_place_in_the_help(run):
    told = json.loads(run("-c", PAGES))
    assert ["stub", "exponential"] in told["wanted"]
    assert "stub-exponential" in told["pages"]["index"]
    page = told["pages"]["stub-exponential"]
    assert page.startswith("# A stub, exponential loss")
    assert "The time again." in page
    assert "What the stub says, in one paragraph. Only for exponential, hinge.\n" in told["help"]
    assert "leaves out" not in told["help"]
