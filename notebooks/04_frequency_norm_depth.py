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
# # 4. Frequency, norm, depth: what sets the speed
#
# **The question.** A class is half as frequent as another, or its points are half as long, or the network has one more
# layer. How much longer does the class take?
#
# **The answer.** With two layers, time goes as $1/(p\,r)$, $p$ the frequency and $r$ the length of the points. With $N$
# layers it goes as $1/(p\,r^{2/N})$, and the deeper the network, the longer it waits and the more suddenly it learns.
#
# That frequent and long classes are learnt first is an observation of Tachet des Combes et al.,
# [arXiv:1809.06848](https://arxiv.org/abs/1809.06848), whose setting this is. The formulas are this library's own, with
# the numbers of its docstrings. $u$ is the logit in favour of the class and $\sigma(-u)$ its error, as in notebook 1.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np

import gradstarve as gs
from gradstarve.ground import COLOURS, RC

plt.rcParams.update(RC)

# %% [markdown]
# ## Two layers: $1/(p\,r)$
#
# In the law of a class, $\dot u = 2pr\,g(u)\sqrt{\kappa^2+u^2}$ (3.4), frequency and length stand in front, as a factor
# of time. So the time to a given error is a function of the start alone, divided by $2pr$ (6.1). An error $e$ means the
# logit $\log((1-e)/e)$: 4.6 for one per cent.
#
# The check: ordinary networks of 6 neurons on two opposite classes, trained by gradient descent, with the frequency of
# class + between 5 and 95 %. Lines are $1/p$; each marker is a training, and reads off the first step with an error below
# 1 %.

# %%
target = 0.01  # error to reach
norm = 1.0  # r
eta, steps = 0.05, 9000
frequencies = np.array([0.05, 0.1, 0.2, 0.4, 0.7, 0.95])

network = gs.TwoLayerReLU(w=[[0.05, 0.0]] * 3 + [[-0.05, 0.0]] * 3, z=[0.05, 0.02, 0.02, -0.05, -0.02, -0.02])
measured, exact = {}, {}
for loss in ("cross-entropy", "hinge"):
    # Hinge stops at u = 1: the time to there.
    level = float(gs.theory.confident_logit(target)) if loss == "cross-entropy" else 1 - 1e-9
    measured[loss] = []
    for p in frequencies:
        data = gs.datasets.antipodal(norms=(norm, norm), frequencies=(p, 1 - p))
        margin = np.asarray(gs.simulate(data, network, loss, gs.GradientDescent(eta), steps).margins()[:, 0])
        measured[loss].append(eta * np.argmax(margin >= level))
    mode = gs.Mode(1.0, norm, network.w[:3, 0], network.z[:3])
    exact[loss] = float(gs.solve_mode(mode, loss).time_to_logit(level))  # for p = 1
    off = np.array(measured[loss]) * frequencies / exact[loss] - 1
    print(f"{loss:14s} time x p = {exact[loss]:.3f}; trainings differ by {100 * abs(off).max():.1f} % at most")
    assert abs(off).max() < 0.1

# %%
figure, axis = plt.subplots(figsize=(5.8, 3.8), layout="constrained")
smooth = np.geomspace(0.04, 1, 50)
for loss, colour, marker in (("cross-entropy", COLOURS[0], "o"), ("hinge", COLOURS[1], "s")):
    name = "error 1 %" if loss == "cross-entropy" else "u = 1"
    axis.plot(smooth, exact[loss] / smooth, color=colour, label=f"{loss}, {name}: law 1/p")
    axis.plot(frequencies, measured[loss], marker, color=colour, markerfacecolor="white", label="trained")
axis.set(xscale="log", yscale="log", xlabel="frequency p", ylabel="time t", title="The time to learn a class")
_ = axis.legend(frameon=False)

# %% [markdown]
# **What to notice.** The slope is −1 over a factor of twenty, for both losses. The few per cent that trainings differ are
# the finite step; the law of descent (8.1), notebook 6, has them too.
#
# **A trap.** Twice the length is half the time *at the same first logit*. With the same first *weights* it is less than
# half, because the first logit $u_0 = r\sum_j a_j z_j$ doubles too, and the class starts further along:

