"""The README and the tour, run: every command and every snippet, from top to bottom, in a fresh clone and a new environment.

    python tests/readme.py                  # everything, the tests of the project included
    python tests/readme.py --leave-out pytest   # but for the lines that contain this
    python tests/readme.py --list           # only print what would run

What runs is what stands in the fenced blocks of README.md and docs/tour.md: `sh` line by line, and `python` block by block,
for each page in one process, where a block sees the names of those above it. A fence of any other kind is shown and not run.
Only the standard library is used: it is what a new machine has.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "tour.md")
_FENCE = re.compile(r"^```(?P<language>[a-z]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, its text, and the line of the README on which the text starts."""

    language: str
    text: str
    line: int


def blocks(readme: str) -> list[Block]:
    """The fenced blocks of a README, in order."""
    return [Block(m["language"], m["text"], readme.count("\n", 0, m.start("text")) + 1) for m in _FENCE.finditer(readme)]


def commands(readme: str) -> list[str]:
    """The lines of the `sh` blocks that are commands, with those joined that end in a backslash; comments are none."""
    shell = "".join(block.text for block in blocks(readme) if block.language == "sh")
    lines = [line.strip() for line in re.sub(r"\s*\\\n\s*", " ", shell).splitlines()]
    return [line.split("  #")[0].rstrip() for line in lines if line and not line.startswith("#")]


def script(readme: str) -> str:
    """All `python` blocks as one program, on the lines on which they stand in the README."""
    program = ""
    for block in blocks(readme):
        if block.language == "python":
            program += "\n" * (block.line - 1 - program.count("\n")) + block.text
    return program


def fresh_copy(target: Path) -> None:
    """The project as a clone of it would be, or a copy of its files where there is no repository to clone."""
    if (ROOT / ".git").exists():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(target)], check=True)
    else:
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "gradstarve-out"))


def run(arguments: list[str] | None = None) -> int:
    """The command line; 0 if everything ran, else the exit code of the first thing that did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leave-out", default="", metavar="TEXT", help="leave out commands that contain this")
    parser.add_argument("--list", action="store_true", help="print what would run, and stop")
    options = parser.parse_args(arguments)
    texts = {path.stem: path.read_text(encoding="utf-8") for path in PAGES}
    wanted = [
        line for text in texts.values() for line in commands(text) if not options.leave_out or options.leave_out not in line
    ]
    if options.list:
        print("\n".join([*wanted, *(script(text).strip() for text in texts.values())]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        clone, venv = Path(folder) / "clone", Path(folder) / "venv"
        fresh_copy(clone)
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "JAX_ENABLE_X64")}
        environment |= {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "VIRTUAL_ENV": str(venv)}
        environment |= {"MPLBACKEND": "Agg", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        # The clone is the working directory, as for a reader; its package is not imported from there but as installed.
        environment |= {"PYTHONSAFEPATH": "1"}
        (clone / "gradstarve-out").mkdir()
        for name, text in texts.items():
            program = clone / "gradstarve-out" / f"{name}-snippets.py"
            program.write_text(script(text), encoding="utf-8")
            wanted.append(f"python {program}")
        for command in wanted:
            print(f"+ {command}", flush=True)
            start = time.monotonic()
            code = subprocess.run(["bash", "-euo", "pipefail", "-c", command], cwd=clone, env=environment).returncode
            print(f"  exit code {code}, {time.monotonic() - start:.0f} s", flush=True)
            if code:
                return code
    return 0


if __name__ == "__main__":
    raise SystemExit(run())
