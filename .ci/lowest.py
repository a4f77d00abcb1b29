"""The lowest versions that pyproject.toml allows, one "name==version" a line, as constraints for pip.

    python .ci/lowest.py test > lowest.txt && pip install '.[test]' -c lowest.txt

Arguments name extras that count beside what is always needed. They are read from pyproject.toml, so that the versions that
are promised and those that are tried cannot differ; a requirement without a lower bound is an error.
"""

import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lowest(extras: list[str]) -> dict[str, str]:
    """The lowest version of every requirement, by its name; of several lower bounds the last one given counts."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    if unknown := [extra for extra in extras if extra not in optional]:
        raise SystemExit(f"no extra {unknown[0]!r} in {PROJECT}, only {', '.join(optional)}")
    found = {}
    for requirement in [*project["dependencies"], *(line for extra in extras for line in optional[extra])]:
        name = re.match(r"[\w.-]+", requirement)[0]
        bounds = re.findall(r">=\s*([\w.]+)", requirement)
        if len(bounds) != 1:
            raise SystemExit(f"{requirement!r} of {PROJECT} should have exactly one lower bound '>='")
        found[name] = bounds[0]
    return found


if __name__ == "__main__":
    print("\n".join(f"{name}=={version}" for name, version in lowest(sys.argv[1:]).items()))