# %%
small = 0.05
for r in (1.0, 2.0):
    same_weights = gs.solve_mode(gs.Mode(0.5, r, [small], [small]), "cross-entropy").time_to_error(0.01)
    same_logit = gs.theory.time_to_confidence(0.5, r, small**2, "cross-entropy", 0.01)
    print(f"r = {r:.0f}: same first weights t = {float(same_weights):7.3f}, same first logit t = {float(same_logit):7.3f}")
    if r == 1.0:
        before = float(same_weights), float(same_logit)
assert abs(float(same_logit) / before[1] - 0.5) < 1e-9
assert float(same_weights) / before[0] < 0.5

# %% [markdown]
# ## Depth
#
# Now a path of $N$ layers with one weight each, all equal at the start (*balanced*), $u = r\,b_1\cdots b_N$. Then (7.1)
# $$\dot u = N\,p\,r^{2/N}\,u^{2-2/N}\,g(u).$$
# $N = 1$ is a linear read-out, the only one that moves from $u = 0$; it has the closed form $u = C - W(e^C)$ with
# Lambert's $W$ (3.9). $N = 2$ is the law of above. For $N \ge 3$ the factor $u^{2-2/N}$ makes the start slower and the
# rise steeper. Lines are the law, markers are ReLU networks of that depth, with all weights integrated.

# %%
frequency, norm, first = 0.5, 1.0, 0.05  # p, r, u(0)
depths = (1, 2, 3)

figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
worst = 0.0
for depth, colour, marker in zip(depths, COLOURS, "os^", strict=False):
    weights = np.full(depth, (first / norm) ** (1 / depth))
    law = gs.theory.depth_mode(frequency, norm, weights, "cross-entropy")
    last = 4 * float(law.time_to_logit(1.0)) if depth > 1 else 40.0
    times = np.linspace(0, min(last, 40.0), 17)
    chain = gs.DeepReLU.chain(weights, [1.0, 0.0])
    # Orthogonal classes: a linear read-out would learn opposite ones as if they were a single class.
    data = gs.datasets.orthogonal(norms=(norm, norm), frequencies=(frequency, 1 - frequency))
    trained = np.asarray(gs.simulate_flow(data, chain, "cross-entropy", times).margins()[:, 0])
    fine = np.linspace(0, 40, 400)
    lines, at_times = np.split(np.asarray(law.logit(np.append(fine, times))), [len(fine)])
    axes[0].plot(fine, 1 / (1 + np.exp(lines)), color=colour, label=f"N = {depth}")
    axes[0].plot(times, 1 / (1 + np.exp(trained)), marker, color=colour, markerfacecolor="white", markersize=5)
    worst = max(worst, abs(trained - at_times).max())
    lengths = np.geomspace(0.25, 4, 9)
    starts = (first / lengths[:, None]) ** (1 / depth) * np.ones(depth)
    to_one = np.asarray(gs.theory.depth_mode(frequency, lengths, starts, "cross-entropy").time_to_logit(1.0))
    slope = np.polyfit(np.log(lengths), np.log(to_one), 1)[0]
    axes[1].plot(lengths, to_one, color=colour, label=f"N = {depth}: slope −{-slope:.3f}")
    assert abs(slope + 2 / depth) < 1e-6
axes[0].set(xlabel="time t", ylabel="error σ(−u)", title="Deeper: later and steeper (lines: law)")
axes[1].set(xscale="log", yscale="log", xlabel="length r", ylabel="time to u = 1", title="Law, the same first logit for all")
axes[1].set_xticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
axes[1].minorticks_off()
for axis in axes:
    axis.legend(frameon=False)
print(f"largest gap of a logit between law and training: {worst:.1e}")
assert worst < 1e-5

