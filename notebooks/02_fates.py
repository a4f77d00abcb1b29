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
# # 2. Fates of neurons, and training that fails
#
# **The question.** Two classes can be separated by a single neuron each, and the network has more neurons than that.
# Still gradient descent at times never learns one of the two classes, however long it runs. Which networks fail, and how
# often?
#
# **The answer.** The first weights decide. Each neuron is on one side or the other of a line, $z = -a$, and nothing in
# training ever moves it across. A class fails if no neuron is on its side.
#
# That training fails in this way is one of the phenomena of Tachet des Combes et al.,
# [arXiv:1809.06848](https://arxiv.org/abs/1809.06848), whose setting this is. The formulas are this library's own, with
# the numbers of its docstrings. If you have not read notebook 1: $a = w\cdot\hat x$ is how strongly a neuron sees its
# class, $z$ its read-out, $p$ the frequency of the class, $r$ the length of its points.

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
# ## One neuron in its plane
#
# A neuron that sees a class with label + obeys $\dot a = p r g\, z$ and $\dot z = p r g\, a$ with $g \ge 0$. Hence $a +
# z$ only grows if it is positive, and only falls if it is negative: its sign is fixed for ever. With $a > 0$ that means
# (4.1)
#
# - $z > -a$: the neuron *learns*, $a$ and $z$ end up both positive;
# - $z < -a$: it *leaves*: $a$ falls to zero in a finite time.
#
# What happens to a leaver depends on the other class. If that is orthogonal, the leaver is active on no point of the data
# and no gradient reaches it any more: it is *dead*. If the other class is opposite, at $-\hat x$, it switches on there at
# the very moment it switches off here, and has the right sign for it. The maps show where a single neuron ends, for a
# start anywhere in the plane, for both losses; with the hinge loss each pixel is a training, followed event by event
# (12.1).

# %%
pixels = 60  # a side
neuron = gs.phase_diagram(("cross-entropy", "hinge"), "neuron", pixels=pixels)
print(neuron.table())
a, z = np.meshgrid(neuron.axes["a"], neuron.axes["z"])
# Trained with hinge loss against the laws: every pixel agrees.
assert (neuron.maps["hinge"]["antipodal_end"] == gs.theory.antipodal_fate(a, z)).all()
assert ((neuron.maps["hinge"]["orthogonal_end"] == 1) == (gs.theory.exclusive_fate(a, z) == 1)).all()
neuron.plot()

# %% [markdown]
# **What to notice.** The border $z = -a$ is the same for both losses and both geometries; only what lies beyond it
# differs. Close to the border everything takes long: such neurons creep past the saddle at the origin.

# %% [markdown]
# ## How many neurons die?
#
# For orthogonal classes, take neurons that see one class, with Gaussian weights: $a$ of standard deviation $\sigma_a$
# (cut to $a > 0$) and $z$ of $\sigma_z$. The directions of $(a, z)$ above the line $z = -a$ fill an angle of $\pi/2 +
# \arctan(\sigma_a/\sigma_z)$ of the half plane's $\pi$, in units in which the two deviations are equal. So a neuron
# learns with the probability (4.2)
# $$\pi_L = \tfrac12 + \tfrac1\pi\arctan\frac{\sigma_a}{\sigma_z},$$
# three quarters for equal scales. Here it is on single trained neurons:

# %%
ratios = np.array([0.1, 0.3, 1.0, 3.0, 10.0])  # sigma_a / sigma_z
neurons = 1000  # for each
rng = np.random.default_rng(0)
w = np.abs(rng.normal(size=(len(ratios), neurons))) * ratios[:, None]
z = rng.normal(size=w.shape)
lone = gs.TwoLayerReLU(w=w[..., None, None], z=z[..., None])
run = gs.simulate_hinge_exact(gs.Dataset([[1.0]], [1]), lone)
learnt = np.asarray(run.final(run.data.points))[..., 0] > 0.5
share = learnt.mean(axis=1)
law = np.asarray(gs.theory.learning_probability(ratios, 1.0))
noise = np.sqrt(law * (1 - law) / neurons)
for ratio, found, expected in zip(ratios, share, law, strict=True):
    print(f"sigma_a / sigma_z = {ratio:4.1f}: {found:.3f} of {neurons} learn, law {expected:.3f}")
