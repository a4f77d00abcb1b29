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
# # 3. Hinge against cross-entropy: a loss that stops
#
# **The question.** The same network learns the same class from the same start, once with the hinge loss and once with
# cross-entropy. Which is faster, by how much, and what becomes of the class afterwards?
#
# **The answer.** Hinge is twice as fast from a small start, and then it stops, at a margin of 1. Cross-entropy goes on
# for ever, but ever more slowly. Stopping has consequences: margins that are *held* at 1, and discriminators (as in GANs)
# that keep on telling their generator something.
#
# The setting and the observations (hinge learns faster; what that may mean for GANs) are those of Tachet des Combes et
# al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848). The formulas are this library's own, with the numbers of its
# docstrings. As in notebook 1, $u$ is the logit in favour of a class, $p$ its frequency, $r$ the length of its points,
# and time is step size × step.

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
# ## The race
#
# All that the loss does to a class is one function, $g(u) = -\ell'(u)$, how hard it pulls:
#
# | | $g(u)$ | at $u = 0$ | time to $u = 1$, balanced weights ($a = z$), from $u_0$ |
# |---|---|---|---|
# | hinge | 1 until $u = 1$, then 0 | 1 | $\log(1/u_0) / 2pr$ (3.6) |
# | cross-entropy | $1/(1+e^{u})$ | 1/2 | $[\log(1/u_0) + \mathrm{Ei}(1) - \mathrm{Ei}(u_0)] / 2pr$ (3.7) |
#
# Most of the time is spent near $u = 0$, and there hinge pulls twice as hard. Lines are the law, markers training: for
# cross-entropy by integrating all weights, for hinge from event to event.

# %%
frequency, norm = 0.5, 1.0  # p, r
size = 0.05  # a = z of one neuron at the start
early, late = np.linspace(0, 40, 33), np.geomspace(60, 1e5, 17)

times = np.concatenate([early, late])
data = gs.datasets.antipodal(norms=(norm, norm), frequencies=(frequency, 1 - frequency))
network = gs.TwoLayerReLU(w=[[size, 0.0]], z=[size])
trained = {
    "cross-entropy": gs.simulate_flow(data, network, "cross-entropy", times).margins()[:, 0],
    "hinge": gs.simulate_hinge_exact(data, network, times).margins()[:, 0],
}
mode = gs.Mode(frequency, norm, [size], [size])
law = {loss: gs.solve_mode(mode, loss) for loss in trained}
for loss, margins in trained.items():
    done = float(law[loss].time_to_logit(1.0))
    gap = float(abs(law[loss].logit(times) - margins).max())
    print(f"{loss:14s} u = 1 at t = {done:6.3f}; largest gap of a logit {gap:.1e}")
    assert gap < 1e-7

# %%
LOOKS = {"cross-entropy": (COLOURS[0], "o"), "hinge": (COLOURS[1], "s")}
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
fine = np.linspace(0, early[-1], 500)
for loss, (colour, marker) in LOOKS.items():
    axes[0].plot(fine, law[loss].logit(fine), color=colour, label=f"{loss}: law")
    axes[0].plot(early, trained[loss][: len(early)], marker, color=colour, markerfacecolor="white", label="training")
axes[0].set(xlabel="time t", ylabel="logit u", title="The race to u = 1, and on")
axes[0].legend(frameon=False)
long = np.geomspace(1, times[-1], 300)
for loss, (colour, marker) in LOOKS.items():
    axes[1].plot(long, law[loss].error(long), color=colour)
    error = 1 / (1 + np.exp(np.asarray(trained[loss])))
    few = np.r_[1 : len(early) : 4, len(early) : len(times)]
    axes[1].plot(times[few], error[few], marker, color=colour, markerfacecolor="white", markersize=4.5)
tail = long[long > 100]
axes[1].plot(tail, gs.theory.error_tail(frequency, norm, "cross-entropy", tail), "k--", label="tail (6.3)")
axes[1].set(xscale="log", yscale="log", xlabel="time t", ylabel="error σ(−u)", title="The error, for long")
_ = axes[1].legend(frameon=False)

# %% [markdown]
# **What to notice.** Hinge wins the race to $u = 1$, and stays there with the error $\sigma(-1) = 0.27$: every point has
# the right sign, but the network never becomes more certain. The error of cross-entropy goes to zero like $1/(T\log T)$
# with $T = 2prt$, no faster (6.3). The dashed line is its sharper form, where $e$ solves $e\,T\log(1/e) = 1$.

