"""Spectral decoupling as a loss of the margin, against objectives and gradients written out on the logits by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.problem import LOSSES, CrossEntropy, SpectralDecoupling
from gradstarve.simulation.engines._reference import draw_point

POINTS = np.array([[1.0, 0.2], [0.7, -0.9], [-1.1, 0.3], [0.4, 1.5]])
LABELS, WEIGHTS = np.array([1.0, 1.0, -1.0, -1.0]), np.array([0.4, 0.3, 0.2, 0.1])
MARGINS = np.linspace(-3, 5, 9)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def problem():
    data = gs.Dataset(POINTS, LABELS, WEIGHTS)
    return data, gs.init_two_layer(jax.random.key(3), batch=2, width=3, dim=2)


def hand_descent(net, steps, eta, force):
    """Descent in NumPy where `force`(f, i) is minus the derivative of sample i's objective in its logit f, times q_i."""
    w, z = (np.array(leaf, np.float64) for leaf in (net.w, net.z))
    for _ in range(steps):
        pre = POINTS @ w.T
        hidden = np.maximum(pre, 0)
        push = np.array([force(f, i) for i, f in enumerate(hidden @ z)])
        w, z = w + eta * ((push[:, None] * (pre > 0) * z).T @ POINTS), z + eta * (push @ hidden)
    return w, z


def cross_entropy_force(f, i):
    return WEIGHTS[i] * LABELS[i] * sigmoid(-LABELS[i] * f)


