"""The house rules: who may import whom, what is documented, what an import costs."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import gradstarve
from gradstarve.ground import LOSS_NAMES

PACKAGE = Path(gradstarve.__file__).parent

# Every room, from the ground up; a room imports only from rooms above it in this list, theory and simulation never from
# each other. The ground is what all of them stand on.
ROOMS = ["ground", "special", "problem", "symbolic", "theory", "simulation", "comparison", "theorems", "diagnosis"]
ROOMS += ["studies", "page", "cli"]
NEVER = {("theory", "simulation"), ("simulation", "theory"), ("theory", "symbolic"), ("simulation", "symbolic")}


def imported_rooms(path):
    """The rooms of gradstarve that the file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide which room they come from"
            names = [f"{node.module}.{alias.name}" for alias in node.names] if node.module == "gradstarve" else [node.module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "gradstarve" and len(parts) > 1:
                found.add(parts[1])
    return found


def files():
    return [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_import_table(path):
    room = path.relative_to(PACKAGE).parts[0]
    allowed = set(ROOMS[: ROOMS.index(room) + 1])
    for other in imported_rooms(path):
        if other in ("__version__",):
            continue
        assert other in allowed, f"{room} may not import {other}"
        assert (room, other) not in NEVER, f"{room} may never import {other}"


def test_the_import_table_would_notice(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("def f():\n    from gradstarve.simulation import simulate\n    from gradstarve import theory\n")
    assert imported_rooms(bad) == {"simulation", "theory"}


def names_of_losses(source):
    """Where the name of a loss decides something: a comparison with one, or a table by names of losses."""
    known, found = set(LOSS_NAMES), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [part for side in (node.left, *node.comparators) for part in getattr(side, "elts", [side])]
            decides = any(isinstance(part, ast.Constant) and part.value in known for part in sides)
        else:
            keys = node.keys if isinstance(node, ast.Dict) else []
            decides = bool(keys) and all(isinstance(key, ast.Constant) and key.value in known for key in keys)
        if decides:
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("room", ["special", "theory", "simulation", "comparison", "diagnosis"])
def test_a_loss_is_asked_and_never_known_by_its_name(room):
    found = {path: decides for path in (PACKAGE / room).rglob("*.py") if (decides := names_of_losses(path.read_text()))}
    if room == "special":  # its functions take the names of the four losses, which one table looks up
        (table,) = found.pop(PACKAGE / "special" / "_clock.py")
        assert table.startswith("{'cross-entropy': ExponentialClock(1.0)")
    assert not found


def test_a_name_that_decides_would_be_noticed():
    assert names_of_losses('kind == "hinge"') == ["kind == 'hinge'"]
    assert names_of_losses('loss.name in ("hinge", "squared")')
    assert names_of_losses('{"exponential": 1}[loss]')
    assert not names_of_losses('loss.stops and {"hinge": 1, "minimax": 2}')


def modules():
    names = [m.name for m in pkgutil.walk_packages([str(PACKAGE)], "gradstarve.")]
    return ["gradstarve", *[name for name in names if not name.endswith("__main__")]]


@pytest.mark.parametrize("name", modules())
def test_every_module_and_public_name_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            doc = inspect.getdoc(value)
            assert doc, f"{name}.{public} has no docstring"
            assert doc != inspect.getdoc(dict), f"{name}.{public} inherits its docstring"
            methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else []
            for method, function in methods:
                if not method.startswith("_") and function.__module__.startswith("gradstarve"):
                    assert inspect.getdoc(function), f"{name}.{public}.{method} has no docstring"


@pytest.mark.parametrize("name", modules())
def test_examples_run(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0


def test_public_functions_have_an_example():
    for name in gradstarve.__all__:
        value = getattr(gradstarve, name)
        if inspect.isfunction(value):
            assert ">>>" in (inspect.getdoc(value) or ""), f"gradstarve.{name} has no example"


def defined_here(value):
    """The functions behind a public name whose annotations are written in this package: itself, or methods of the class."""
    found = {value.__name__: value} if inspect.isfunction(value) else dict(vars(value)) if inspect.isclass(value) else {}
    for name, function in found.items():
        if name.startswith("_") and name not in ("__init__", "__call__", "__getitem__"):
            continue
        function = function.fget if isinstance(function, property) else getattr(function, "__func__", function)
        function = inspect.unwrap(getattr(function, "method", function))
        if inspect.isfunction(function) and Path(function.__code__.co_filename).is_relative_to(PACKAGE):
            yield function


def test_public_functions_say_what_they_return():
    """What says nothing is an error in every strictly typed program that calls it, constructors included."""
    rooms = [gradstarve.theory.ntk, gradstarve.theory.jacobian, gradstarve.datasets, gradstarve]
    rooms += [importlib.import_module(f"gradstarve.{room}") for room in ROOMS[1:9]]
    names = [(room, name) for room in rooms for name in getattr(room, "__all__", dir(room)) if not name.startswith("_")]
    functions = {function for room, name in names for function in defined_here(getattr(room, name))}
    assert len(functions) > 250
    silent = [f"{f.__module__}.{f.__qualname__}" for f in functions if "return" not in f.__annotations__]
    assert not silent


def test_constructors_methods_and_properties_are_among_them():
    assert {f.__name__ for f in defined_here(gradstarve.Mode)} >= {"__init__"}
    assert {f.__name__ for f in defined_here(gradstarve.theory.KappaDistribution)} >= {"__init__", "cdf", "mean"}


# Rooms and parts of rooms whose modules users name by their path; elsewhere only the room itself is promised.
OPEN = ("cli/", "studies/", "theorems/laws/")


def test_modules_inside_rooms_begin_with_an_underscore():
    inside = [path.relative_to(PACKAGE).as_posix() for path in files() if path.name != "__init__.py"]
    assert [path for path in inside if not path.startswith(OPEN) and not path.rpartition("/")[2].startswith("_")] == []
    assert {path.partition("/")[0] for path in inside} == set(ROOMS)


def name_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_at_the_top(tree, known, late=False):
    """The modules of `known` that are loaded when a module is; with `late` also those that its functions import."""
    found, body = set(), list(ast.walk(tree) if late else tree.body)
    while body:
        node = body.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            body += node.orelse
        elif isinstance(node, ast.If | ast.Try | ast.With):
            body += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known if names <= known else names & known | {node.module}
    return found


def circle(graph):
    """Modules that load each other, in order, or nothing."""
    done, way = set(), []

    def visit(module):
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return None
        way.append(module)
        found = next(filter(None, map(visit, sorted(graph[module]))), None)
        way.pop()
        done.add(module)
        return found

    return next(filter(None, map(visit, sorted(graph))), None)


def test_no_imports_run_in_a_circle():
    trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    graph = {name: imported_at_the_top(tree, set(trees)) - {name} for name, tree in trees.items()}
    assert sum(map(len, graph.values())) > 300
    assert circle(graph) is None


def test_derivations_and_printers_do_not_import_each_other_in_functions_either():
    paths = list((PACKAGE / "symbolic").glob("*.py"))
    trees = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}
    graph = {name: imported_at_the_top(tree, set(trees), late=True) - {name} for name, tree in trees.items()}
    assert "gradstarve.symbolic._printers" in graph["gradstarve.symbolic._derivation"]
    assert circle(graph) is None


def test_a_circle_would_be_noticed():
    tree = ast.parse("from gradstarve import b\nfrom gradstarve.c import f\ndef g():\n    import gradstarve.d\n")
    known = {"gradstarve", "gradstarve.b", "gradstarve.c", "gradstarve.d"}
    assert imported_at_the_top(tree, known) == {"gradstarve.b", "gradstarve.c"}
    assert imported_at_the_top(tree, known, late=True) == {"gradstarve.b", "gradstarve.c", "gradstarve.d"}
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_costs_little_and_leaves_heavy_rooms_shut():
    code = (
        "import time, sys, jax; start = time.process_time(); import gradstarve; "
        "print(time.process_time() - start, [m for m in "
        "('sympy', 'matplotlib', 'diffrax', 'optax', 'typer', 'jinja2') if m in sys.modules])"
    )
    outcomes = [run_python(code).split(maxsplit=1) for _ in range(3)]
    assert all(heavy.strip() == "[]" for _, heavy in outcomes)
    # Processor time and the best of three: on a busy machine the rest measures its neighbours.
    assert min(float(seconds) for seconds, _ in outcomes) <= 0.5


def test_importing_does_not_switch_precision():
    assert run_python("import gradstarve, jax; print(jax.config.jax_enable_x64)").strip() == "False"


def test_lazy_names_resolve_and_unknown_ones_do_not():
    assert gradstarve.derive.__module__.startswith("gradstarve.symbolic")
    assert callable(gradstarve.verify)
    assert set(gradstarve.__all__) <= set(dir(gradstarve))
    with pytest.raises(AttributeError, match="no attribute 'solv'"):
        _ = gradstarve.solv