# %%
last = float(law["cross-entropy"].error(1e5) / gs.theory.error_tail(frequency, norm, "cross-entropy", 1e5))
print(f"hinge: error {float(law['hinge'].error(1e5)):.4f} for ever")
print(f"cross-entropy: error {float(law['cross-entropy'].error(1e5)):.2e} at t = 100,000, {last:.3f} times the tail")
assert abs(float(law["hinge"].error(1e5)) - 0.2689) < 1e-4
assert abs(last - 1) < 0.1

# %% [markdown]
# ## How much faster, exactly? And where "twice" stops being true
#
# From balanced weights the ratio of the two times to $u = 1$ is (6.2)
# $$\frac{\log(1/u_0) + \mathrm{Ei}(1) - \mathrm{Ei}(u_0)}{\log(1/u_0)},$$
# whatever $p$ and $r$ are. It tends to 2 for small starts, but slowly. And "twice" is a statement about small starts:
# from $u_0$ close to 1 the ratio is that of the pulls at $u = 1$, namely $1 + e$. In the *lazy* case, large $a$ with $z =
# 0$, the logit rises at a speed that hardly changes but for $g$, and the ratio tends to $\int_0^1 (1 + e^u)\,du = e$.
#
# Each marker is a pair of trainings. For hinge we read the time from its event. With cross-entropy we train for exactly
# as long as the law says, and look whether the margin is 1.

# %%
sizes = np.array([1e-3, 1e-2, 0.1, 0.5])  # a, and z = a: balanced
lazy_sizes = np.array([1e-2, 0.3, 1.5, 5.0])  # a, and z = 0
a = np.concatenate([sizes, lazy_sizes])[:, None]
z = np.concatenate([sizes, 0 * lazy_sizes])[:, None]
many = gs.TwoLayerReLU(w=a[..., None], z=z)
one_class = gs.Dataset([[1.0]], [1])
to_one = {loss: np.asarray(gs.solve_mode(gs.Mode(1.0, 1.0, a, z), loss).time_to_logit(1.0)) for loss in LOOKS}
events = gs.simulate_hinge_exact(one_class, many).events
order = np.argsort(to_one["cross-entropy"])
flow = gs.simulate_flow(one_class, many, "cross-entropy", to_one["cross-entropy"][order])
reached = np.asarray(flow.margins())[order, np.arange(len(order)), 0]
print(f"margins after the times of the law: 1 up to {abs(reached - 1).max():.1e}")
assert abs(reached - 1).max() < 1e-6
assert abs(events.time[:, 0] - to_one["hinge"]).max() < 1e-9
ratio = to_one["cross-entropy"] / events.time[:, 0]

figure, axis = plt.subplots(figsize=(6, 3.9), layout="constrained")
smooth = np.geomspace(3e-4, 0.97, 200)
axis.plot(smooth, gs.theory.hinge_advantage(smooth**2), color=COLOURS[0], label="balanced, z = a: law (6.2)")
axis.plot(sizes, ratio[: len(sizes)], "o", color=COLOURS[0], markerfacecolor="white", label="trained")
smooth = np.geomspace(3e-4, 8, 200)[:, None]
lazy = [gs.solve_mode(gs.Mode(1.0, 1.0, smooth, 0 * smooth), loss).time_to_logit(1.0) for loss in ("cross-entropy", "hinge")]
axis.plot(smooth[:, 0], lazy[0] / lazy[1], color=COLOURS[1], label="z = 0: law (3.5)")
axis.plot(lazy_sizes, ratio[len(sizes) :], "s", color=COLOURS[1], markerfacecolor="white", label="trained")
for level, name in ((2, "2"), (np.e, "e"), (1 + np.e, "1 + e")):
    axis.axhline(level, color="#8A8A8A", linestyle=":", linewidth=0.9)
    axis.annotate(name, (10, level), xytext=(0, 3), textcoords="offset points", color="#555555", ha="right")
axis.set(xscale="log", xlabel="first weight a (r = 1)", ylabel="time of cross-entropy / time of hinge")
axis.legend(frameon=False, loc="upper center")
assert abs(float(gs.theory.hinge_advantage(1e-300)) - 2) < 0.01
assert abs(ratio[-1] - np.e) < 0.01

