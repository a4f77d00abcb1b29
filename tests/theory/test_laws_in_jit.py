"""Every curve of theory and simulation is a pytree: an argument of jit and vmap, whose methods work there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory

DATA = gs.datasets.antipodal(norms=(1.0, 1.5), frequencies=(0.6, 0.4))
ONE_CLASS = gs.Dataset([[1.0, 0.0], [1.0, 0.0]], [-1, -1])
NET = gs.TwoLayerReLU([[0.3, 0.1], [-0.2, 0.4]], [-0.4, -0.1])
MODE = gs.Mode(0.5, 1.0, [0.3, 0.2], [0.1, -0.4])
DESCENT = gs.GradientDescent(0.2, momentum=0.3, weight_decay=0.01)
TYPES, SHARES = [[1, 0], [1, 1]], [0.7, 0.3]


def curve(solution, t):
    return solution.logits(t), solution.margins(t), solution.error(t), solution.loss(t), solution.mistakes(t)


def weights(solution, t):
    return solution.network(t)


def mode(solution, t):
    return solution.logit(t), solution.error(t), solution.weights(t), solution.time_to_logit(0.3)


# A law, and what to read of it at t = 3.
LAWS = {
    "solve, flow": (lambda: gs.solve(DATA, NET, "hinge"), (curve, weights)),
    "solve, one class": (lambda: gs.solve(ONE_CLASS, NET, "hinge"), (curve, weights)),
    "solve, descent": (lambda: gs.solve(DATA, NET, "hinge", DESCENT), (curve, weights)),
    "clock": (lambda: gs.solve(DATA, NET, "hinge").minus, (lambda s, t: (s.logit(t), s.angle(t), s.time_to_error(0.4)),)),
    "mode, flow": (lambda: gs.solve_mode(MODE, "hinge"), (mode, lambda s, t: (s.events, s.inflections()))),
    "mode, descent": (lambda: gs.solve_mode(MODE, "hinge", DESCENT), (mode, lambda s, t: s.leaving_step(20))),
    "mode, one-point descent": (
        lambda: gs.solve_mode(MODE, "hinge", gs.StochasticGradientDescent(0.2)),
        (
            lambda s, t: (lambda d: (d.mean, d.variance, d.error, d.cdf(0.1), d.quantile(0.5)))(s.distribution(t)),
            lambda s, t: (lambda d: (d.mean, d.variance, d.pmf(30), d.cdf(30), d.quantile(0.5)))(s.time_to_logit(0.3)),
        ),
    ),
    "softmax read-out": (lambda: theory.softmax_mode(0.3, 1.0, classes=3), (lambda s, t: (s.gap(t), s.time_to_gap(0.5)),)),
    "depth": (
        lambda: theory.depth_mode(0.5, 1.0, [0.3, 0.4, 0.5], "hinge"),
        (lambda s, t: (s.logit(t), s.time_to_logit(0.5)),),
    ),
    "features": (
        lambda: theory.feature_flow(TYPES, SHARES, "hinge"),
        (lambda s, t: (s.features(t), s.margins(t), s.alone(t), s.index(t)),),
    ),
    "starving pair": (
        lambda: theory.starving_pair(0.7, 0.3, "hinge"),
        (lambda s, t: (s.features(t), s.index(t), s.freeze),),
    ),
    "shared features": (
        lambda: theory.shared_features(TYPES, SHARES, loss="hinge", w=[[0.2, 0.1]], z=[0.3]),
        (lambda s, t: s.features(t),),
    ),
    "trajectory": (
        lambda: gs.simulate(DATA, NET, "hinge", DESCENT, 4),
        (lambda s, t: (s.logits(), s.margins(), s.error(), s.loss(), s.mistakes(), s.final),),
    ),
}


@pytest.mark.parametrize("name", LAWS)
def test_argument_of_jit(name):
    make, readers = LAWS[name]
    law = make()

    def read(law):
        return [reader(law, 3) for reader in readers]

    plain, compiled = read(law), jax.jit(read)(law)
    assert jax.tree.structure(plain) == jax.tree.structure(compiled)
    for ours, theirs in zip(jax.tree.leaves(plain), jax.tree.leaves(compiled), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=3e-5, atol=1e-6, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("dynamics", [None, DESCENT])
def test_result_and_argument_of_vmap(dynamics):
    nets = gs.TwoLayerReLU(jnp.stack([NET.w, NET.w[::-1], 0.5 * NET.w]), jnp.stack([NET.z, NET.z, -NET.z]))
    laws = jax.vmap(lambda net: gs.solve(DATA, net, "hinge", dynamics))(nets)
    found = jax.vmap(lambda law: law.margins(3))(laws)
    np.testing.assert_allclose(found, gs.solve(DATA, nets, "hinge", dynamics).margins(3), rtol=1e-5, atol=1e-6)
