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
# # 1. One class in closed form
#
# **The question.** A network with one hidden ReLU layer learns one class by gradient descent. Its weights are many, and
# they all move at once. What must we know about them to draw the whole learning curve before training?
#
# **The answer.** Two numbers of the first weights, and the product of how frequent and how long the points are. All
# neurons turn with one common *hyperbolic clock*, and the curve is a formula.
#
# The setting (two-layer ReLU networks on separable data, classes that are learnt independently of each other, sigmoidal
# curves) is that of Tachet des Combes et al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848). The formulas are this
# library's own; numbers such as (3.4) are those of its docstrings.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Math
from scipy.special import expi
from sympy import latex

import gradstarve as gs
from gradstarve.ground import COLOURS, RC

plt.rcParams.update(RC)

# %% [markdown]
# ## The setting, in five lines
#
# - All points of the class are one point $x$ of length $r$ in the direction $\hat x$; the class is the part $p$ of the
#   data.
# - Neuron $j$ has the incoming weights $w_j$ and the read-out $z_j$. Only $a_j = w_j\cdot\hat x$ matters, and only if
#   $a_j > 0$: otherwise the ReLU is off.
# - The *logit* in favour of the class is $u = r\sum_j a_j z_j$, and the probability of an error is $\sigma(-u)$, where
#   $\sigma(u) = 1/(1+e^{-u})$.
# - The loss is $\ell(u)$, and $g(u) = -\ell'(u)$ is what is still to learn: $\sigma(-u)$ for cross-entropy, and for the
#   hinge loss 1 until $u = 1$ and then 0.
# - Training is gradient flow, the limit of small steps. Time is step size × step.
#
# ## The law
#
# The gradient makes $a_j$ grow in proportion to $z_j$, and $z_j$ in proportion to $a_j$, with *one factor* $p\,r\,g(u)$
# for all neurons. Call the accumulated factor $s$, a clock. Then each neuron turns along its hyperbola $a_j^2 - z_j^2 =
# \text{const}$ by the same angle $s$, and the sum $u$ obeys an equation in which no single neuron is left:

# %%
derivation = gs.derive("mode", "cross-entropy")
Math(latex(derivation.result["du/dt"]))

# %% [markdown]
# All that is left of the neurons is the constant
# $$\kappa = \tfrac r2\sqrt{M_+ M_-},\qquad M_\pm = \sum_j (a_j \pm z_j)^2 \ \text{ at the start,}$$
# and $u = \kappa\sinh\theta$ with $\theta = 2s + \tfrac12\log(M_+/M_-)$ (3.3). Where $a_j = z_j$ for all neurons (*balanced*
# weights) $\kappa$ is 0, and then time is an explicit function of the logit (3.7), $\mathrm{Ei}$ being the exponential
# integral:

# %%
Math(latex(derivation.result["t(u) balanced"]))

# %% [markdown]
# You need not believe this. Here is the whole chain from the network to the law, and under each step how it was checked
# just now: by algebra, or at random points to 50 digits. (Two neurons stand for any number, because all sums are linear.)

# %%
assert all(result.passed for result in derivation.check())
derivation

# %% [markdown]
# ## Theory on simulation
#
# Six neurons, each with a sign and a size of its own, trained by integrating all of their weights: the simulator knows
# nothing of the law. Markers are training and lines are the formula, for both losses. On the right, each neuron moves
# along its hyperbola. The fifth starts below the dashed line $z = -a$: it is pushed out of the class and leaves it at a
# time that the law knows too (3.10). (What becomes of it then is the subject of notebook 2.)
#
# Change the numbers at the top and run the cell again: the check below it must pass whatever you choose (keep
# $u > 0$ at the start, or some neuron above the dashed line, so that something is learnt).

# %%
frequency = 0.7  # p
norm = 1.3  # r
a = np.array([0.30, 0.05, 0.20, 0.10, 0.35, 0.45])  # a_j > 0
z = np.array([0.10, 0.25, -0.10, 0.02, -0.50, 0.15])  # any sign
last = 12.0  # until this time

mode = gs.Mode(frequency, norm, a, z)
# The same as data and network: the class along the first axis, and opposite to it, with the rest of the weight, a second
# class that no neuron sees at first.
data = gs.datasets.antipodal(dim=2, norms=(norm, norm), frequencies=(frequency, 1 - frequency))
network = gs.TwoLayerReLU(w=np.stack([a, np.zeros_like(a)], axis=-1), z=z)
times = np.linspace(0, last, 25)
runs = {
    "cross-entropy": gs.simulate_flow(data, network, "cross-entropy", times, record_networks=True),
    "hinge": gs.simulate_hinge_exact(data, network, times),
}
solutions = {loss: gs.solve_mode(mode, loss) for loss in runs}
gap = max(
    float(abs(solutions[loss].logit(times) - run.margins(times)[:, 0]).max()) for loss, run in runs.items()
)
print(f"largest gap of a logit between law and training: {gap:.1e}")
print(f"neuron 5 leaves at t = {float(solutions['cross-entropy'].events[4]):.4f} (cross-entropy)")
assert gap < 1e-7

