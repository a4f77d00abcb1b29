"""The tables of the explorer: what the browser looks up in them is the integral of the clock, found by mpmath."""

import json

import mpmath
import numpy as np
import pytest

from gradstarve.page import explorer_data
from gradstarve.page._curves import RANGES
from gradstarve.theory import kappa_critical

DATA = explorer_data()


def through(row, x):
    """The polynomial through the Chebyshev points of [0, 1], written as Lagrange wrote it."""
    count = row.shape[-1]
    nodes = (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2
    others = ~np.eye(count, dtype=bool)
    return sum(row[..., k] * np.prod((x - nodes[others[k]]) / (nodes[k] - nodes[others[k]])) for k in range(count))


def looked_up(name, kappa, u):
    table = np.array(DATA["tables"][name])
    row = through(table.T, np.sqrt(kappa / DATA["kappa_top"]))
    top, scale = DATA["u_top"], DATA["scale"]
    if name == "above":
        return through(row, np.sqrt(u / (u + scale) * (top + scale) / top))
    return through(row, -u if name == "middle" else np.log(-u) / np.log(-DATA["u_low"]))


def by_quadrature(name, kappa, u):
    """H or G, and by how much the logit of a cross-entropy is off for each unit that it is off."""
    kappa, u = mpmath.mpf(float(kappa)), mpmath.mpf(float(u))
    steep = mpmath.sqrt(kappa**2 + u**2)
    if name == "below":
        value = steep * mpmath.quad(lambda v: mpmath.exp(-v) / mpmath.sqrt(kappa**2 + (u - v) ** 2), [0, 1, 5, 20, 80])
        return value, mpmath.exp(u) / (1 + mpmath.exp(u))
    ends = sorted({mpmath.mpf(0), u, *(x for x in (kappa, 30 * kappa, 1, u - 30, u - 3) if 0 < x < u)})
    if u < 0:
        ends = [0, *(-x for x in (kappa, 30 * kappa) if x < -u), u]
    remainder = mpmath.quad(lambda v: mpmath.expm1(v) / mpmath.sqrt(kappa**2 + v**2), ends)
    scale = 2 * (mpmath.expm1(u) - u) / (steep + kappa)
    return remainder / scale, steep * scale / (1 + mpmath.exp(u))


def points(count, seed):
    """Random (name, kappa, u), kappa as often small as large, and the corners."""
    rng = np.random.default_rng(seed)
    for name, low, high in (("above", 1e-3, DATA["u_top"]), ("middle", -1e-3, -1.0), ("below", -1.0, DATA["u_low"])):
        us = [low, high, *np.sign(low) * np.exp(rng.uniform(*np.log(np.abs([low, high])), count))]
        kappas = [1e-12, DATA["kappa_top"], *(DATA["kappa_top"] * rng.random(count) ** 4)]
        yield from ((name, kappa, u) for kappa, u in zip(kappas + kappas[::-1], us + us, strict=True))


def worst_gap(count, seed):
    gaps = [0.0]
    for name, kappa, u in points(count, seed):
        value, weight = by_quadrature(name, kappa, u)
        gaps.append(float(abs(looked_up(name, kappa, u) - value) * weight))
    return max(gaps)


def test_what_is_looked_up_is_the_integral():
    assert worst_gap(8, seed=1) < 1e-6


@pytest.mark.slow
def test_what_is_looked_up_is_the_integral_at_many_places():
    gap = worst_gap(300, seed=2)
    print(f"worst error of the logit from one look-up: {gap:.1e}")
    assert gap < 1e-6


def test_a_page_can_carry_it():
    text = json.dumps(DATA, allow_nan=False)
    assert json.loads(text) == DATA
    assert len(text) < 40_000
    assert DATA["kappa_critical"]["squared"] == pytest.approx(kappa_critical("squared"))
    assert DATA["kappa_critical"]["hinge"] is None


def test_the_tables_reach_as_far_as_the_sliders():
    (_, norm), (_, a), (low, high) = (RANGES[name] for name in ("norm", "a", "z"))
    assert norm * max(a, high, -low) ** 2 / 2 == DATA["kappa_top"]
    assert norm * a * low == DATA["u_low"]
    assert norm * a * high < DATA["u_top"]
