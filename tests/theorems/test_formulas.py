"""The formula of every entry of the catalogue: LaTeX that turns into MathML with nothing left over, and true constants."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from latex2mathml.converter import convert

from gradstarve import theory
from gradstarve.theorems import CATALOGUE


def complaints(formula):
    """What is wrong with the MathML of a formula: the converter raises no error for what it does not know."""
    try:
        tree = ElementTree.fromstring(convert(formula, display="block"))
    except ElementTree.ParseError as error:  # an alignment left in the text as &
        return [str(error)]
    texts = [element.text or "" for element in tree.iter()]
    kinds = [element.tag.split("}")[-1] for element in tree.iter()]
    found = [text for text in texts if "\\" in text or "&" in text]
    found += ["an environment was flattened" for element in tree.iter() if element.get("linebreak")]
    rows = formula.count(r"\\") + 1 if r"\begin" in formula else 0
    if kinds.count("mtr") != rows:
        found.append(f"{rows} lines have become {kinds.count('mtr')}")
    if kinds.count("mfrac") != formula.count(r"\frac") + formula.count(r"\binom"):
        found.append(f"{kinds.count('mfrac')} fractions")
    if not any(re.search("[=≥≤<>→←]", text) for text in texts):
        found.append("it states nothing")
    return found


@pytest.mark.parametrize("name", CATALOGUE)
def test_formula_becomes_mathml(name):
    formula = CATALOGUE[name].formula
    assert "$" not in formula
    assert not complaints(formula)


@pytest.mark.parametrize("wrong", [r"\begin{aligned} a &= b \end{aligned}", r"\nonsense = 1", r"a = b \\ c", r"\frac{a}{b}"])
def test_broken_formulas_are_seen(wrong):
    assert complaints(wrong)


def test_constants_in_formulas():
    critical = [theory.kappa_critical(loss) for loss in ("cross-entropy", "exponential", "squared")]
    for name, values in (("rich-to-lazy", critical), ("generator-signal", [float(theory.minimax_peak())])):
        written = [float(number) for number in re.findall(r"\d\.\d{3,}", CATALOGUE[name].formula)]
        np.testing.assert_allclose(written, values, atol=5e-6)