# %%
fine = np.linspace(0, last, 400)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
for loss, colour, marker in (("cross-entropy", COLOURS[0], "o"), ("hinge", COLOURS[1], "s")):
    axes[0].plot(fine, solutions[loss].logit(fine), color=colour, label=f"{loss}: law")
    margin = runs[loss].margins(times)[:, 0]
    axes[0].plot(times, margin, marker, color=colour, markerfacecolor="white", label=f"{loss}: training")
axes[0].set(xlabel="time t", ylabel="logit u", title="The class")
axes[0].legend(frameon=False)
path_a, path_z = (np.asarray(values) for values in solutions["cross-entropy"].weights(fine))
trained = runs["cross-entropy"].network()
for j in range(len(a)):
    there = path_a[:, j] > 0
    axes[1].plot(path_a[there, j], path_z[there, j], color=COLOURS[j], label=f"neuron {j + 1}")
    seen = np.asarray(trained.w[:, j, 0]) > 0
    axes[1].plot(trained.w[seen, j, 0], trained.z[seen, j], "o", color=COLOURS[j], markerfacecolor="white", markersize=4.5)
    axes[1].plot(a[j], z[j], "o", color=COLOURS[j], markersize=6)
axes[1].plot([0, 0.6], [0, -0.6], "--", color="#777777")
axes[1].annotate("z = −a", (0.6, -0.6), color="#555555", xytext=(5, -2), textcoords="offset points")
axes[1].set(xlabel="a = w · x̂", ylabel="read-out z", title="Its neurons (filled: start; cross-entropy)")
_ = axes[1].legend(frameon=False, fontsize=8.5)

# %% [markdown]
# **What to notice.** The hinge curve stops dead at $u = 1$; cross-entropy slows down, but never stops. Every neuron that
# learns runs towards $a = z$: in the end a layer and the layer behind it are equally large. The fifth neuron goes down to
# $a = 0$ and is gone from this class.
#
# ## Only two numbers of the weights count
#
# The law says (3.11): with the same $p\,r$, networks are indistinguishable in their curve if $\kappa$ and the first logit
# agree, whether they have one neuron or a hundred. So we draw networks of 1, 3, 10 and 100 neurons at random, scale their
# sums $a_j + z_j$ and differences $a_j - z_j$ so that $M_+$ and $M_-$ agree, and train them.

# %%
plus, minus = 0.12, 0.01  # M_+ and M_-, the same for all
rng = np.random.default_rng(0)
widths = (1, 3, 10, 100)
w, read_out = np.zeros((4, 100, 1)), np.zeros((4, 100))  # a neuron of zeros does nothing
for i, width in enumerate(widths):
    total, difference = rng.uniform(0.8, 1.2, width), rng.uniform(-0.4, 0.4, width)
    total *= np.sqrt(plus / (total**2).sum())
    difference *= np.sqrt(minus / (difference**2).sum())
    assert (abs(difference) < total).all()  # so that all have a > 0 and z > 0
    w[i, :width, 0], read_out[i, :width] = (total + difference) / 2, (total - difference) / 2
four = gs.simulate_flow(gs.Dataset([[1.0]], [1]), gs.TwoLayerReLU(w, read_out), "cross-entropy", times)
spread = np.ptp(np.asarray(four.margins()[..., 0]), axis=0).max()
print(f"largest difference between the curves of {', '.join(map(str, widths))} neurons: {spread:.1e}")
assert spread < 1e-7

# %% [markdown]
# With frequency and norm it is the same: at equal $\kappa$ and first logit they only change the speed of the clock, and
# all curves are one curve of $2prt$.
#
# ## Rich and lazy: what $\kappa$ does to the shape
#
# Seen as the probability of an error, a class that starts near $u = 0$ with balanced weights waits on a plateau, falls,
# and flattens out: a sigmoid. With a large $\kappa$ there is no plateau, and the error falls fastest at the start.
# Between the two lies a definite value, $\kappa_c$ (5.2). Below it the error curve has two inflections, above it none.
# (Dots: the inflections. All curves start at $u = 0$.)

# %%
critical = gs.theory.kappa_critical("cross-entropy")
print(f"kappa_c = {critical:.6f}")
assert abs(critical - 0.585212) < 1e-6
figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
angle = np.linspace(0, 14, 400)  # 2 p r t, with p = 1/2 and r = 1
for kappa, colour in zip((0.02, 0.2, critical, 2.0), COLOURS, strict=False):
    # One neuron with z = 0 starts at u = 0, and has kappa = r a^2 / 2.
    lone = gs.solve_mode(gs.Mode(0.5, 1.0, [np.sqrt(2 * kappa)], [0.0]), "cross-entropy")
    name = "κ = κ$_c$ = 0.585" if kappa == critical else f"κ = {kappa:g}"
    axis.plot(angle, lone.error(angle), color=colour, label=name)
    bends = np.asarray(lone.inflections())
    bends = bends[np.isfinite(bends)]
    assert len(bends) == (2 if kappa < critical else 0) or kappa == critical
    if kappa != critical:
        axis.plot(bends, lone.error(bends), "o", color=colour, markerfacecolor="white")