# %% [markdown]
# Speed is not all: as notebook 2 showed, hinge pays with more failed trainings, because a class that has stopped
# keeps neurons that another class may be waiting for.
#
# ## Margins that are held at 1
#
# When classes share no neuron, a hinge margin goes to 1 and rests. With an obtuse angle between the classes a neuron can
# see *both*, and then something new happens: the class at margin 1 is pulled down by the other, falls below 1, pulls back
# at once, and so on, infinitely fast. In the limit of small steps its margin *slides*: it is held at 1 by a part of its
# pull, between 0 and all of it, that balances the other class. No step size is small enough for that, but it can be
# followed exactly (12.1). `simulate_hinge_exact` tells what happens in words:

# %%
angle = np.deg2rad(135)
obtuse = gs.Dataset([[1.0, 0.0], [np.cos(angle), np.sin(angle)]], [1, -1], [0.7, 0.3])
shared = gs.TwoLayerReLU(w=[[-0.08, 0.07], [0.08, -0.41], [0.44, 0.46]], z=[-0.04, 0.14, -0.33])
exact = gs.simulate_hinge_exact(obtuse, shared)
print(*exact.events.of(), sep="\n")
kinds = [line.split("is ")[-1] if "held" in line else "" for line in exact.events.of()]
assert any("held at 1" in kind for kind in kinds)
held, freed = float(exact.events.time[1]), float(exact.events.time[2])

# %%
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", width_ratios=(3, 2))
at = np.linspace(0, 9, 361)
margins = np.asarray(exact.margins(at))
for i, (sign, colour) in enumerate((("+", COLOURS[0]), ("−", COLOURS[1]))):
    axes[0].plot(at, margins[:, i], color=colour, label=f"class {sign}, exact")
axes[0].axvspan(held, freed, color="#DDDDDD", zorder=0, label="class + is held at 1")
close = (at > held - 0.3) & (at < freed + 0.5)
axes[1].plot(at[close], margins[close, 0], color=COLOURS[0], label="exact")
furthest = []
for eta, colour in ((0.1, COLOURS[4]), (0.01, COLOURS[2])):
    steps = round(9 / eta)
    descent = gs.simulate(obtuse, shared, "hinge", gs.GradientDescent(eta), steps)
    t, m = np.arange(steps + 1) * eta, np.asarray(descent.margins()[:, 0])
    shown = (t > held - 0.3) & (t < freed + 0.5)
    axes[1].plot(t[shown], m[shown], ".-", color=colour, markersize=3, linewidth=0.8, label=f"descent, step size {eta:g}")
    furthest.append(abs(m[(t > held + 0.2) & (t < freed)] - 1).max())
axes[0].set(xlabel="time t", ylabel="margin", title="Two classes at 135° with a neuron in common")
axes[0].legend(frameon=False)
axes[1].set(xlabel="time t", title="Class + while it is held", ylim=(0.9, 1.1))
axes[1].legend(frameon=False)
print(f"while held, descent strays from 1 by {furthest[0]:.3f} (step size 0.1) and {furthest[1]:.3f} (0.01)")
assert np.all(abs(margins[(at > held) & (at < freed), 0] - 1) < 1e-9)
assert furthest[1] < furthest[0] / 2

# %% [markdown]
# **What to notice.** Descent jumps over the margin by up to a step's worth, drifts back, and jumps again; smaller steps
# jump less far, and the limit is the held margin. During all that time class − is learnt *against* class +, which pays
# with part of its pull. (This is outside of the closed form of notebook 1, whose modes are independent: `gs.solve`
# refuses such networks.)
#
# ## Discriminators
#
# Let class + be real data and class − what a generator makes. The discriminator tells the generator where to go: the
# slope of the generator's loss at the fakes, along their direction. A network without biases is proportional along a
# direction, so its slope there is margin over length, $m/r$, and what the generator gets is (15.1)
#
# | generator's loss | signal |
# |---|---|
# | minimax, $\log(1-P)$ | $\sigma(-m)\,m/r$ |
# | non-saturating, $-\log P$ | $\sigma(m)\,m/r$ |
# | hinge, $-f$ | $m/r$ |
#
# where $P$ is the probability of "real" and $m$ is how well the fakes are seen through. Training only enters through
# $m(t)$. We train a discriminator with each loss and differentiate the generator's loss by autodiff (markers); the lines
# are the law, with $m(t)$ from the closed form.

