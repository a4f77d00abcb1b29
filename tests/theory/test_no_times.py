"""Curves asked for at no time at all, and times at no logit: arrays of size 0, of the shape that the others have."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory

TYPES, PROBABILITIES = [[1, 1, 0], [1, 0, 1], [0, 1, 1]], [0.5, 0.3, 0.2]
LAWS = {
    "logistic_flow": (lambda t: theory.ntk.logistic_flow(jnp.eye(2), t), (2,)),
    "ridge_flow": (lambda t: theory.ntk.ridge_flow(jnp.eye(2), 0.1, t), (2,)),
    "ridge_dual_flow": (lambda t: theory.ntk.ridge_dual_flow(jnp.eye(2), 0.1, t), (2,)),
    "spectral_decoupling_flow": (lambda t: theory.ntk.spectral_decoupling_flow(jnp.eye(2), 0.1, t), (2,)),
    "depth_mode.logit": (lambda t: theory.depth_mode(0.5, 1.0, [0.1] * 3).logit(t), ()),
    "depth_mode.weights": (lambda t: theory.depth_mode(0.5, 1.0, [0.1] * 3, "squared").weights(t), (3,)),
    "depth_mode.time_to_logit": (lambda u: theory.depth_mode(0.5, 1.0, [0.1] * 3).time_to_logit(u), ()),
    "one_layer_logit": (lambda t: theory.one_layer_logit(0.5, 1.0, 0.0, "cross-entropy", t), ()),
    "LearningTime.cdf": (lambda t: theory.LearningTime(0.5, 1.0, 0.1, 0.1, "hinge", 0.5).cdf(t), ()),
    "LearningTime.quantile": (lambda c: theory.LearningTime(0.5, 1.0, 0.1, 0.1, "hinge", 0.5).quantile(c), ()),
    "solve_mode.logit": (lambda t: gs.solve_mode(gs.Mode(0.5, 1.0, [0.3], [0.2])).logit(t), ()),
    "feature_flow.features": (lambda t: theory.feature_flow(TYPES, PROBABILITIES, "cross-entropy").features(t), (3,)),
    "softmax_mode.gap": (lambda t: theory.softmax_mode(0.3, 1.0, classes=3).gap(t), ()),
    "decayed_logit": (lambda t: theory.decayed_logit(0.5, 1.0, 0.01, 1e-3, "hinge", t), ()),
    "decayed_kappa": (lambda t: theory.decayed_kappa(0.5, 1e-3, t), ()),
}


@pytest.mark.parametrize("name", LAWS)
def test_no_times(name):
    law, members = LAWS[name]
    for shape in ((0,), (0, 3)):
        assert np.shape(law(jnp.zeros(shape))) == shape + members
