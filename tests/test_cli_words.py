"""Completion of words by the shell, `python -m gradstarve`, and names that are known without loading anything."""

import os
import subprocess
import sys

import pytest
import typer

from gradstarve.cli import main as cli
from gradstarve.ground import FORMATS

PATHS = os.pathsep.join(path for path in sys.path if path)


def run(*command, **variables):
    environment = {"PYTHONPATH": PATHS, "PATH": os.environ["PATH"], "COLUMNS": "120"} | variables
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)


# What takes long to load; a completion tells at its end which of these it has.
HEAVY = ("jax", "numpy", "scipy", "sympy", "matplotlib", "equinox", "diffrax", "jinja2")
TELL = f"import atexit, sys; atexit.register(lambda: print(*[n for n in {HEAVY} if n in sys.modules], file=sys.stderr))"


def complete(line):
    """What bash offers for the last word of `line`, by the protocol of the script that --show-completion prints; and which
    heavy modules that took."""
    words = ["gradstarve", *line.split(" ")]
    done = run(
        *("-c", f"{TELL}; from gradstarve.cli.main import main; main()"),
        _GRADSTARVE_COMPLETE="complete_bash",
        COMP_WORDS=" ".join(words),
        COMP_CWORD=str(len(words) - 1),
    )
    return done.stdout.split(), done.stderr.split()


def completed(line):
    return complete(line)[0]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ver", ["verify"]),
        ("overlay --loss c", ["cross-entropy"]),
        ("phase --losses hinge,", ["hinge,cross-entropy", "hinge,exponential"]),
        ("derive decay --loss ", ["cross-entropy", "exponential", "squared"]),
        ("verify waking hinge-e", ["hinge-exact", "hinge-end"]),
        ("sweep --over wid", ["width="]),
        ("starve --fig", ["--figures"]),
        ("opt", ["optimisers"]),
        ("optimisers --optimisers sign,r", ["sign,rmsprop"]),
        ("stability --dec", ["--decays"]),
        ("plasticity --rules descent,s", ["descent,sign"]),
        ("sweep --dynamics mini", ["minibatch"]),
    ],
)
def test_bash_completes_commands_options_and_values(line, offered):
    assert completed(line) == offered


@pytest.mark.parametrize(("line", "offered"), [("overlay --fi", "--figures"), ("derive mom", "momentum")])
def test_completing_is_quick_and_loads_nothing_heavy(line, offered):
    assert complete(line) == ([offered], [])


def test_the_module_is_the_command():
    shown = run("-m", "gradstarve", "overlay", "--no-such-option")
    assert shown.returncode == 2
    assert shown.stderr.startswith("Usage: python -m gradstarve overlay [OPTIONS]")
    # Typer finds out for which shell from the processes above, of which none may be one.
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    script = run("-m", "gradstarve", "--show-completion", "bash", **told).stdout
    assert "_GRADSTARVE_COMPLETE=complete_bash" in script
    assert script.rstrip().endswith(" gradstarve")


COMMANDS = typer.main.get_command(cli.app).commands


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_named_alike_and_have_help(name):
    command = COMMANDS[name]
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    assert {"--seed", "--json", "--out"} <= set(options)
    assert ("--figures" in options) == (name not in ("derive", "report"))
    assert command.epilog.startswith(f"Example: gradstarve {name} ")
    assert len(command.short_help) < 70
    for option, parameter in options.items():
        if option != "--help":
            assert parameter.help.endswith((".", "]", "*")), option
            # A default is shown by typer, or said where it depends on something.
            optional = ("names", "name", "file", "--over", "--results", "model", "data")  # without them there is none
            assert parameter.default is not None or "[default: " in parameter.help or option in optional, option


def test_figures_of_other_kinds_are_refused():
    from typer.testing import CliRunner

    for name in COMMANDS:
        if name not in ("derive", "report"):
            files = ["model.py:net", "data.npz"] if name == "diagnose" else []
            result = CliRunner().invoke(cli.app, [name, *files, "--figures", "jpeg"])
            assert result.exit_code == 2
            assert f"'jpeg' is not one of {', '.join(FORMATS)}" in " ".join(result.output.split())
