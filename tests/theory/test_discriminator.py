"""The signal of a discriminator against the gradient of the generator's loss itself (15.1)."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import generator_signal, minimax_peak, minimax_tail
from gradstarve.theory._direction import GENERATOR_LOSSES

LOSSES = {
    "minimax": lambda f: -jax.nn.softplus(f),  # log(1 - P)
    "non-saturating": lambda f: jax.nn.softplus(-f),  # -log P
    "hinge": lambda f: -f,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", GENERATOR_LOSSES)
def test_it_is_the_slope_of_the_loss_along_the_fakes(kind):
    network = gs.init_two_layer(jax.random.key(3), (), 6, 3)
    fake = jnp.array([0.3, -1.2, 0.7])
    norm = float(jnp.linalg.norm(fake))
    slope = jax.grad(lambda x: LOSSES[kind](network(x[None])[0]))(fake) @ fake / norm
    margin = -float(network(fake[None])[0])
    assert float(slope) == pytest.approx(float(generator_signal(norm, kind, margin)), rel=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_peak_of_the_minimax_signal():
    with mp.workdps(30):
        exact = mp.findroot(lambda m: m / (1 + mp.exp(-m)) - 1, 1.3)
    assert float(minimax_peak()) == pytest.approx(float(exact), rel=1e-15)
    m = np.linspace(0.5, 3, 20_001)
    signal = np.asarray(generator_signal(1.0, "minimax", m))
    assert m[np.argmax(signal)] == pytest.approx(float(exact), abs=2e-4)


@pytest.mark.usefixtures("x64")
def test_the_tail_of_two_layers_is_one_over_the_clock_and_of_one_layer_log_over_it():
    p, r, margin = 0.5, 1.3, np.array([20.0, 100.0, 600.0])
    signal = np.asarray(generator_signal(r, "minimax", margin))
    # Times from (3.7) and (3.9), balanced from u = 0.1 and from u = 0.
    two = [float(mp.log(10 * u) + mp.ei(u) - mp.ei(0.1)) / (2 * p * r) for u in margin]
    one = [float(u + mp.expm1(u)) / (p * r**2) for u in margin]
    for layers, t, clock in ((2, two, 2 * p * r * np.array(two)), (1, one, p * r**2 * np.array(one))):
        tail = np.asarray(minimax_tail(p, r, t=t, depth=layers))
        # The error is off by m/L, and so is this one.
        np.testing.assert_allclose(signal / tail, 1, atol=1.2 / margin[0])
        assert abs(signal[-1] / tail[-1] - 1) < 2e-3
        expected = (1 if layers == 2 else np.log(clock)) / (r * clock)
        np.testing.assert_allclose(tail, expected, rtol=1e-12)


def test_bad_arguments():
    with pytest.raises(ValueError, match="unknown generator loss 'wasserstein'"):
        generator_signal(1.0, "wasserstein", 1.0)
    with pytest.raises(ValueError, match="norm must be > 0"):
        generator_signal(0.0, "hinge", 1.0)