assert (abs(share - law) < 4 * noise).all()
assert float(gs.theory.learning_probability()) == 0.75

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
smooth = np.geomspace(0.05, 20, 200)
axis.plot(smooth, gs.theory.learning_probability(smooth, 1.0), color=COLOURS[0], label="law (4.2)")
axis.errorbar(
    ratios, share, 2 * noise, fmt="o", color=COLOURS[1], markerfacecolor="white", label=f"{neurons} trained neurons each"
)
axis.set(xscale="log", xlabel="$σ_a / σ_z$", ylabel="part of neurons that learn", ylim=(0.45, 1.02))
_ = axis.legend(frameon=False, loc="lower right")

# %% [markdown]
# ## Opposite classes: no neuron dies, and training fails with probability $2^{-h}$
#
# With opposite classes every neuron ends in class + if $a + z > 0$, with $a = w\cdot\hat x_+$ of either sign, and in
# class − if $a + z < 0$. For weights drawn symmetrically each of the $h$ neurons tosses a fair coin. A class is never
# learnt if all of them fall on the other side: with probability $2^{-h}$, whatever $p$, $r$ and the scale are (4.3). Both
# classes cannot fail together.
#
# We train networks of 1 to 6 neurons by gradient descent with cross-entropy. Neurons that are not there are zeros. The
# law speaks of each single network, so we compare them one by one.

# %%
most = 6  # neurons
networks = 1000  # of each width
scale = 0.01  # standard deviation of w and z
data = gs.datasets.antipodal(dim=2, frequencies=(0.5, 0.5))
full = gs.init_two_layer(jax.random.key(1), (most, networks), most, 2, scale, scale)
there = np.arange(most) < np.arange(1, most + 1)[:, None, None]
start = gs.TwoLayerReLU(w=np.where(there[..., None], full.w, 0), z=np.where(there, full.z, 0))
trained = gs.simulate(data, start, "cross-entropy", gs.GradientDescent(0.5), steps=10_000, record_every=10_000)
failed = np.asarray(trained.margins()[..., -1, :]) <= 0  # [width, network, class]

fate = np.asarray(gs.theory.antipodal_fate(start.w[..., 0], start.z))
predicted = np.stack([(fate != 1).all(axis=-1), (fate != -1).all(axis=-1)], axis=-1)
late = (failed & ~predicted).sum()
print(f"predicted to fail but learnt: {(predicted & ~failed).sum()}")
print(f"predicted to learn but not there after 10,000 steps: {late} of {failed.size}")
for h in range(1, most + 1):
    chance = gs.theory.class_failure_probability(h)
    print(f"h = {h}: class + not learnt by {failed[h - 1, :, 0].mean():.3f}, class − by "
          f"{failed[h - 1, :, 1].mean():.3f}, 2^-h = {chance:.3f}")
    assert abs(predicted[h - 1].mean() - chance) < 4 * np.sqrt(chance / networks / 2)
assert not (predicted & ~failed).any()
assert late == 0
assert not predicted.all(axis=-1).any()

# %% [markdown]
# Each network did what its signs say. (With a larger start some would be *late*: their last hope is a neuron that has to
# leave the other class first and has not got there yet; see exercise 3.) That brings us to the loss.
#
# ## The hinge loss fails more often
#
# A neuron leaves a class when the class's clock has run far enough. Cross-entropy always has something left to learn, so
# its clock never stops (but it slows down, like $\log\log t$ at the end). With the hinge loss the clock stops when the
# margin is 1, and whoever has not left by then never will: it sits in a class that has no use for it, while the other
# class may have no neuron.
#
# Two neurons show it. Both see class +. One has the right sign. The other should be handed over to class −. (With
# cross-entropy the training is descent with step size 0.1, for which the library has an exact law too, that of notebook
# 6.)

