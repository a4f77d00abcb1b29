"""Neurons that see every feature (10.7): two layers, any number of neurons, all of them moved by one Lorentz boost.

For neurons active on all samples let alpha_jk be the component of w_j along feature k, c_k = r_k sum_{S with k} p_S g(m_S).
Then d(alpha_jk)/dt = z_j c_k and dz_j/dt = sum_k alpha_jk c_k, the same linear equations for every neuron: the vectors
(alpha_j, z_j) of R^(K+1) are all multiplied by one matrix, a product of boosts along c, which needs of the neurons only
their second moments. (One feature: the hyperbolic clock (3.1).) For the starving pair

    d(beta_j)/d(alpha_j) = p_12 g(v_1 + v_2) / [p_1 g(v_1) + p_12 g(v_1 + v_2)]                                (10.7)

for every neuron at every time, whatever z_j is; that is at most p_12/(p_1 + p_12) while v_2 >= 0, and at least that while
v_2 <= 0.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.arrays import (
    check_normal_rows,
    check_normal_size,
    check_positive,
    is_concrete,
    real_arrays,
    shown,
    together,
)
from gradstarve.errors import HypothesisError
from gradstarve.problem import Loss, as_loss, with_closed_form
from gradstarve.theory.features import feature_flow
from gradstarve.theory.log_time import follow
from gradstarve.theory.piecewise import check_times


class SharedFeatures(eqx.Module):
    """Two-layer neurons that all see all samples, under gradient flow. Made by `shared_features`; t is time.

    Fields as there; relative error 1e-9 of the largest weight, for t to 1e300 (1e30 in float32, where it is 2e-5). That
    goes for derivatives too: late ones, which fall as e^-m, have no digits of their own once that is less.
    """

    types: Float[Array, "S K"]
    probabilities: Float[Array, "*batch S"]
    scales: Float[Array, "*batch K"]
    w: Float[Array, "*batch h K"]
    z: Float[Array, "*batch h"]
    loss_function: Loss

    def boost(self, t) -> Float[Array, "..."]:
        """The matrix that takes every neuron's (alpha_j, z_j) from 0 to t: [*batch, *t.shape, K+1, K+1]."""
        t = check_times(t, self.z.dtype)
        batch, size = self.z.shape[:-1], self.types.shape[1] + 1
        found = _boosts(self, t.reshape(-1))
        return found.reshape(*batch, *t.shape, size, size)

    def weights(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(alpha_jk, z_j) at t: [*batch, *t.shape, h, K] and [*batch, *t.shape, h]."""
        moved = self.boost(t)
        start = jnp.concatenate([self.w, self.z[..., None]], axis=-1)
        axes = moved.ndim - self.z.ndim - 1
        start = start.reshape(*self.z.shape[:-1], *(1,) * axes, *start.shape[-2:])
        now = jnp.einsum("...ab,...hb->...ha", moved, start, precision="highest")
        return now[..., :-1], now[..., -1]

    def features(self, t) -> Float[Array, "..."]:
        """v_k = r_k sum_j alpha_jk z_j at t, [*batch, *t.shape, K]."""
        w, z = self.weights(t)
        axes = z.ndim - self.z.ndim
        scales = self.scales.reshape(*self.scales.shape[:-1], *(1,) * axes, self.scales.shape[-1])
        return scales * jnp.einsum("...hk,...h->...k", w, z, precision="highest")


def shared_features(types, probabilities, loss: Loss | str, w, z, scales=None) -> SharedFeatures:
    """K orthogonal features learnt by h neurons active on every sample (10.7).

    `types`: [S, K], `probabilities`: [*batch, S], `scales`: [*batch, K] as in `feature_flow`; `w`: [*batch, h, K], the
    components alpha_jk along the features' unit directions, `z`: [*batch, h]. Every neuron needs z_j >= 0 and w_j.x > 0 on
    all samples, and then it keeps both; or it is zero altogether. `HypothesisError` otherwise, and for the squared loss,
    which pulls back what is above its target.

    >>> law = shared_features([[1, 0], [1, 1]], [0.5, 0.5], "cross-entropy", w=[[0.1, 0.1]], z=[0.1])
    >>> v1, v2 = law.features(1e30)
    >>> bool(v2 / v1 < 0.2)
    True
    """
    loss = with_closed_form(loss)
    w, z = real_arrays(w=w, z=z)
    if w.ndim < 2 or z.shape != w.shape[:-1]:
        raise ValueError(f"w must be [*batch, h, K] and z [*batch, h], got shapes {w.shape} and {z.shape}")
    flow = feature_flow(types, probabilities, loss, 1, scales, jnp.zeros((*z.shape[:-1], w.shape[-1]), z.dtype))
    if loss.name == "squared":
        raise HypothesisError(
            "every neuron stays active on all samples (10.7)",
            "the squared loss pushes margins above 1 back, and neurons with them",
            "simulate_flow",
        )
    _check_squares(w, z)
    if is_concrete(w) and is_concrete(z):
        seen = np.einsum("...hk,sk->...hs", np.asarray(w * flow.scales[..., None, :]), np.asarray(flow.types))
        empty = (np.asarray(w) == 0).all(-1) & (np.asarray(z) == 0)
        bad = np.argwhere(~(((seen > 0).all(-1) & (np.asarray(z) >= 0)) | empty))
        if bad.size:
            where = tuple(int(i) for i in bad[0])
            raise HypothesisError(
                "every neuron has z >= 0 and is active on all samples (10.7)",
                f"neuron {list(where)}: z = {float(z[where]):.6g}, w.x = {seen[where].tolist()}",
                "simulate_flow",
            )
    batch = flow.start.shape[:-1]
    w, z = jnp.broadcast_to(w, (*batch, *w.shape[-2:])), jnp.broadcast_to(z, (*batch, z.shape[-1]))
    return SharedFeatures(flow.types, flow.probabilities, flow.scales, w, z, loss)


def _check_squares(w: Array, z: Array) -> None:
    """The second moments of a network have to be floats: where they are 0 it would stay at the origin."""
    if is_concrete(w) and is_concrete(z):
        every = np.concatenate([np.asarray(w).reshape(*z.shape[:-1], -1), np.asarray(z)], axis=-1)
        check_normal_rows("w, z", every)
        with np.errstate(divide="ignore"):
            log_sizes = 2 * np.log(np.max(np.abs(every), axis=-1))
        check_normal_size("max |w, z|^2", log_sizes, every.dtype)


def shared_slope(p_frequent, p_both, loss: Loss | str, frequent: Any = 0.0, rare: Any = 0.0) -> Float[Array, "..."]:
    """d(beta_j)/d(alpha_j) of (10.7) at logits v_1 = `frequent` and v_2 = `rare`, for any neuron that sees both features.

    Without logits, or with v_2 = 0, it is p_12/(p_1 + p_12), which it exceeds only where v_2 < 0. All arguments broadcast.
    The increments of one step of gradient descent obey it exactly, at any step size.

    >>> float(shared_slope(0.75, 0.25, "hinge"))
    0.25
    """
    p_frequent, p_both, frequent, rare = together(p_frequent=p_frequent, p_both=p_both, frequent=frequent, rare=rare)
    check_positive("p_frequent", p_frequent)
    check_positive("p_both", p_both)
    residual = as_loss(loss).residual
    both = p_both * residual(frequent + rare)
    total = p_frequent * residual(frequent) + both
    if is_concrete(total) and bool((total == 0).any()):
        raise HypothesisError(
            "some sample still moves the neurons (10.7)",
            f"no residual is left at v_1 = {shown(frequent)}, v_2 = {shown(rare)} with loss {as_loss(loss).name!r}",
            "logits below the margin of the loss",
        )
    return both / total


class _Boost(eqx.Module):
    """dM/dt = G M, G the boost along c, which the moments M C M^T decide."""

    loss_function: Loss

    def __call__(self, boost, problem):
        types, p, r, moments = problem
        now = boost @ moments @ boost.T
        push = r * ((p * self.loss_function.residual(types @ (r * now[:-1, -1]))) @ types)
        return jnp.concatenate([push[:, None] * boost[-1], (push @ boost[:-1])[None]])


def _boosts(law: SharedFeatures, t: Array) -> Array:
    p, r, z = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (law.probabilities, law.scales, law.z))
    neurons = jnp.concatenate([law.w.reshape(-1, *law.w.shape[-2:]), z[..., None]], axis=-1)
    moments = jnp.einsum("bha,bhc->bac", neurons, neurons, precision="highest")
    start = jnp.broadcast_to(jnp.eye(neurons.shape[-1], dtype=t.dtype), moments.shape)
    problem = (jnp.broadcast_to(law.types, (*p.shape[:1], *law.types.shape)), p, r, moments)
    return follow(_Boost(law.loss_function), start, problem, t)
