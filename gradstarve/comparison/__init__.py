"""Theory against training: how far apart two learning curves are, where, and the overlay figure."""

from gradstarve.comparison._gaps import ClassGap, Comparison, Worst, compare
from gradstarve.comparison._sweeps import law_of_sweep

__all__ = ["ClassGap", "Comparison", "Worst", "compare"]