# %%
own, other = (0.8, 0.8), (0.5, -1.0)  # (a, z) of the two neurons
pair = gs.TwoLayerReLU(w=[[own[0], 0.0], [other[0], 0.0]], z=[own[1], other[1]])
last, eta = 60.0, 0.1
times = np.linspace(0, last, 31)
steps = np.rint(times / eta).astype(int)
descent = gs.GradientDescent(eta)
hinge = gs.simulate_hinge_exact(data, pair, times)
entropy = gs.simulate(data, pair, "cross-entropy", descent, steps=steps[-1], record_every=steps[1])
trained = {"hinge": hinge.margins(times), "cross-entropy": entropy.margins(steps)}
exact = {"hinge": gs.solve(data, pair, "hinge"), "cross-entropy": gs.solve(data, pair, "cross-entropy", descent)}
fine = np.arange(0, steps[-1] + 1, 2)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
for axis, loss in zip(axes, exact, strict=True):
    law = np.asarray(exact[loss].margins(times if loss == "hinge" else steps))
    assert abs(law - np.asarray(trained[loss])).max() < 1e-9
    lines = exact[loss].margins(fine * eta if loss == "hinge" else fine)
    for i, (sign, colour, marker) in enumerate((("+", COLOURS[0], "o"), ("−", COLOURS[1], "s"))):
        axis.plot(fine * eta, lines[:, i], color=colour, label=f"class {sign}: law")
        axis.plot(times, trained[loss][:, i], marker, color=colour, markerfacecolor="white", label="training")
    axis.set(xlabel="time t", title=f"{loss} loss")
axes[0].set(ylabel="margin")
axes[0].legend(frameon=False)
print("events with the hinge loss:", *hinge.events.of(), sep="\n  ")
leaves = float(gs.solve_mode(gs.Mode(0.5, 1.0, [own[0], other[0]], [own[1], other[1]]), "cross-entropy").events[1])
print(f"with cross-entropy the second neuron changes class at t = {leaves:.2f}")
assert float(hinge.margins(60.0)[1]) == 0
assert float(entropy.margins(steps[-1])[1]) > 1

# %% [markdown]
# So the hinge loss fails more often than $2^{-h}$, and the more so the larger the first weights are: large
# weights reach the margin early, before the leavers have left. The figure counts failures of class − over the width
# of the network, with one thing changed in each column: the angle between the classes, $\sigma_z/\sigma_w$, the frequency
# and the scale. The grey band is $2^{-h}$.

# %%
failure = gs.phase_diagram(
    ("cross-entropy", "hinge"), "failure", width=6, networks=400, cosines=(-1.0, -0.6), ratios=(0.25, 4.0), shares=(0.1, 0.9)
)
chance = 0.5 ** failure.axes["width"]
within = {}
for loss, found in failure.maps.items():
    within[loss] = ((found["scale_low"] <= chance) & (chance <= found["scale_high"])).mean(axis=1)
    print(f"{loss:14s} at sigma = 0.1, 0.5, 2: 2^-h inside the 95 % interval at {within[loss]} of the widths")
large = failure.maps["hinge"]["scale_failed"][-1, -1] / 400
print(f"hinge, sigma = 2, h = 6: {large:.3f} fail, against 2^-6 = {chance[-1]:.3f}")
assert failure.maps["hinge"]["scale_low"][-1, -1] > chance[-1]
assert within["cross-entropy"].mean() > 0.8
for panel in ("angle", "ratio"):
    assert (failure.maps["hinge"][f"{panel}_failed"] == failure.maps["cross-entropy"][f"{panel}_failed"]).all()
failure.plot()

