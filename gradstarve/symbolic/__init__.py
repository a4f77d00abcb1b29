"""Derivations in SymPy: from a network and a loss to its learning curve, every step checked.

`derive(name, loss)` starts from the network and the loss and derives; nothing here is a final formula typed
in. The result prints as text, Markdown or LaTeX, and turns into a JAX function with `.to_jax()`.
"""

from gradstarve.symbolic._derivation import Derivation, DerivationError, Step, latex_document
from gradstarve.symbolic._derive import available, derive, derives
from gradstarve.symbolic._printers import latex

__all__ = ["Derivation", "DerivationError", "Step", "available", "derive", "latex_document"]
