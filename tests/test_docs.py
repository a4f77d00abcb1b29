"""The documentation: its code runs, its commands exist, it builds without a warning, and it leaves no public name out."""

import doctest
import importlib
import importlib.util
import inspect
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = {"command-line.md", "explorer.md"}  # by the build
PAGES = [ROOT / "CONTRIBUTING.md", *sorted(path for path in DOCS.glob("*.md") if path.name not in WRITTEN)]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCES = {"python", "pycon", "sh", "text"}
TOOLS = {"git", "cd", "python", ".", "pytest", "ruff", "pyright", "pre-commit", "export", "sphinx-build"}


def blocks(path, *kinds):
    return [(kind, body) for kind, body in BLOCK.findall(path.read_text(encoding="utf-8")) if kind in kinds]


def need_sphinx():
    missing = [name for name in ("sphinx", "furo", "myst_parser", "jupytext") if importlib.util.find_spec(name) is None]
    if missing and os.environ.get("REQUIRE_DOCS") == "1":
        pytest.fail(f"the documentation needs {', '.join(missing)}: pip install '.[docs]'")
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: pip install '.[docs]'")


@pytest.fixture
def parts(monkeypatch):
    """The modules of docs/site_parts."""
    monkeypatch.syspath_prepend(str(DOCS))

    def part(name):
        try:
            return importlib.import_module(f"site_parts.{name}")
        except ModuleNotFoundError:  # of Sphinx and what belongs to it: some parts do without
            need_sphinx()
            raise

    yield part
    for name in [name for name in sys.modules if name.split(".")[0] == "site_parts"]:
        del sys.modules[name]


WITH_CODE = [path for path in PAGES if blocks(path, "python", "pycon")]


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_CODE, ids=lambda path: path.stem)
def test_code_of_a_page_runs(path, tmp_path, monkeypatch):
    """In one namespace, in order, in float64, as the page says; what stands below `>>>` is what comes out."""
    monkeypatch.chdir(tmp_path)
    names = {}
    for kind, body in blocks(path, "python", "pycon"):
        if kind == "python":
            exec(compile(body, path.name, "exec"), names)
        else:
            said = []
            test = doctest.DocTestParser().get_doctest(body, names, path.name, path.name, 0)
            assert test.examples, body
            doctest.DocTestRunner(verbose=False).run(test, out=said.append, clear_globs=False)
            assert not said, "".join(said)
            names.update(test.globs)


