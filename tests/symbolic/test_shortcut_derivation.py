"""What is derived for a shortcut with a minority, as JAX functions, against the theory's own law (20.1)-(20.4)."""

import numpy as np
import pytest

from gradstarve import theory
from gradstarve.symbolic import derive

P, CORE, SIDE = 0.85, 1.2, 0.7


@pytest.mark.usefixtures("x64")
def test_derived_curves_are_those_of_the_theory():
    for loss in ("cross-entropy", "exponential"):
        equal = theory.shortcut(P, loss, core=CORE, shortcut=CORE).margins(3.0)
        derived = derive("shortcut", loss)
        found = [derived.to_jax(key)(t=3.0, p=P, r=CORE) for key in ("a(t)", "b(t)")]
        np.testing.assert_allclose(found, equal, rtol=1e-10)
        assert float(derived.to_jax("v_s end")(p=P)) == pytest.approx(float(theory.shortcut(P, loss).rest[1]), rel=1e-12)
    law = theory.shortcut(P, "exponential", core=CORE, shortcut=SIDE)
    core, side = law.features(2.0)
    assert float(derive("shortcut", "exponential").to_jax("v_c(v_s)")(v_s=side, p=P, r_c=CORE, r_s=SIDE)) == pytest.approx(
        float(core), rel=1e-10
    )


@pytest.mark.usefixtures("x64")
def test_derived_ends_and_peaks_are_those_of_the_theory():
    numbers = {"p": P, "r_c": CORE, "r_s": SIDE}
    hinge, law = derive("shortcut", "hinge"), theory.shortcut(P, "hinge", core=CORE, shortcut=SIDE)
    found = [float(hinge.to_jax(key)(**numbers)) for key in ("t peak", "v_s peak", "v_s end")]
    np.testing.assert_allclose(found, [*law.peak().time, *law.peak().height, float(law.rest[1])], rtol=1e-12)
    last = hinge.to_jax("t last")(**numbers)
    np.testing.assert_allclose(law.features(last), law.rest, rtol=1e-12)
    assert float(law.features(0.99 * last)[0]) < float(law.rest[0]) - 1e-3
    squared, law = derive("shortcut", "squared"), theory.shortcut(P, "squared", core=CORE, shortcut=SIDE)
    assert float(squared.to_jax("t peak")(**numbers)) == pytest.approx(law.peak().time[0], rel=1e-12)
    assert float(squared.to_jax("v_s(t)")(t=0.7, **numbers)) == pytest.approx(float(law.features(0.7)[1]), rel=1e-11)
