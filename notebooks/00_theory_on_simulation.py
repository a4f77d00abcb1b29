# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Theory on simulation, in five minutes
#
# One class of weight $p$ at distance $r$, neurons $a_j = w_j\cdot\hat x$ and $z_j$: all of them share one hyperbolic
# clock, and the logit obeys $\dot u = 2 p r\, g(u)\sqrt{\kappa^2 + u^2}$. That is the whole learning curve of a class,
# for any number of neurons. Here it is next to training.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import gradstarve as gs

# %% [markdown]
# ## The problem: two opposite classes, one frequent and one rare

# %%
data = gs.datasets.antipodal(dim=5, norms=(1.0, 1.0), frequencies=(0.8, 0.2), key=jax.random.key(0))
networks = gs.init_two_layer(jax.random.key(1), batch=256, width=8, dim=5, scale_w=0.05, scale_z=0.05)
print(data.separability().explain())

# %% [markdown]
# ## Descent, solved and trained
#
# For gradient descent the law is an equality: the gap is rounding, not a small step size.

# %%
dynamics = gs.GradientDescent(step_size=0.3)
solution = gs.solve(data, networks, "cross-entropy", dynamics)
trajectory = gs.simulate(data, networks, "cross-entropy", dynamics, steps=400, record_every=4)
comparison = gs.compare(solution, trajectory)
print(comparison.table())
assert comparison.gap < 1e-10
comparison.plot()

# %% [markdown]
# ## What sets the speed
#
# Time enters as $2 p r t$: a class four times as frequent is learnt four times as fast, and a class that hinge loss
# learns is done at $u = 1$ while cross-entropy goes on for ever.

# %%
for loss in ("cross-entropy", "hinge"):
    for frequency in (0.8, 0.2):
        mode = gs.Mode(frequency, 1.0, a=[0.05], z=[0.05])
        solved = gs.solve_mode(mode, loss)
        print(f"{loss:14s} p = {frequency}:  u = 0.99 at t = {float(solved.time_to_logit(0.99)):6.2f}")

# %% [markdown]
# ## Some neurons never learn
#
# A neuron with $z < -a$ leaves its class at a known time. On antipodal data the other class takes it up, and the sign of
# $a + z$ says where it ends.

# %%
axis = data.points[0] / np.linalg.norm(data.points[0])
a, z = np.asarray(networks.w @ axis), np.asarray(networks.z)
fate = np.asarray(gs.theory.antipodal_fate(a, z))
never = [int((fate != y).all(axis=1).sum()) for y in (1, -1)]
print(f"class + never learnt by {never[0]}, class - by {never[1]} of 256 networks; 2^-h predicts {256 / 2**8:.0f} each")

# %% [markdown]
# ## Where the formulas come from

# %%
derivation = gs.derive("mode", "hinge")
for step in derivation.checked_steps:
    print(f"{step.name:28s} {step.method}")