# %%
r, eta, last = 1.5, 0.1, 20_000  # length of real and fake points; step size and steps with cross-entropy
fakes = gs.datasets.antipodal(dim=3, norms=(r, r), key=jax.random.key(3))
critic = gs.init_two_layer(jax.random.key(4), (), width=8, dim=3, scale_w=0.1, scale_z=0.1)
entropy = gs.simulate(fakes, critic, "cross-entropy", gs.GradientDescent(eta), last, record_every=10, record_networks=True)
hinge = gs.simulate_hinge_exact(fakes, critic, np.geomspace(0.5, last * eta, 24), record_networks=True)

GENERATOR = {
    "minimax": lambda f: -jax.nn.softplus(f),  # log(1 - P), P = sigmoid(f)
    "non-saturating": lambda f: jax.nn.softplus(-f),  # -log P
    "hinge": lambda f: -f,
}


@jax.jit
def signals(network):
    """The slope of each of the generator's losses at the fake, along its direction, by autodiff."""
    x = fakes.points[1]
    slopes = jax.jacobian(lambda x: {kind: loss(network(x[None])[0]) for kind, loss in GENERATOR.items()})(x)
    return {kind: abs(slope @ x) / r for kind, slope in slopes.items()}


# %%
figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
chosen = np.unique(np.rint(np.geomspace(10, last, 22) / 10).astype(int) * 10)  # of the recorded steps
steps = np.union1d(chosen, np.rint(np.geomspace(5, last, 300)).astype(int))
margin = np.asarray(gs.solve(fakes, critic, "cross-entropy", gs.GradientDescent(eta)).margins(steps))[:, 1]
places = np.searchsorted(steps, chosen)
found = [signals(entropy.network(int(k))) for k in chosen]
for kind, colour, marker in (("minimax", COLOURS[0], "o"), ("non-saturating", COLOURS[2], "^")):
    axis.plot(steps * eta, abs(gs.theory.generator_signal(r, kind, margin)), color=colour, label=f"cross-entropy, {kind}")
    sizes = np.array([float(one[kind]) for one in found])
    axis.plot(chosen * eta, sizes, marker, color=colour, markerfacecolor="white")
    assert abs(sizes - abs(np.asarray(gs.theory.generator_signal(r, kind, margin[places])))).max() < 1e-9
line = np.unique(np.append(np.geomspace(0.5, last * eta, 300), hinge.grid))
stopped = gs.solve(fakes, critic, "hinge")
axis.plot(
    line, abs(gs.theory.generator_signal(r, "hinge", stopped.margins(line)[:, 1])), color=COLOURS[1], label="hinge, hinge"
)
sizes = np.array([float(signals(hinge.network(float(t)))["hinge"]) for t in hinge.grid])
axis.plot(hinge.grid, sizes, "s", color=COLOURS[1], markerfacecolor="white")
assert abs(sizes[-1] - 1 / r) < 1e-9
expected = abs(np.asarray(gs.theory.generator_signal(r, "hinge", stopped.margins(hinge.grid)[:, 1])))
assert abs(sizes - expected).max() < 1e-9
axis.set(xscale="log", yscale="log", ylim=(1e-4, 300), xlabel="time t", ylabel="size of the signal")
axis.set(title="What a discriminator passes on")
axis.legend(frameon=False, fontsize=8.5, loc="upper left", title="discriminator's loss, generator's")
peak = float(gs.theory.minimax_peak())
minimax = np.asarray(gs.theory.generator_signal(r, "minimax", margin))
print(f"the minimax signal is largest at margin {margin[minimax.argmax()]:.3f}; law {peak:.5f}")
print(f"at the end it is {minimax[-1] / minimax.max():.4f} of that; the hinge signal is 1/r = {1 / r:.4f}")
assert abs(peak - 1.27846) < 1e-5
assert abs(margin[minimax.argmax()] - peak) < 0.1
assert minimax[-1] < 0.02 * minimax.max()

# %% [markdown]
# **What to notice.** A discriminator trained with cross-entropy until it is sure is useless to a minimax generator: the
# signal peaks at the margin 1.278 (where $m\,\sigma(m) = 1$) and then dies like $1/T$. The hinge discriminator stops at
# margin 1, short of that peak, and hands on $1/r$ for ever. (All of this is for one fixed generator: the game of the two
# is more than these curves.)
#
# ## Exercises
#
# 1. What would the ratio of the two times be for a target of $u = 1/2$ instead of 1, from very small starts? And
#    from $u_0$ close to $1/2$?
# 2. Change the frequencies of the two classes at 135°. Which class is held, and for which frequencies is none?
# 3. The non-saturating signal grows without end with cross-entropy. How fast? (Take $m(t)$ from the tail of the error,
#    $m \approx \log(1/e)$.)