# %% [markdown]
# **What to notice.** In the upper row the markers are on their lines. In the lower row the two columns on the right leave
# the grey band. There (4.3) does not hold: its hypothesis, that the clock of every class gets as far as the leavers need,
# is broken by a loss that stops. In the two columns on the left the start is so small that nearly all leavers are gone in
# time, and hinge fails no more often than cross-entropy.
#
# ## At an obtuse angle, some die and some wake
#
# Between orthogonal ($\cos = 0$, leavers die) and opposite ($\cos = -1$, leavers always wake) lies a rule (4.4). A neuron
# on class − with a read-out of the wrong sign, $\beta = w\cdot\hat x_- > 0$ and $\alpha = w\cdot\hat x_+ \le 0$, leaves
# with $\alpha + |c|\,\beta$ on class +, $c$ the cosine: it wakes there if that is positive and is dead if not. On 500
# single neurons:

# %%
cosine = -0.6
sine = np.sqrt(1 - cosine**2)
obtuse = gs.Dataset([[1.0, 0.0], [cosine, sine]], [1, -1])
rng = np.random.default_rng(1)
w = rng.normal(size=(4000, 2))
z = np.abs(rng.normal(size=4000))
alpha, beta = w[:, 0], w @ [cosine, sine]
chosen = np.flatnonzero((alpha <= 0) & (beta > 0) & (z > beta))[:500]
ends = gs.simulate_hinge_exact(obtuse, gs.TwoLayerReLU(w=w[chosen, None], z=z[chosen, None]))
dead = (abs(np.asarray(ends.final(obtuse.points))) < 1e-6).all(axis=-1)
expected = np.asarray(gs.theory.dies_for_ever(alpha[chosen], beta[chosen], cosine))
print(f"{dead.sum()} of {len(chosen)} die, {expected.sum()} by the rule; {(dead != expected).sum()} differ")
assert (dead == expected).all()

# %% [markdown]
# ## Where the laws stop
#
# - With the hinge loss a network fails more often than its signs say, as you saw: (4.3) holds for losses that never stop.
# - At an obtuse angle the rule (4.4) is about one neuron. Once a neuron is awake on both classes, these pull at it
#   together and the modes are not independent any more; then `gs.simulate` is the tool.
# - At an *acute* angle nothing is left of the argument, because the gradient of one class can move a neuron against the
#   wish of the other, and the sign of $a + z$ is not kept. Here is a neuron that sees a rare class + and has the right
#   sign for it, $a + z > 0$. The frequent class − at 29 degrees sweeps it away:

# %%
acute = gs.Dataset([[1.0, 0.0], [np.cos(0.5), np.sin(0.5)]], [1, -1], [0.2, 0.8])
hopeful = gs.TwoLayerReLU(w=[[0.3, 0.2]], z=[0.1])
swept = gs.simulate(
    acute, hopeful, "cross-entropy", gs.GradientDescent(0.05), 2000, record_every=500, record_networks=True
).network()
a, z = np.asarray(swept.w[:, 0, 0]), np.asarray(swept.z[:, 0])
margin = float(swept(acute.points)[-1, 0])
print(f"a + z of class + from {a[0] + z[0]:.2f} to {a[-1] + z[-1]:.2f}; its margin at the end {margin:.3f}")
assert min(a[0], z[0]) > 0
assert a[-1] + z[-1] < -1
assert margin < 0.01

# %% [markdown]
# ## Exercises
#
# 1. How wide must a network be so that cross-entropy fails to learn one of two opposite classes in fewer than one run in
#    a thousand? (Either class may fail.) Check your answer with `gs.theory.class_failure_probability`.
# 2. In the example of two neurons, find the read-out of the second neuron at which the hinge loss just lets it go. (The
#    clock needs $\tanh s = a/|z|$; the class is done at $u = 1$.)
# 3. Change `scale` to 0.5 in the cell that trains networks of 1 to 6 neurons. Which of the two printed counts changes,
#    which cannot, and why?
