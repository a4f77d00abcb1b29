# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 11. Large steps, noise and decay: what moves κ
#
# **The question.** Gradient flow keeps a number of each mode, $\kappa = \frac r2\sqrt{M_+ M_-}$,
# $M_\pm = \sum_j (a_j \pm z_j)^2$. It decides between lazy learning (large $\kappa$: the kernel hardly changes) and
# rich learning (notebook 1). Training is no flow. What do large steps, noise in the labels and weight decay do to it?
#
# **The answer.** One formula: a step multiplies $\kappa$ by $|(1-\eta\lambda)^2 - (x g)^2|$ with $x = \eta p r$ and
# the residual $g$. Where training comes to rest, $g = 0$, nothing happens. Where it swings, at the edge of stability,
# or where noise keeps $g$ alive, $\kappa$ falls: towards flat minima. Weight decay does the same from everywhere.
#
# The setting is that of Tachet des Combes et al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848); catapults are
# named after Lewkowycz et al., [arXiv:2003.02218](https://arxiv.org/abs/2003.02218). Formulas with a number are this
# library's own. You need `pip install '.[notebooks]'`.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

import gradstarve as gs
from gradstarve.ground import COLOURS, RC
from gradstarve.studies.stability import mode_of, network_of, stability_study

plt.rcParams.update(RC)
BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
TRAINED = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "white"}

# %% [markdown]
# ## 1. One factor a step
#
# `network_of` draws a network with a given $\kappa$ and logit $u$; the rest of its weights are random. We train it
# with squared loss, $g = 1 - u$, in large steps, $x = 0.4$, and hold $\kappa_{k+1}/\kappa_k$ against
# $|1 - x^2 g_k^2|$ (19.1).

# %%
x = 0.4
networks, unit = network_of(np.random.default_rng(0), kappa=[3.0], u=[0.9], width=8, dim=5)
data = gs.Dataset(unit[None], [1])
run = gs.simulate(data, networks, "squared", gs.GradientDescent(x), 60, record_networks=True)
u, kappa = (v[0] for v in mode_of(run.networks, unit))
factor = abs(1 - (x * (1 - u[:-1])) ** 2)
print("largest distance of the factors:", abs(kappa[1:] / kappa[:-1] - factor).max())
assert abs(kappa[1:] / kappa[:-1] - factor).max() < 1e-13

law_u, law_kappa = gs.theory.kappa_path(1.0, 1.0, 3.0, 0.9, "squared", x, steps=60)
assert abs(u - law_u).max() < 1e-11
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for axis, exact, found, name in ((axes[0], law_u, u, "logit u"), (axes[1], law_kappa, kappa, "κ")):
    axis.plot(exact, color=BLUE, linewidth=1, label="law")
    axis.plot(found, color=VERMILLION, label="a network in training", **TRAINED)
    axis.set(xlabel="step", ylabel=name)
axes[1].axhline(float(gs.theory.edge_of_stability(1.0, 1.0, "squared", x)), color="black", linestyle="--", linewidth=1)
axes[1].text(60, 2.33, "edge of stability", ha="right")
_ = axes[0].legend()

# %% [markdown]
# **What to notice.** The logit swings about its rest $u = 1$, more and more widely. The swings lower $\kappa$; once
# it is below the dashed line they die out, and $\kappa$ stays where it is.
#
# ## 2. The dashed line is $2/\eta$
#
# Descent holds a minimum if the largest curvature of the loss there is below $2/\eta$. A mode's curvature at its rest
# is $2 p r\,|g'|\sqrt{\kappa^2 + u^2}$ (19.1), so a large $\kappa$ is a sharp minimum, and the edge is at
# $x\,|g'|\sqrt{\kappa^2 + u^2} = 1$ (19.3). Here is the Hessian of the whole network, with no law in it, at the start
# and at the end:


# %%
def sharpness(network):
    """The largest eigenvalue of the Hessian of the loss over all weights."""
    flat, rebuild = ravel_pytree(network)

    def loss(weights):
        return jnp.sum((1 - rebuild(weights)(data.points)) ** 2) / 2

    return float(np.linalg.eigvalsh(np.asarray(jax.hessian(loss)(flat)))[-1])


curvatures = []
for value in (3.0, float(kappa[-1])):
    at_rest, _ = network_of(np.random.default_rng(0), kappa=[value], u=[1.0], width=8, dim=5)
    curvatures.append(sharpness(at_rest[0]))
    exact = float(gs.theory.squared_gradient_norm(1.0, value, 1.0))
    print(f"κ = {value:.4f}: largest curvature {curvatures[-1]:.6f}, law {exact:.6f}, 2/η = {2 / x:.1f}")
    assert abs(curvatures[-1] - exact) < 1e-9
