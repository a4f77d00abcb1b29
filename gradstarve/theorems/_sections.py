"""The sections of the theory, by which statements are found: what stands before the point of an equation's number."""

from __future__ import annotations

SECTIONS = {
    1: "Setting",
    2: "Independent modes",
    3: "The hyperbolic clock",
    4: "Fates and failed training",
    5: "The shape of the error curve",
    6: "Speed: frequency, norm, loss",
    7: "Depth",
    8: "Discrete time, solved exactly",
    9: "Weight decay",
    10: "Gradient starvation",
    11: "Several classes",
    12: "Hinge flow, event by event",
    13: "Directions in the end",
    14: "Linearised networks",
    15: "Discriminators",
}


def place(equation: str) -> tuple[int, int]:
    """The section of an equation and its place there, of a range of equations those of the first.

    >>> place("10.2"), place("3.1-3.5")
    ((10, 2), (3, 1))
    """
    section, _, number = equation.partition("-")[0].partition(".")
    if not (section.isdecimal() and number.isdecimal() and int(section) in SECTIONS):
        raise ValueError(f"equation must be SECTION.NUMBER with a section from 1 to {max(SECTIONS)}, got {equation!r}")
    return int(section), int(number)
