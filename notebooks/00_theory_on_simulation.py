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
# A network with one hidden ReLU layer, $f(x) = \sum_j z_j\,(w_j\cdot x)_+$, learns two classes. The setting is that of
# Tachet des Combes et al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848); the formulas are this library's own.
#
# Take one class: the points $x = r\,\hat x$ with the part $p$ of the data. Of a neuron that sees it only
# $a_j = w_j\cdot\hat x > 0$ and $z_j$ matter, and its logit is $u = r\sum_j a_j z_j$. With $g = -\ell'$, the
# *residual* of the loss $\ell$, all neurons share one hyperbolic clock, and
#
# $$\dot u = 2\,p\,r\,g(u)\sqrt{\kappa^2 + u^2} \tag{3.4}$$
#
# with a constant $\kappa = \tfrac r2\sqrt{M_+ M_-}$, $M_\pm = \sum_j (a_j \pm z_j)^2$ at the start. That is the whole
# learning curve of a class, for any number of neurons. Here it is next to training; notebook 1 derives it.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import numpy as np

import gradstarve as gs

# %% [markdown]
# ## The problem: two opposite classes, one frequent and one rare

# %%
frequencies = (0.8, 0.2)  # of class + and class -, with sum 1
batch, width, scale = 256, 4, 0.05  # networks, neurons of each, and the standard deviation of all weights
step_size, steps = 0.3, 400

data = gs.datasets.antipodal(dim=5, norms=(1.0, 1.0), frequencies=frequencies, key=jax.random.key(0))
networks = gs.init_two_layer(jax.random.key(1), batch, width, dim=5, scale_w=scale, scale_z=scale)
print(data.separability().explain())

# %% [markdown]
# ## Descent, solved and trained
#
# For gradient descent there is a law of its own (8.1), and it is an equality: the gap between it and training is rounding,
# however large the step.

# %%
dynamics = gs.GradientDescent(step_size)
solution = gs.solve(data, networks, "cross-entropy", dynamics)
trajectory = gs.simulate(data, networks, "cross-entropy", dynamics, steps, record_every=4)
comparison = gs.compare(solution, trajectory)
print(comparison.table())
assert comparison.gap < 1e-10
comparison.plot()

# %% [markdown]
# ## What sets the speed
#
# Time enters as $2 p r t$: a class that is four times as frequent is learnt four times as fast. Hinge loss is about twice as
# fast as cross-entropy, whose residual $g$ is 1/2 at the start and not 1; it is done at $u = 1$, and cross-entropy goes on
# for ever.

# %%
for loss in ("cross-entropy", "hinge"):
    for frequency in frequencies:
        mode = gs.Mode(frequency, 1.0, a=[0.05], z=[0.05])
        solved = gs.solve_mode(mode, loss)
        print(f"{loss:14s} p = {frequency}:  u = 0.99 at t = {float(solved.time_to_logit(0.99)):6.2f}")

# %% [markdown]
# ## Some neurons never learn
#
# A neuron with $z < -a$ leaves its class at a known time (3.10). Between opposite classes the other one takes it up, and the
# sign of $a + z$, $a = w\cdot\hat x_+$, says where it ends (4.3). A class without a neuron at the end is never learnt: with
# $h$ neurons that happens with probability $2^{-h}$.

# %%
axis = data.points[0] / np.linalg.norm(data.points[0])
a, z = np.asarray(networks.w @ axis), np.asarray(networks.z)
fate = np.asarray(gs.theory.antipodal_fate(a, z))
ends = np.asarray(trajectory.margins())[:, -1]
for k, (name, label) in enumerate((("+", 1), ("−", -1))):
    never = (fate != label).all(axis=1)
    expected = batch * float(gs.theory.class_failure_probability(width))
    print(f"class {name}: {never.sum()} of {batch} networks never learn it, 2^-{width} predicts {expected:.0f}; ", end="")
    print(f"after training {(ends[:, k] <= 0).sum()} have no margin there")
    assert (ends[never, k] <= 0).all()

# %% [markdown]
# ## Where the formulas come from
#
# From the network, step by step, in SymPy; each step is checked by algebra or at random points to 50 digits.

# %%
derivation = gs.derive("mode", "hinge")
for step in derivation.checked_steps:
    print(f"{step.name:28s} {step.method}")

# %% [markdown]
# ## Exercises
#
# 1. Predict how many steps the rare class needs if its frequency is halved, then change `frequencies` and look. By what
#    factor does the frequent class become faster, and why is it not two?
# 2. How wide must the networks be so that you expect less than one of the `batch` never to learn class +? Change `width` and
#    count.
