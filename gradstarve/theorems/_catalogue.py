"""The catalogue: all laws declared by the modules of `theorems/laws`, in the order of their equations."""

from __future__ import annotations

from importlib import import_module

from gradstarve.ground import laws
from gradstarve.theorems._register import CATALOGUE

for law in laws("register").values():
    import_module(law.module)
for name in laws("register"):
    CATALOGUE[name] = CATALOGUE.pop(name)