# %% [markdown]
# **What to notice.** On the right the slopes are $-2/N$: the deeper the network, the less the length of a point matters,
# while the frequency matters as $1/p$ at every depth. And a read-out alone has no plateau at all.
#
# How long is the wait for a small start? The integral of (7.1) says: for two layers $\log(1/u_0)$, and for three or more
# a power, $u_0^{-(1-2/N)}$. With the hinge loss it is all in closed form, because $u^{2/N-1}$ is linear in time:

# %%
print("first logit   " + "".join(f"{f'N = {n}':>12s}" for n in (2, 3, 4)))
waits = {}
for u0 in (1e-2, 1e-4, 1e-6):
    waits[u0] = [
        float(gs.theory.depth_mode(1.0, 1.0, np.full(n, u0 ** (1 / n)), "hinge").time_to_logit(1.0)) for n in (2, 3, 4)
    ]
    by_hand = [np.log(1 / u0) / 2] + [(u0 ** (2 / n - 1) - 1) / (n - 2) for n in (3, 4)]
    assert np.allclose(waits[u0], by_hand, rtol=1e-9)
    print(f"{u0:11.0e}   " + "".join(f"{wait:12.2f}" for wait in waits[u0]))
assert abs(waits[1e-4][0] - waits[1e-2][0] - 2.3) < 0.01
assert waits[1e-6][2] / waits[1e-4][2] > 10

# %% [markdown]
# A start a hundred times smaller costs two layers 2.3 more, and multiplies the time of four layers by ten or more.
#
# ## Where the law stops
#
# (7.1) is for *balanced* weights. The differences $b_l^2 - b_k^2$ are conserved, so an unbalanced path stays so for ever,
# and it has another law, (7.2), which the library solves as well. Take three layers with the same first logit, once
# balanced and once with two large weights and one small one:

# %%
balanced, lopsided = np.full(3, 0.05 ** (1 / 3)), np.array([1.0, 1.0, 0.05])
times = np.linspace(0, 20, 21)
data = gs.datasets.antipodal()
both = gs.DeepReLU.chain(np.stack([balanced, lopsided]), [1.0, 0.0])
trained = np.asarray(gs.simulate_flow(data, both, "cross-entropy", times).margins()[..., 0])
figure, axis = plt.subplots(figsize=(5.8, 3.8), layout="constrained")
fine = np.linspace(0, 20, 300)
for i, (weights, name) in enumerate(((balanced, "balanced (7.1)"), (lopsided, "weights 1, 1, 0.05 (7.2)"))):
    law = gs.theory.depth_mode(0.5, 1.0, weights, "cross-entropy")
    lines, at_times = np.split(np.asarray(law.logit(np.append(fine, times))), [len(fine)])
    axis.plot(fine, lines, color=COLOURS[i], label=f"{name}: law")
    axis.plot(times, trained[i], "os"[i], color=COLOURS[i], markerfacecolor="white", label="trained")
    assert abs(trained[i] - at_times).max() < 1e-5
axis.set(xlabel="time t", ylabel="logit u", title="Three layers, the same first logit")
axis.legend(frameon=False)
apart = abs(trained[0] - trained[1]).max()
print(f"largest difference between the two trainings: {apart:.2f}")
assert apart > 1

# %% [markdown]
# The unbalanced one behaves like a read-out: its small weight does the learning, and there is no plateau. Second, (7.1)
# is about one path. In a fully connected deep network paths share weights, and the exponent of $r$ need not be $-2/N$.
# And third, with momentum, Adam or normalised gradients, time is not step size × step any more.
#
# ## Exercises
#
# 1. A class has 1 % of the data. By which factor must its points be stretched for it to be learnt as soon as one with 50
#    %, with 2 layers and with 4, at the same first logit?
# 2. The slopes in the right panel are for the time to $u = 1$. Would they be others for an error of $10^{-4}$? (Look at
#    where $r$ stands in (7.1).)
# 3. With the same first *weights* instead of the same first logit, which depth profits most from longer points? Change
#    the cell of the depths and see.