axis.set(xlabel="2 p r t", ylabel="error σ(−u)", title="Rich (small κ) and lazy (large κ) learning of one class")
_ = axis.legend(frameon=False)

# %% [markdown]
# ## How long does it take?
#
# For balanced weights the time to $u = 1$ from $u_0$ is $\log(1/u_0)/(2pr)$ with hinge loss (3.6), and
# $[\log(1/u_0) + \mathrm{Ei}(1) - \mathrm{Ei}(u_0)]/(2pr)$ with cross-entropy (3.7). Both are mostly waiting: ten times
# smaller weights cost $2\log 10$ more on the clock, no matter how small they were.

# %%
size, p, r = 0.05, 0.25, 2.0  # a = z, p, r
u0 = r * size**2
balanced = gs.Mode(p, r, [size], [size])
by_hand = {
    "hinge": np.log(1 / u0) / (2 * p * r),
    "cross-entropy": (np.log(1 / u0) + expi(1) - expi(u0)) / (2 * p * r),
}
for loss, expected in by_hand.items():
    found = float(gs.solve_mode(balanced, loss).time_to_logit(1.0))
    print(f"{loss:14s} u = 1 at t = {found:.6f}, by the formula {expected:.6f}")
    assert abs(found - expected) < 1e-9 * expected

# %% [markdown]
# ## Where the law stops
#
# Its main hypothesis is that the class lies along *one* direction. Take instead two points of one class, nearly at a
# right angle, 80 degrees, one of them with nine tenths of the weight. The library refuses to give a closed form, and
# names the pair of points:

# %%
opening = np.deg2rad(80)
bent = gs.Dataset([[1.0, 0.0], [np.cos(opening), np.sin(opening)]], [1, 1], [0.9, 0.1])
start = gs.TwoLayerReLU(w=[[0.1, 0.0], [0.0, 0.1]], z=[0.1, 0.1])
try:
    gs.solve(bent, start, "cross-entropy")
except gs.HypothesisError as error:
    print(error)
else:
    raise AssertionError("the closed form should have been refused")

# %% [markdown]
# It is right to. We train on this class, and compare each point with the curve that it would have if it were alone in
# its class: with its own weight $p$ and with the neurons as they see it. Each point's curve is changed by the other:

# %%
later = np.linspace(0, 60, 31)
together = gs.simulate_flow(bent, start, "cross-entropy", later)
figure, axis = plt.subplots(figsize=(6, 3.8), layout="constrained")
off = []
for i, (name, colour) in enumerate((("frequent point", COLOURS[0]), ("rare point", COLOURS[1]))):
    direction = np.asarray(bent.points[i])
    alone = gs.solve_mode(gs.Mode(bent.weights[i], 1.0, start.w @ direction, start.z), "cross-entropy")
    smooth = np.linspace(0, 60, 300)
    axis.plot(smooth, alone.logit(smooth), color=colour, label=f"{name}: law of it alone")
    margin = np.asarray(together.margins()[:, i])
    axis.plot(later, margin, "o", color=colour, markerfacecolor="white", label=f"{name}: trained together")
    off.append(abs(margin - np.asarray(alone.logit(later))).max())
axis.set(xlabel="time t", ylabel="margin", title="Points of one class at 80°: no longer one mode", ylim=(-0.3, 9))
axis.legend(frameon=False, loc="upper left")
print(f"largest gap: frequent point {off[0]:.2f}, rare point {off[1]:.2f}")
assert off[1] > 1

# %% [markdown]
# The rare point is learnt much sooner than alone, because the neurons that the frequent one has made large see it too.
# (When sharing helps and when it harms is the subject of notebook 5.)
#
# A second limit: this is the law of *gradient flow*. Descent with a finite step has an exact law of its own (8.1), in
# notebook 6.
#
# ## Exercises
#
# 1. Predict, without running anything, by how much the hinge curve of the first figure moves if $p$ and $r$ are both
#    halved and all weights are multiplied by $\sqrt 2$. Then try it. (What happens to $u_0$, to $\kappa$, to $pr$?)
# 2. A neuron with $z < -a$ leaves at the clock time $s$ with $\tanh s = a/|z|$. Find weights for which a neuron leaves
#    before its class is learnt with hinge loss, and others for which it would leave too late and stays.
# 3. Take `gs.derive("mode", "squared")` and read off $u(t)$ for balanced weights. It is the logistic curve known from
#    deep linear networks. At which error does it have its inflection, and why not at 0.29 as cross-entropy does?