def test_every_block_is_of_a_kind_that_is_tried():
    """Only commands, code and examples: nothing that looks like code escapes the tests here."""
    for path in PAGES:
        opened = re.findall(r"^```(\S*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        kinds = {kind for kind in opened if kind and not kind.startswith("{")}
        assert kinds <= FENCES, path


@cache
def command_group():
    import typer.main

    from gradstarve.cli.main import app

    return typer.main.get_command(app)


def check_command(line):
    """That one line of a shell block can be run: the command exists, and takes these options."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for part in re.split(r" && ", line):
        words = shlex.split(part)
        if words[0] == "gradstarve":
            group = command_group()
            if words[1:] == ["--install-completion"]:
                assert "completion" in " ".join(o for p in group.params for o in p.opts)
                continue
            command = group.commands[words[1]]
            known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
            for word in words[2:]:
                assert not word.startswith("--") or word.partition("=")[0] in known, part
            command.make_context(words[1], words[2:], resilient_parsing=False)
        elif words[:2] == ["pip", "install"]:
            wanted = re.findall(r"\[([\w,]+)\]", part)
            for extra in ",".join(wanted).split(",") if wanted else []:
                assert extra in extras, f"no extra {extra!r} in pyproject.toml"
        else:
            assert words[0] in TOOLS, part


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "sh")], ids=lambda p: p.stem)
def test_commands_of_a_page_exist(path):
    for _, body in blocks(path, "sh"):
        for line in body.splitlines():
            check_command(line)


def test_a_command_that_does_not_exist_is_noticed():
    with pytest.raises(KeyError):
        check_command("gradstarve solve --quick")
    with pytest.raises(AssertionError):
        check_command("gradstarve verify --quicker")
    with pytest.raises(AssertionError, match="no extra"):
        check_command("pip install '.[everything]'")


def test_commands_of_the_command_line_exist(parts):
    page = parts("commands").page()
    shown = [line for kind, body in BLOCK.findall(page) if kind == "sh" for line in body.splitlines()]
    assert len(shown) >= 7
    for line in shown:
        check_command(line)


def documented(parts):
    """The paths that the API pages have a directive for."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in (DOCS / "api").glob("*.md"))
    return re.findall(r"^\.\. (?:auto\w+|py:data):: (\S+)$", text, re.MULTILINE)


def test_every_public_name_is_on_one_api_page(parts):
    found = documented(parts)
    assert parts("coverage").left_out(parts("public").public(), found) == []
    assert len(found) == len(set(found))
    assert set(found) == set(parts("public").public())


def test_a_directive_that_is_removed_is_missed(parts):
    found = [path for path in documented(parts) if path != "gradstarve.solve_mode"]
    assert parts("coverage").left_out(parts("public").public(), found) == ["gradstarve.solve_mode is on no page"]


def test_public_names_without_a_docstring_are_told(parts):
    def silent():
        pass

    class Told:
        """Has a docstring, and a method that has none."""

        def method(self):
            pass

    Told.method.__module__ = "gradstarve.somewhere"
    names = {"gradstarve.silent": silent, "gradstarve.Told": Told}
    said = parts("coverage").left_out(names, names)
    assert said == ["gradstarve.silent has no docstring", "gradstarve.Told.method has no docstring"]


def test_the_names_of_every_room_are_among_them(parts):
    """A new room with `__all__` cannot be forgotten."""
    import gradstarve

    rooms = [module.name for module in pkgutil.iter_modules(gradstarve.__path__, "gradstarve.") if module.ispkg]
    rooms = [room for room in rooms if hasattr(importlib.import_module(room), "__all__")]
    assert len(rooms) >= 9
    public = list(parts("public").public().values())
    for room in ("gradstarve", *rooms):
        module = importlib.import_module(room)
        for name in module.__all__:
            assert any(getattr(module, name) is value for value in public), f"{room}.{name}"


def test_docstrings_are_translated(parts):
    translate = parts("docstrings").translate
    text = inspect.cleandoc(
        """The logits [*batch, n] of `Trajectory`s, |w| and `pair`[0]:
        - `a`: one,
          going on;
        - `b`: two.

            du/dt = p_k r

        | name | what |
        |------|------|
        | `x`  | y_i  |

        >>> f(1)
        2
        """
    )
    found = [line for line in translate(text.splitlines()) if line.strip()]
    assert found == [
        r"The logits [\*batch, n] of ``Trajectory``\ s, \|w\| and ``pair``\ [0]:",
        "- ``a``: one,",
        "  going on;",
        "- ``b``: two.",
        "  .. code-block:: text",
        "      du/dt = p_k r",
        ".. list-table::",
        "   :header-rows: 1",
        "   * - name",
        "     - what",
        "   * - ``x``",
        r"     - y\_i",
        ">>> f(1)",
        "2",
    ]


def test_signatures_are_those_of_the_source(parts):
    import gradstarve as gs

    signatures = parts("signatures")
    arguments, result = signatures.of_function(gs.theory.ntk.logistic_flow, bound=False)
    assert (arguments, result) == ("(K, times, start=None)", "Float[Array, '...']")
    assert "w: Float[Array, '*batch h d']" in signatures.of_fields(gs.TwoLayerReLU)


def test_laws_find_their_equations(parts):
    laws = parts("laws")
    assert laws.numbers("3.1-3.3") == {(3, 1), (3, 2), (3, 3)}
    assert laws.cited("see (10.1)-(10.3), (7.1, 7.2), not 5.3 nor f(2.5x)") == {(10, 1), (10, 2), (10, 3), (7, 1), (7, 2)}
    from gradstarve.theorems import CATALOGUE

    found = laws.sections(CATALOGUE)
    assert sum(map(len, found.values())) == len(CATALOGUE)
    assert list(found) == sorted(found)


def build(source, out, *options):
    command = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-b", "html", *options, str(source), str(out)]
    return subprocess.run(command, capture_output=True, text=True, timeout=570)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the site, built from nothing."""
    need_sphinx()
    folder = tmp_path_factory.mktemp("site") / "html"
    done = build(DOCS, folder, "-E")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site):
    pages = {str(path.relative_to(site)): path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    from gradstarve.theorems import CATALOGUE

    assert {f"laws/{name}.html" for name in CATALOGUE} <= set(pages)
    for name, text in pages.items():
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]+rel="(?:stylesheet|preload|icon)"[^>]+href="([^"]+)"', text)
        assert not [address for address in loaded if "//" in address], name
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", path.read_text(encoding="utf-8")), path
    assert all("<math" in pages[f"laws/{name}.html"] for name, theorem in CATALOGUE.items() if theorem.formula)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_pages_open_from_disk_in_a_browser(site, width, scheme, monkeypatch):
    """No error in the console, no request for anything but files, and nothing wider than a phone."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "page"))
    from browser import launched

    trouble = []
    with launched() as browser:
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        page.on("console", lambda message: trouble.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("request", lambda request: trouble.append(request.url) if request.url.startswith("http") else None)
        for path in sorted(site.rglob("*.html")):
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            broken = page.evaluate(
                """async () => {
                    const images = [...document.images];
                    // those further down are loaded when they are scrolled to
                    await Promise.all(images.map(i => (i.loading = "eager", i.decode().catch(() => null))));
                    return images.filter(i => !i.naturalWidth).map(i => i.src);
                }"""
            )
            assert not broken, path
        page.goto((site / "search.html").as_uri() + "?q=starvation_index")
        page.wait_for_selector("#search-results li a", timeout=20_000)
        assert not trouble


SHOWN = ("index.html", "gallery.html", "claims.html", "explorer.html", "laws/clock.html", "notebooks/01_one_mode.html")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_axe_finds_nothing(site, width, scheme, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "page"))
    from browser import launched, missing

    if importlib.util.find_spec("axe_playwright_python") is None:
        missing("the rules of axe are not installed: pip install '.[browser]'")
    import axe_playwright_python as axe

    rules = (Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    tags = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa", "best-practice"]
    with launched() as browser:
        page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
        for name in SHOWN:
            page.goto((site / name).as_uri())
            page.evaluate(rules)
            found = page.evaluate("(tags) => axe.run(document, {preload: false, runOnly: tags})", tags)
            assert not [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]], name


@pytest.mark.slow
def test_laws_have_a_figure_a_meaning_and_an_example(site):
    from gradstarve.theorems import CATALOGUE

    for name, theorem in CATALOGUE.items():
        text = (site / "laws" / f"{name}.html").read_text(encoding="utf-8")
        assert '<figure class="law"><svg' in text, name
        assert "What it means." in text, name
        assert ("An example" in text) or name in ("modified-loss", "margin-control"), name
        assert (site / "_static" / "laws" / f"{name}.svg").exists()
        assert theorem.meaning


@pytest.mark.slow
def test_a_public_name_that_is_left_out_fails_the_build(tmp_path):
    """The same site, API pages only, with one directive removed."""
    need_sphinx()
    for name in ("_static", "api", "site_parts", "conf.py"):
        copy = shutil.copytree if (DOCS / name).is_dir() else shutil.copy
        copy(DOCS / name, tmp_path / name)
    (tmp_path / "index.md").write_text("# API\n\n```{toctree}\n:glob:\n\napi/*\n```\n", encoding="utf-8")
    settings = tmp_path / "conf.py"
    shorter = settings.read_text(encoding="utf-8").replace('    "site_parts.pages",\n', "")
    settings.write_text(shorter + '\nsuppress_warnings = ["myst.xref_missing"]\n', encoding="utf-8")
    whole = build(tmp_path, tmp_path / "whole")
    assert whole.returncode == 0, whole.stdout + whole.stderr
    page = tmp_path / "api" / "theory.md"
    text = page.read_text(encoding="utf-8")
    assert text.count(".. autofunction:: gradstarve.theory.error_tail\n") == 1
    page.write_text(text.replace(".. autofunction:: gradstarve.theory.error_tail\n", ""), encoding="utf-8")
    done = build(tmp_path, tmp_path / "less", "-d", str(tmp_path / "whole" / ".doctrees"))
    assert done.returncode != 0
    assert "gradstarve.theory.error_tail is on no page" in done.stdout + done.stderr


def test_examples_of_laws_import_what_they_use(parts):
    """From public places; the examples themselves are run where they stand, in docstrings."""
    laws = parts("laws")
    from gradstarve.theorems import CATALOGUE

    found = 0
    for name, theorem in CATALOGUE.items():
        shown = laws.example(laws.numbers(theorem.equation))
        lines = [line[4:] for line in shown if re.match(r">>> (from |import |\w+ = gs\.)", line)]
        assert not [line for line in lines if "._" in line], name
        exec("\n".join(lines), {})
        found += bool(lines)
    assert found > 50
