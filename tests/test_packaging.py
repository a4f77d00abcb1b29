"""What is shipped: the README of a package index, lower bounds, and the names of versions that agree with each other."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TARGET = re.compile(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"")


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shown():
    return loaded(ROOT / "hatch_build.py").readme_for_an_index


def targets(text):
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [a or b for a, b in TARGET.findall(text)]


def test_with_an_address_every_link_and_picture_is_at_it(shown):
    text = shown(README, "https://example.org/gradstarve/", "1.2.3")
    relative = [target for target in targets(README) if not target.startswith(("http", "#"))]
    assert len(relative) > 30
    found = targets(text)
    assert all(target.startswith(("https://", "http://", "#")) for target in found)
    for kind, ending in (("blob", (".md", ".py", ".ipynb", ".cff")), ("raw", (".png", ".gif"))):
        at = f"https://example.org/gradstarve/{kind}/v1.2.3/"
        mine = [target.removeprefix(at) for target in found if target.startswith(at) and target.endswith(ending)]
        assert len(mine) > (20 if kind == "blob" else 3)
        assert not [target for target in mine if not (ROOT / target.split("#")[0]).exists()]
    assert "<picture" not in text
    assert "<source" not in text


def test_without_an_address_nothing_leads_nowhere(shown):
    text = shown(README, None, "1.2.3")
    assert all(target.startswith(("https://", "http://", "#")) for target in targets(text))
    assert not re.search(r"<img|<picture|!\[", text)
    assert "catalogue of laws" in text or "when to use something else" in text  # the words of a link stay


def test_blocks_of_code_are_not_touched(shown):
    text = "[a](b.md) ![c](d.png)\n\n```python\nx = [a](b)  # [a](b.md)\n```\n\n[e](#f)\n"
    assert shown(text, None, "1") == "a \n\n```python\nx = [a](b)  # [a](b.md)\n```\n\n[e](#f)\n"
    assert shown(text, "https://x.org", "1").startswith("[a](https://x.org/blob/v1/b.md) ![c](https://x.org/raw/v1/d.png)\n")


def test_lower_bounds_are_printed_as_constraints():
    done = subprocess.run([sys.executable, ROOT / ".ci" / "lowest.py", "test"], capture_output=True, text=True, check=True)
    names = dict(line.split("==") for line in done.stdout.split())
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert set(names) == {re.match(r"[\w.-]+", requirement)[0] for requirement in wanted}
    assert all(f"{name}>={version}" in " ".join(wanted) for name, version in names.items())
    done = subprocess.run([sys.executable, ROOT / ".ci" / "lowest.py", "tests"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("no extra 'tests' in ")


def test_a_version_has_one_number():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {PROJECT['version']}\n" in citation
    assert f"version = {{{PROJECT['version']}}}" in README
    assert f"\n## [{PROJECT['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_versions_of_python_are_those_that_are_run():
    """What the classifiers promise is what the public workflow runs, from the lowest that may be installed on."""
    promised = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert re.findall(r"[\d.]+", matrix) == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"
    support = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    assert all(f"| {version} |" in support for version in promised)


def test_formats_of_files_are_those_that_are_documented():
    from gradstarve.simulation.sweep import _store as sweep_store
    from gradstarve.theorems import FORMAT

    text = (ROOT / "docs" / "support.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if '`"format": ' in line]
    assert [re.search(r'"format": (\d+)', row)[1] for row in rows] == [str(sweep_store.FORMAT), str(FORMAT)]
    assert ["sweep" in rows[0], "`verify.json`" in rows[1]] == [True, True]
