"""README, tour and tables against what they speak of: commands, links, laws, speeds. `tests/readme.py` runs two of them."""

import ast
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT))

import readme as runner

from benchmarks.summary import RESULTS, first_answers, first_line, ranges, summary
from gradstarve.ground import laws

README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ("tour", "what-to-call", "catalogue", "speed", "claims", "faq", "quickstart", "gallery")
DOCS = {name: (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8") for name in NAMES}
ALL = "\n".join([README, *DOCS.values()])


def law_table():
    """A line for every law that is declared, with a link to the module that states and tries it."""
    lines = ["| law | eq. | what it says |", "|---|---|---|"]
    for name, law in laws("register").items():
        path = "../" + law.module.replace(".", "/") + ".py"
        lines.append(f"| [{name}]({path}) | {law.equation} | {law.title} |")
    return "\n".join(lines)


def test_every_law_is_listed_with_a_link_to_its_entry():
    assert law_table() in DOCS["catalogue"], f"the table of laws should be:\n{law_table()}"
    assert f"[{len(laws('register'))} laws](docs/catalogue.md)" in README


def test_speeds_are_those_that_were_measured():
    assert summary() in DOCS["speed"], f"the table of speeds should be (python -m benchmarks.summary):\n{summary()}"
    assert first_answers() in DOCS["speed"], f"the table of first answers should be:\n{first_answers()}"
    assert not [words for words in (*ranges().values(), first_line()) if words not in " ".join(README.split())]
    quick = [path.name for path in RESULTS.glob("*.json") if json.loads(path.read_text())["environment"]["quick"]]
    assert not quick


def test_links_and_pictures_are_there():
    targets = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", README)
    local = [a or b for a, b in targets if not (a or b).startswith(("http", "#"))]
    assert len(local) > 30
    missing = [target for target in local if not (ROOT / target.split("#")[0]).exists()]
    assert not missing
    headings = [line.lstrip("# ").lower() for line in README.splitlines() if line.startswith("#")]
    anchors = {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}
    assert not [a[1:] for a, _ in targets if a.startswith("#") and a[1:] not in anchors]


def test_the_first_two_commands_are_the_main_job_and_the_tests():
    first, second = runner.commands(README)[:2]
    assert first == "pip install . && gradstarve verify --quick"
    assert second == "pip install '.[test]' && pytest"


def command_lines():
    """Every `gradstarve ...` of these pages, in blocks and in the text."""
    inline = re.findall(r"`(gradstarve [^`]+)`", ALL)
    blocks = [part.strip() for line in runner.commands(ALL) for part in re.split(r"&&|;", line)]
    return sorted({line for line in [*inline, *blocks] if line.startswith("gradstarve ")})


def test_every_command_of_the_text_exists_with_its_options():
    from typer.main import get_command

    from gradstarve.cli.main import app

    root = get_command(app)
    lines = command_lines()
    assert len(lines) >= 12
    for line in lines:
        _, *rest = shlex.split(line)
        command = root if rest[0].startswith("-") else root.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        unknown = [word for word in rest if word.startswith("--") and word.split("=")[0] not in options | {"--help"}]
        assert not unknown, line


def test_every_fence_is_shell_or_python_and_says_so():
    assert {block.language for block in runner.blocks(README)} <= {"sh", "python", "bibtex", "text"}
    ast.parse(runner.script(README))
    ast.parse(runner.script(DOCS["tour"]))
    # A name of the library that is named anywhere exists.
    import gradstarve as gs

    for dotted in set(re.findall(r"\bgs((?:\.[A-Za-z_]+)+)", ALL)):
        value = gs
        for part in dotted[1:].split("."):
            value = getattr(value, part)
            if inspect.isroutine(value) or inspect.isclass(value):
                break  # what follows is an attribute of what it returns


def test_a_block_and_the_line_on_which_it_stands_are_found():
    text = "# a\n\n```sh\n# comment\nls \\\n  -l\npwd\n```\n\n```python\nx = 1\n```\n\n"
    text += "```\nnot run\n```\n\n```python\nassert x == 2\n```\n"
    assert runner.commands(text) == ["ls -l", "pwd"]
    assert runner.script(text).splitlines()[10] == "x = 1"
    with pytest.raises(AssertionError) as error:
        exec(compile(runner.script(text), "README.md", "exec"), {})
    assert error.traceback[-1].lineno + 1 == 19
    assert [block.language for block in runner.blocks(text)] == ["sh", "python", "", "python"]


@pytest.mark.slow
def test_everything_in_the_readme_runs_in_a_fresh_clone():
    subprocess.run([sys.executable, str(ROOT / "tests" / "readme.py"), "--leave-out", "pytest"], check=True, timeout=1800)
