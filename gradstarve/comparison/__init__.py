"""Theory against training: the gaps between two learning curves, as numbers, a table and an overlay figure."""

from gradstarve.comparison._gaps import ClassGap, Comparison, Worst, compare
from gradstarve.comparison._sweeps import law_of_sweep

__all__ = ["ClassGap", "Comparison", "Worst", "compare"]
