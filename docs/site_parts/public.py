"""The public names of gradstarve, and the one path under which each of them is documented."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

# In this order: a name that several modules export is documented under the first.
MODULES = (
    "gradstarve",
    "gradstarve.problem",
    "gradstarve.theory",
    "gradstarve.theory.ntk",
    "gradstarve.theory.jacobian",
    "gradstarve.special",
    "gradstarve.simulation",
    "gradstarve.comparison",
    "gradstarve.symbolic",
    "gradstarve.theorems",
    "gradstarve.diagnosis",
    "gradstarve.page",
)

# Names for users beside those of `__all__`.
LISTED = {
    "gradstarve.datasets": (
        "antipodal",
        "orthogonal",
        "orthogonal_classes",
        "cones",
        "features",
        "starving_pair",
        "shortcut",
        "signed_types",
        "digits",
        "TwoDigits",
        "coloured_digits",
        "ColouredDigits",
        "with_patch",
        "read",
    ),
    "gradstarve.theorems": ("Quote", "Hypothesis", "Problem"),
    "gradstarve.diagnosis": (
        "GroupLaw",
        "MeasuredGroup",
        "EigenFeatures",
        "Measured",
        "Cell",
        "Plan",
        "UsersTraining",
        "Regime",
    ),
    "gradstarve.studies.phase.plane": ("PhaseDiagram", "phase_diagram"),
    "gradstarve.studies.features": ("Cell", "FeatureStudy", "feature_study"),
    "gradstarve.studies.remedies": ("Outcome", "RemedyStudy", "remedy_study", "Remedy", "list_remedies"),
    "gradstarve.studies.optimisers": (
        "optimiser_study",
        "OptimiserStudy",
        "OptimiserSettings",
        "Share",
        "Curve",
        "Agreement",
    ),
    "gradstarve.studies.alignment": ("alignment_study", "AlignmentStudy"),
    "gradstarve.studies.stability": ("stability_study", "StabilityStudy", "StabilitySettings", "Line"),
    "gradstarve.studies.coloured": ("coloured_study", "ColouredStudy", "Reading"),
    "gradstarve.studies.images": ("image_study", "ImageStudy", "ImageSettings", "Outcome"),
    "gradstarve.studies.shortcut": ("shortcut_study", "ShortcutStudy", "ShortcutSettings", "Panel"),
    "gradstarve.studies.plasticity": (
        "plasticity_study",
        "PlasticityStudy",
        "PlasticitySettings",
        "Task",
        "Plane",
        "Width",
    ),
    "gradstarve.studies.key.figures": ("key_figure", "KeyFigure"),
    "gradstarve.studies.digits.study": ("settings", "run", "claims", "report_text"),
}


def module(path: str) -> ModuleType:
    """The module at `path`, `gradstarve.datasets` included, which is an attribute."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError:
        parent, _, name = path.rpartition(".")
        return getattr(importlib.import_module(parent), name)


def exported(path: str) -> tuple[str, ...]:
    """The public names of the module at `path`: its `__all__`, and what is listed here."""
    return (*getattr(module(path), "__all__", ()), *LISTED.get(path, ()))


@cache
def public() -> dict[str, Any]:
    """Path of documentation -> object, for every public name; modules stand under their own names."""
    found: dict[str, Any] = {}
    seen: list[Any] = []
    for path in (*MODULES, *LISTED):
        for name in exported(path):
            value = getattr(module(path), name)
            if any(value is other for other in seen):
                continue
            seen.append(value)
            found[value.__name__ if isinstance(value, ModuleType) else f"{path}.{name}"] = value
    return found


def members(value: Any) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that a class of gradstarve defines or inherits from one of its own."""
    for name, member in inspect.getmembers(value):
        function = member.fget if isinstance(member, property) else member
        if not name.startswith("_") and (getattr(function, "__module__", None) or "").startswith("gradstarve"):
            yield name, member


@cache
def short_names() -> dict[str, str]:
    """What a text may call a public name -> path of its documentation.

    A plain lower-case word is taken for a name only if `gradstarve` itself exports it: `features` may be an argument.
    """
    names: dict[str, str] = {}
    top = set(module("gradstarve").__all__)
    for path, value in public().items():
        name = path.rpartition(".")[2]
        names[path] = path
        names["gs." + path.removeprefix("gradstarve.")] = path
        if isinstance(value, ModuleType):  # users know it by the name that its room gives it
            for room in map(module, MODULES):
                given = [n for n in room.__all__ if getattr(room, n) is value]
                names |= {f"gs{room.__name__.removeprefix('gradstarve')}.{n}": path for n in given}
            continue
        if path.startswith("gradstarve.studies.digits.study."):
            continue
        if name in top or name != name.lower() or "_" in name:
            names.setdefault(name, path)
    for name in module("gradstarve.theory").__all__:  # gs.theory.solve is gs.solve
        value = getattr(module("gradstarve.theory"), name)
        path = next(path for path, other in public().items() if other is value)
        names.update({f"gs.theory.{name}": path, f"theory.{name}": path})
    return names