LAMBDAS, PER_SAMPLE = 3.0, np.array([2.0, 0.0, 0.5, 4.0])
GAMMA = {1: 0.7, -1: -1.3}
# Every variant as its loss, and as the force on the logit that the formula of the literature gives.
VARIANTS = {
    "added": (
        lambda: SpectralDecoupling("cross-entropy", LAMBDAS),
        lambda f, i: cross_entropy_force(f, i) - WEIGHTS[i] * LAMBDAS * f,
    ),
    "divided": (
        lambda: SpectralDecoupling("cross-entropy", LAMBDAS, scaling="divided"),
        lambda f, i: (cross_entropy_force(f, i) - WEIGHTS[i] * LAMBDAS * f) / LAMBDAS,
    ),
    "multiplied, c (nll + mean f^2) with c = lambda/2": (
        lambda: SpectralDecoupling("cross-entropy", LAMBDAS, scaling="multiplied"),
        lambda f, i: LAMBDAS / 2 * (cross_entropy_force(f, i) - WEIGHTS[i] * 2 * f),
    ),
    "on some samples": (
        lambda: SpectralDecoupling("cross-entropy", PER_SAMPLE),
        lambda f, i: cross_entropy_force(f, i) - WEIGHTS[i] * PER_SAMPLE[i] * f,
    ),
    "divided, on some samples": (
        lambda: SpectralDecoupling("cross-entropy", PER_SAMPLE, scaling="divided"),
        lambda f, i: (cross_entropy_force(f, i) - WEIGHTS[i] * PER_SAMPLE[i] * f) / 4,
    ),
    "to a target for each class": (
        lambda: SpectralDecoupling.by_class("cross-entropy", LABELS, (0.5, 0.25), (GAMMA[1], GAMMA[-1])),
        lambda f, i: cross_entropy_force(f, i) - WEIGHTS[i] * (0.5 if LABELS[i] > 0 else 0.25) * (f - GAMMA[int(LABELS[i])]),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_is_descent_on_the_objective_by_hand(variant):
    make, force = VARIANTS[variant]
    data, nets = problem()
    run = gs.simulate(data, nets, make(), gs.GradientDescent(0.1), steps=20)
    for b in range(2):
        w, z = hand_descent(nets[b], 20, 0.1, force)
        np.testing.assert_allclose(run.final.w[b], w, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(run.final.z[b], z, rtol=1e-12, atol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("inside", LOSSES)
def test_the_residual_is_minus_the_derivative_of_the_value(inside):
    for loss in (
        SpectralDecoupling(inside, 0.3),
        SpectralDecoupling(inside, np.linspace(0, 2, 9), np.linspace(-1, 1, 9), "divided"),
    ):
        slope = jax.grad(lambda m, loss=loss: loss.value(m).sum())(jnp.asarray(MARGINS))
        np.testing.assert_allclose(-slope, loss.residual(jnp.asarray(MARGINS)), rtol=1e-13, atol=1e-14)


@pytest.mark.usefixtures("x64")
def test_no_penalty_is_the_loss_itself_and_precision_follows_the_margin():
    margins = jnp.asarray(MARGINS)
    assert (SpectralDecoupling("hinge", 0).residual(margins) == gs.Hinge().residual(margins)).all()
    loss = SpectralDecoupling("cross-entropy", np.full(9, 0.1), scaling="divided")
    for function in (loss.value, loss.residual):
        assert function(margins.astype(np.float32)).dtype == np.float32


@pytest.mark.usefixtures("x64")
def test_divided_is_a_smaller_step_towards_the_same_end_and_multiplied_another_end():
    data, nets = problem()
    plain, scaled = (SpectralDecoupling("cross-entropy", 5.0, scaling=scaling) for scaling in ("added", "divided"))
    added = gs.simulate(data, nets, plain, gs.GradientDescent(0.01), steps=20)
    divided = gs.simulate(data, nets, scaled, gs.GradientDescent(0.05), steps=20)
    np.testing.assert_allclose(added.logits(), divided.logits(), rtol=1e-11, atol=1e-12)
    scaled = (SpectralDecoupling("cross-entropy", k, scaling="multiplied") for k in (5, 0.01))
    ends = [loss.residual(jnp.asarray(MARGINS)) / k for loss, k in zip(scaled, (5, 0.01), strict=True)]
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-13)
    np.testing.assert_allclose(ends[0], (sigmoid(-MARGINS) - 2 * MARGINS) / 2, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_stochastic_descent_penalises_the_sample_it_draws():
    data, nets = problem()
    loss = SpectralDecoupling("cross-entropy", PER_SAMPLE)
    run = gs.simulate(data, nets, loss, gs.StochasticGradientDescent(0.1), steps=30, key=jax.random.key(1))
    for b in range(2):
        w, z = (np.array(leaf[b]) for leaf in (nets.w, nets.z))
        key = jax.random.fold_in(jax.random.key(1), b)
        for k in range(30):
            i = int(draw_point(key, jnp.int32(k), data.weights))
            pre = w @ POINTS[i]
            f = z @ np.maximum(pre, 0)
            push = LABELS[i] * sigmoid(-LABELS[i] * f) - PER_SAMPLE[i] * f
            w, z = w + 0.1 * push * (z * (pre > 0))[:, None] * POINTS[i], z + 0.1 * push * np.maximum(pre, 0)
        np.testing.assert_allclose(run.final.w[b], w, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(run.final.z[b], z, rtol=1e-11, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_flow_is_the_limit_of_small_steps():
    data, nets = problem()
    loss = SpectralDecoupling("cross-entropy", PER_SAMPLE)
    flow = gs.simulate_flow(data, nets, loss, np.array([0.0, 0.1, 0.2])).logits()
    gaps = []
    for eta in (1e-2, 1e-3):
        run = gs.simulate(data, nets, loss, gs.GradientDescent(eta), round(0.2 / eta), record_every=round(0.1 / eta))
        gaps.append(float(np.abs(run.logits() - flow).max()))
    assert 0 < gaps[1] < 0.12 * gaps[0] < 1e-3


@pytest.mark.usefixtures("x64")
def test_compare_tells_penalties_apart_and_the_fast_engines_refuse():
    data, nets = problem()
    descent, losses = gs.GradientDescent(0.1), [SpectralDecoupling("cross-entropy", k) for k in (1.0, 1.0, 2.0)]
    runs = [gs.simulate(data, nets, loss, descent, steps=20) for loss in losses]
    assert gs.compare(*runs[:2]).gap == 0
    with pytest.raises(ValueError, match="the two curves are for different numbers in the loss"):
        gs.compare(*runs[1:])
    with pytest.raises(ValueError, match="got SpectralDecoupling"):
        gs.simulate(data, nets, losses[0], descent, steps=20, engine="fused")


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_laws_of_descent_and_flow_take_a_penalty_and_what_needs_a_closed_form_refuses_it():
    data, loss = gs.datasets.antipodal(norms=(1.0, 1.5), frequencies=(0.3, 0.7)), SpectralDecoupling("cross-entropy", 0.2)
    nets = gs.init_two_layer(jax.random.key(0), 4, 6, 2, 0.5, 0.5)
    descent = gs.GradientDescent(0.1)
    law = gs.solve(data, nets, loss, descent)
    assert gs.compare(law, gs.simulate(data, nets, loss, descent, steps=20)).gap < 1e-13
    mode = gs.Mode(1.0, 1.0, [0.1], [0.2])
    flow, run = gs.solve(data, nets, loss), gs.simulate_flow(data, nets, loss, times=[0.0, 3.0, 20.0])
    assert gs.compare(flow, run).gap < 1e-9
    calls = (
        lambda loss: gs.solve_mode(mode, loss).inflections(),
        lambda loss: gs.theory.error_inflections(0.0, loss),
        lambda loss: gs.theory.time_to_confidence(1.0, 1.0, 0.1, loss, 0.1),
        lambda loss: gs.theory.error_tail(1.0, 1.0, loss, 1e6),
        lambda loss: gs.theory.starving_pair(0.8, 0.2, loss).bounds(1.0),
        lambda loss: gs.theory.shared_features([[1]], [1.0], [[0.1]], [0.1], loss),
    )
    for call in calls:
        with pytest.raises(gs.HypothesisError, match="the closed form is for the losses cross-entropy, hinge"):
            call(loss)
    for dynamics in (descent, gs.StochasticGradientDescent(0.1)):
        with pytest.raises(gs.HypothesisError, match="one loss for all points"):
            gs.solve_mode(mode, SpectralDecoupling("cross-entropy", [0.2, 0.1]), dynamics)
    # Neurons that a penalty may push out of their class, and onto the other one.
    obtuse = gs.Dataset([[1.0, 0.0], [-0.3, 1.0]], [1, -1])
    with pytest.raises(gs.HypothesisError, match="may wake on the other"):
        gs.solve(obtuse, gs.TwoLayerReLU([[0.5, -0.2], [-0.2, 0.5]], [0.3, -0.3]), loss, descent)


@pytest.mark.usefixtures("x64")
def test_bad_input_names_what_came():
    for arguments, message in (
        ((CrossEntropy(), -0.1), "penalty must be >= 0, got -0.1"),
        (("cross-entropy", np.ones((2, 2))), r"penalty must be a number or one number a sample, \[n\], got shape \(2, 2\)"),
        (("cross-entropy", np.ones(3), np.ones(2)), "penalty has 3 samples but target has 2"),
        (("cross-entropy", 1.0, 0.0, "halved"), "scaling must be one of 'added', 'divided', 'multiplied', got 'halved'"),
        (("cross-entropy", np.ones(3), 0.0, "multiplied"), "needs a single penalty"),
        (("cross-entropy", 0.0, 0.0, "multiplied"), "penalty must be > 0"),
        (("cross-entropy", float("nan")), "penalty = nan is not finite"),
        ((SpectralDecoupling("hinge", 1.0), 1.0), "loss is penalised already"),
        (("logistic", 1.0), "unknown loss 'logistic'"),
    ):
        with pytest.raises(ValueError, match=message):
            SpectralDecoupling(*arguments)
    with pytest.raises(ValueError, match="labels must be"):
        SpectralDecoupling.by_class("hinge", [0, 1], (1, 1))
    with pytest.raises(ValueError, match=r"penalty must be a pair \(class \+, class -\), got shape \(3,\)"):
        SpectralDecoupling.by_class("hinge", [1, -1], (1, 1, 1))
    data, nets = problem()
    with pytest.raises(ValueError, match=r"penalty is given for 3 samples but the margins are of shape \(4,\)"):
        gs.simulate(data, nets, SpectralDecoupling("cross-entropy", np.ones(3)), gs.GradientDescent(0.1), 1)