assert curvatures[0] > 2 / x > curvatures[1]
assert abs(sharpness(run.final[0]) - curvatures[1]) < 1e-6

# %% [markdown]
# ## 3. Catapults: the further above the edge, the flatter the end
#
# Start at various $\kappa$ and look where descent comes to hold. Below the edge nothing moves. Just above it the
# swings stop just below. Far above, they throw $\kappa$ far down.

# %%
starts = np.linspace(0.2, 3.6, 120)
some = starts[::8]
trained, unit = network_of(np.random.default_rng(1), kappa=some, u=0.9, width=8, dim=5)
ends = gs.simulate(gs.Dataset(unit[None], [1]), trained, "squared", gs.GradientDescent(x), 2000, record_every=2000).final
_, found = mode_of(ends, unit)
_, exact = gs.theory.kappa_path(1.0, 1.0, starts, 0.9, "squared", x, steps=2000)
edge = float(gs.theory.edge_of_stability(1.0, 1.0, "squared", x))
assert abs(found - exact[::8, -1]).max() < 1e-9
assert float(exact[:, -1].max()) < edge
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
axis.plot(starts, exact[:, -1], color=BLUE, label="law")
axis.plot(some, found, color=VERMILLION, label="networks trained", **TRAINED)
axis.axhline(edge, color="black", linestyle="--", linewidth=1, label=f"edge, κ = {edge:.3f}")
axis.set(xlabel="κ at the start", ylabel="κ after 2000 steps", ylim=(0, 3))
_ = axis.legend(loc="upper left")

# %% [markdown]
# ## 4. Cross-entropy has no edge
#
# Its residual never changes sign, so there is no rest to swing about. For one mode with $u > 0$ every term of
# $u_{k+1} = u\,(1 + x^2 g^2) + 2xg\sqrt{\kappa^2 + u^2}$ is positive: the logit rises at *any* step size (19.2).

# %%
steps = 40
for size in (0.5, 5.0, 50.0):
    u, _ = gs.theory.kappa_path(1.0, 1.0, 2.0, 0.1, "cross-entropy", size, steps=steps)
    print(f"step size {size:4.1f}: u = {u[0]:.2f}, {u[1]:.2f}, {u[2]:.2f}, ..., {u[-1]:.2f}")
    assert (np.diff(np.asarray(u)) >= 0).all()

# %% [markdown]
# ## 5. All of it in the plane of κ and u
#
# `gradstarve stability` draws this figure: swings and catapults; fresh noise on the labels, which never lets $g$ be
# zero, so that $\kappa$ falls in every step (19.4); and weight decay, which leads every mode from lazy to rich, at
# $t = \log(\kappa_0/\kappa_c)/(2\lambda)$ (19.5).

# %%
study = stability_study(progress=False)
print(study.table())
assert max(line.gap for line in study.lines) < 1e-12
study.plot()

# %% [markdown]
# ## 6. Where the law ends
#
# The law holds while no neuron changes its activity; $|xg| < 1$ assures that. A swing that is larger turns $a_j$
# negative: the neuron is off the class, and no gradient brings it back. One step too large, and the whole network is
# dead.

# %%
u, _ = gs.theory.kappa_path(1.0, 1.0, 4.8, 0.9, "squared", x, steps=30)
swing = float(abs(x * (1 - u)).max())
large, unit = network_of(np.random.default_rng(2), kappa=[4.8], u=[0.9], width=8, dim=5)
run = gs.simulate(gs.Dataset(unit[None], [1]), large, "squared", gs.GradientDescent(x), 30, record_networks=True)
active = (np.asarray(run.networks.w)[0] @ unit > 0).sum(axis=-1)
print(f"largest |x g| by the law: {swing:.2f}; neurons active, step by step: {active.tolist()}")
assert swing > 1
assert active[0] == 8
assert active[-1] < 8

# %% [markdown]
# ## Exercises
#
# 1. Which $\kappa$ at the start ends flattest for $x = 0.4$? Compare with the $\kappa$ at which $1 - x^2g^2$ vanishes
#    once.
# 2. The label noise of section 5 has mean zero. Why does $\kappa$ fall twice as fast in log if the noise is $\sqrt2$
#    times as large, while steps are small?
# 3. Weight decay also drags the logit: below which $\lambda$ is a class learnt at all? (`gs.theory.decay_threshold`)
