"""The theorems tried against training: the catalogue, and `verify`, which runs it.

The setting is that of arXiv:1809.06848; statements and equation numbers are this project's own.
"""

from gradstarve.theorems.catalogue import CATALOGUE
from gradstarve.theorems.entry import Counterexample, Outcome, Theorem
from gradstarve.theorems.verify import Report, Row, draw, verify

__all__ = ["CATALOGUE", "Counterexample", "Outcome", "Report", "Row", "Theorem", "draw", "verify"]
