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
# # 5. Gradient starvation, and what helps
#
# **The question.** A rare feature would classify every sample that shows it, all by itself. But each of these samples
# also shows a frequent feature. How much of the rare one is learnt?
#
# **The answer.** Little, and the rest next to never. The frequent feature has made its samples right before the rare one
# is under way, and right samples pull no more: the rare feature *starves*. Depth makes it worse. Of the remedies that
# come to mind, changing the weights of the samples helps, and several others do not.
#
# Gradient starvation was described, and named so, by Tachet des Combes et al.,
# [arXiv:1809.06848](https://arxiv.org/abs/1809.06848); spectral decoupling, the logit penalty below, is due to Pezeshki
# et al., [arXiv:2011.09468](https://arxiv.org/abs/2011.09468). The formulas are this library's own, with the numbers of
# its docstrings.

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
# ## The starving pair
#
# Two features $e_1$, $e_2$ at a right angle. A sample shows the first alone, with frequency $p_1$, or both, $p_{12}$; all
# have the same label, and $q = p_1/p_{12}$. A linear read-out carries the logits $v_1$ and $v_2$, and a sample with both
# features has the margin $v_1 + v_2$, so that (10.1)
# $$\dot v_1 = p_1\,g(v_1) + p_{12}\,g(v_1+v_2), \qquad \dot v_2 = p_{12}\,g(v_1+v_2).$$
# *Alone*, with feature 1 wiped out of the samples, feature 2 would obey $\dot v_2 = p_{12}\,g(v_2)$ and learn everything.
# From zero:
#
# - hinge (10.3): $v_2$ freezes at $1/(2+q)$ at $t = 1/(p_1 + 2p_{12})$, and never moves again;
# - exponential loss (10.2): $v_1 = v_2 + q\,(e^{v_2}-1)$: while $v_1$ grows like $\log t$, $v_2$ grows like $\log\log t$;
# - cross-entropy (10.4): $v_1 + q - W(q\,e^{q+v_1}) \le v_2 \le v_1/(1+q)$ at every time, with Lambert's $W$.

# %%
p_frequent, p_both = 0.8, 0.2  # p_1, p_12
last = 200.0

q = p_frequent / p_both
data = gs.datasets.starving_pair(p_frequent, p_both)
read_out = gs.DeepReLU((np.zeros(2),))
times = np.concatenate([[0.0], np.geomspace(0.2, last, 16)])
fine = np.geomspace(0.2, last, 300)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained", sharey=True)
for axis, loss in zip(axes, ("hinge", "cross-entropy"), strict=True):
    pair = gs.theory.starving_pair(p_frequent, p_both, loss)
    logits = gs.simulate(data, read_out, loss, gs.GradientDescent(0.002), round(last / 0.002), record_every=100).logits()
    nearest = np.rint(times / 0.2).astype(int)
    shown = np.asarray(logits)[nearest]
    trained = shown[:, 0], shown[:, 1] - shown[:, 0]  # v_1, v_2
    lines = pair.features(fine)
    for k, (colour, marker) in enumerate(((COLOURS[0], "o"), (COLOURS[1], "s"))):
        axis.plot(fine, lines[k], color=colour, label=f"feature {k + 1}: law")
        axis.plot(0.2 * nearest[1:], trained[k][1:], marker, color=colour, markerfacecolor="white", label="trained")
        gap = abs(trained[k] - np.asarray(pair.features(0.2 * nearest)[k])).max()
        assert gap < 5e-3, gap
    axis.plot(fine, pair.flow.alone(fine)[..., 1], "--", color=COLOURS[1], label="feature 2 if it were alone")
    axis.set(xscale="log", xlabel="time t", title=f"{loss} loss")
axes[0].set(ylabel="logit of the feature")
axes[0].legend(frameon=False)
when, where = gs.theory.starving_pair(p_frequent, p_both, "hinge").freeze
print(f"hinge: feature 2 freezes at {float(where):.4f} at t = {float(when):.4f}")
assert abs(float(where) - 1 / (2 + q)) < 1e-12
assert abs(float(when) - 1 / (p_frequent + 2 * p_both)) < 1e-12

# %% [markdown]
# **What to notice.** With $q = 4$ feature 2 gets a sixth of the margin with hinge, and alone it would get all of it. With
# cross-entropy nothing freezes, but the gap to the dashed line opens for ever. As a number: the *starvation index*
# $1 - v_2/v_2^{\text{alone}}$ (10.6), 0 for a feature that is not harmed, 1 for one that is not learnt.
#
# ## Between two curves
#
# Both bounds of (10.4) know $q$ alone. So leave out time and frequencies, and draw $v_2/v_1$ against $v_1$: how much of the
# rare feature there is beside so much of the frequent one.

# %%
spots = np.geomspace(0.12, 2e4, 22)
smooth = np.geomspace(0.05, 1e5, 600)


def bounds(v1):
    """(least, most) that v_2 can be, by (10.4)."""
    return v1 + q - np.asarray(gs.special.lambertw(q * np.exp(q + v1))), v1 / (1 + q)


reach = np.geomspace(0.1, 10, 200)
figure, axis = plt.subplots(figsize=(6.8, 4), layout="constrained")
least, most = (bound / reach for bound in bounds(reach))
axis.fill_between(reach, least, most, color="#E4E4E4", linewidth=0)
axis.plot(reach, most, "--", color="black", linewidth=1.3, label="most: $v_2 = v_1/(1+q)$")
axis.plot(reach, least, ":", color="black", linewidth=3, label="least: $v_2 = v_1+q-W(q e^{q+v_1})$")
styles = {"exponential": (COLOURS[2], "^"), "cross-entropy": (COLOURS[1], "s"), "hinge": (COLOURS[0], "o")}
for loss, (colour, marker) in styles.items():
    v1, v2 = gs.theory.starving_pair(p_frequent, p_both, loss).features(smooth)
    axis.plot(v1, v2 / v1, color=colour, linewidth=1.2, label=f"{loss}: law")
    logits = np.asarray(gs.simulate_flow(data, read_out, loss, spots).logits())
    v1, v2 = logits[:, 0], logits[:, 1] - logits[:, 0]
    axis.plot(v1, v2 / v1, marker, color=colour, markerfacecolor="white", markersize=5, label="trained")
    least, most = bounds(v1)
    assert (v2 < most + 1e-7).all()
    if loss == "cross-entropy":
        assert (v2 > least).all()
    if loss == "exponential":
        assert abs(v2 - least).max() < 1e-6  # it is the lower bound
axis.set(xscale="log", xlim=(0.1, 10), xlabel="logit of the frequent feature, $v_1$", ylim=(0.09, 0.21), ylabel="$v_2/v_1$")
axis.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
_ = axis.legend(frameon=False, loc="lower left")

# %% [markdown]
# **What to notice.** All losses begin at the upper bound, where both kinds of samples still pull alike. Hinge is on it
# until feature 2 freezes; then $v_1$ goes on to 1 without it, and through the lower bound, which is none for hinge. The
# exponential loss *is* the lower curve. Cross-entropy lies between the two and comes down to the lower one, because late
# in training it is an exponential loss itself.
#
# ## Depth makes it worse
#
# Now one path of $N$ layers for each feature, balanced, from small equal starts $v_1 = v_2 = \varepsilon$. Features compete
# for time, and depth turns a head start into everything (10.5):
# $$N = 2:\quad v_2 \le \varepsilon\,(v_1/\varepsilon)^{1/(1+q)}, \qquad
#   N \ge 3:\quad v_2 \le \varepsilon\,(1 + 1/q)^{N/(N-2)}\ \text{ for ever.}$$
# The comparison is fair if feature 1 is equally far, so $v_2$ and the index are drawn against $v_1$. Markers: paths of ReLU
# neurons, trained. Dotted: the most that $v_2$ can be.

# %%
start = 0.05  # v_1 = v_2 at the start, for N >= 2
times = np.concatenate([np.linspace(0, 60, 13)[1:], np.geomspace(80, 2000, 6)])
fine = np.geomspace(0.05, 2000, 400)
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
final, rare_at_four = {}, {}
for depth, colour, marker in zip((1, 2, 3), COLOURS, "os^", strict=False):
    init = None if depth == 1 else (start, start)
    pair = gs.theory.starving_pair(p_frequent, p_both, "cross-entropy", depth=depth, init=init)
    weights = np.full((depth, 2), 0.0 if depth == 1 else start ** (1 / depth))
    paths = gs.DeepReLU.paths(weights, features=[0, 1], dim=2)
    logits = np.asarray(gs.simulate_flow(data, paths, "cross-entropy", times).logits())
    v1, v2 = logits[:, 0], logits[:, 1] - logits[:, 0]
    lines = [np.asarray(v) for v in (*pair.features(fine), pair.index(fine)[1])]
    axes[0].plot(lines[0], pair.bounds(fine)[1], ":", color=colour)
    index = 1 - v2 / np.asarray(pair.flow.alone(times)[..., 1])
    for axis, line, found in ((axes[0], lines[1], v2), (axes[1], lines[2], index)):
        axis.plot(lines[0], line, color=colour, label=f"N = {depth}: law")
        axis.plot(v1, found, marker, color=colour, markerfacecolor="white", markersize=5)
    assert abs(v2 - np.asarray(pair.features(times)[1])).max() < 1e-6
    final[depth], rare_at_four[depth] = float(pair.index(times[-1])[1]), np.interp(4.0, lines[0], lines[1])
    print(f"N = {depth}: v_2 = {rare_at_four[depth]:.3f} when v_1 = 4; at t = {times[-1]:.0f} v_2 = {v2[-1]:.4f} of at most "
          f"{float(pair.ceiling):.4g}, index {final[depth]:.3f}")
axes[0].set(yscale="log", ylabel="logit of the rare feature, $v_2$", ylim=(0.03, 2))
axes[1].set(ylabel="starvation index of feature 2", ylim=(0, 1.03))
for axis in axes:
    axis.set(xlabel="logit of the frequent feature, $v_1$")
axes[1].legend(frameon=False, loc="lower right")
assert rare_at_four[1] > rare_at_four[2] > rare_at_four[3]
assert final[1] < final[2] < final[3]
assert v2[-1] < start * (1 + 1 / q) ** 3  # the ceiling of N = 3

# %% [markdown]
# **What to notice.** On the left, at any $v_1$ a deeper network has less of the rare feature (after the start, where the
# deep ones have been given a little of both). On the right the index says so in the end, but not at first: alone, a rare
# feature of a deep network would still be waiting on its plateau, so that there is not yet anything to be starved of.

# %% [markdown]
# ## Ordinary neurons
#
# In an ordinary two-layer network a neuron sees both features. Such neurons are starved less than paths of their own, but
# they cannot escape either: for each of them, whatever the weights, the component along feature 2 grows by at most
# $p_{12}/(p_1+p_{12})$ of what the component along feature 1 grows (10.7), as long as $v_2 \ge 0$.

# %%
ordinary = gs.TwoLayerReLU(w=np.random.default_rng(0).uniform(0.02, 0.3, (6, 2)), z=np.linspace(0.05, 0.3, 6))
walk = gs.simulate(
    data, ordinary, "cross-entropy", gs.GradientDescent(0.05), 4000, record_every=20, record_networks=True
).network()
alpha, beta = np.asarray(walk.w[..., 0]), np.asarray(walk.w[..., 1])
steepest = (np.diff(beta, axis=0) / np.diff(alpha, axis=0)).max()
print(f"largest d(beta)/d(alpha) of a neuron: {steepest:.4f}; bound {p_both / (p_frequent + p_both):.4f}")
assert steepest <= p_both / (p_frequent + p_both) + 1e-9

# %% [markdown]
# ## Remedies
#
# What would help? We train 64 ordinary networks of 16 neurons from random starts under each remedy, with cross-entropy,
# and test them on samples that show one feature alone, in Gaussian noise of standard deviation 1/2 in both coordinates.
# (A network that relies on feature 1 drowns in *its* noise where only feature 2 is there to be seen.)

# %%
networks, width, eta, steps = 64, 16, 0.2, 2000
nets = gs.init_two_layer(jax.random.key(0), networks, width, 2, 0.1, 0.1)
noise = 0.5 * np.random.default_rng(1).normal(size=(2000, 2))


def accuracies(p_1, p_12, loss="cross-entropy", factor=1, **descent):
    """Accuracy (median over networks) on feature 1 alone, on feature 2 alone, and on samples as in training."""
    samples = gs.datasets.starving_pair(p_1, p_12, mirrored=True)
    dynamics = gs.GradientDescent(eta / factor, **descent)
    final = gs.simulate(samples, nets, loss, dynamics, steps, record_every=steps).final
    right = [np.mean(np.asarray(final(x + noise)) > 0, axis=-1) for x in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0])]
    one, two, both = (float(np.median(values)) for values in right)
    return one, two, p_frequent * one + p_both * both


remedies = {
    "nothing": accuracies(p_frequent, p_both),
    "weights: half and half": accuracies(0.5, 0.5),
    "weights: 5 % feature 1 alone": accuracies(0.05, 0.95),
    "weight decay 0.01": accuracies(p_frequent, p_both, weight_decay=0.01),
    "a tenth of the step size": accuracies(p_frequent, p_both, factor=10),
    "hinge loss": accuracies(p_frequent, p_both, loss="hinge"),
    "logit penalty 0.1": accuracies(p_frequent, p_both, loss=gs.SpectralDecoupling("cross-entropy", 0.1)),
}
print(f"{'remedy':30s} 1 alone  2 alone  as in training")
for name, (one, two, overall) in remedies.items():
    print(f"{name:30s} {100 * one:6.1f}   {100 * two:6.1f}   {100 * overall:6.1f} %")
base = remedies["nothing"]
assert remedies["weights: 5 % feature 1 alone"][1] > base[1] + 0.2
assert remedies["weights: half and half"][1] > base[1] + 0.05
assert abs(remedies["weight decay 0.01"][1] - base[1]) < 0.05
assert abs(remedies["a tenth of the step size"][1] - base[1]) < 0.05
assert abs(remedies["hinge loss"][1] - base[1]) < 0.06
assert remedies["logit penalty 0.1"][1] < 0.55

# %%
figure, axis = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
rows = np.arange(len(remedies))[::-1]
for k, (name, colour, marker) in enumerate((("feature 1 alone", COLOURS[0], "o"), ("feature 2 alone", COLOURS[1], "s"))):
    axis.plot([100 * one[k] for one in remedies.values()], rows, marker, color=colour, markersize=7, label=name)
axis.axvline(50, color="#8A8A8A", linestyle=":")
axis.axvline(100 * base[1], color=COLOURS[1], linewidth=0.8, linestyle="--")
axis.set(yticks=rows, yticklabels=list(remedies), xlabel="right answers, %", xlim=(45, 100))
axis.set_title("What helps a starved feature")
_ = axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(0.8, 0.02))

# %% [markdown]
# **What to notice.** What starves is the frequency, and only re-weighting acts on it. It has a price: feature 1 is
# recognised a little less well. Weight decay, smaller steps and hinge hardly move the rare feature. The logit penalty,
# made against starvation, starves feature 2 *altogether* here. Its target is one margin for all samples; the samples with
# feature 1 alone force $v_1$ to be that margin, and then $v_2 = 0$ is all that is left.
#
# How should one choose the weights? The library computes those that make all features equally fast at the start, nearest
# to the data. For the pair it says to leave out the samples with feature 1 alone, and there is no other way; with a few
# samples that show feature 2 alone, there is:

# %%
plan = gs.theory.equal_speed_weights([[1, 0], [1, 1]], [p_frequent, p_both])
print("the pair:                ", plan.weights.round(3), "speeds", plan.before.round(3), "->", plan.speeds.round(3))
assert np.allclose(plan.weights, [0, 1])
some = gs.theory.equal_speed_weights([[1, 0], [1, 1], [0, 1]], [0.75, 0.2, 0.05])
print("with 5 % feature 2 alone:", some.weights.round(3), "speeds", some.before.round(3), "->", some.speeds.round(3))
assert np.ptp(some.speeds) < 1e-9
assert (some.weights > 0.1).all()

# %% [markdown]
# ## Where the laws stop
#
# Everything here rests on feature 2 *never coming without feature 1*. Give it one sample in twenty of its own, and with
# cross-entropy no bound like (10.4) holds: those samples go on pulling until they are right, and the index falls again.

# %%
when = np.geomspace(1, 1e5, 200)
free = gs.theory.feature_flow([[1, 0], [1, 1], [0, 1]], [0.75, 0.2, 0.05], "cross-entropy")
starved = gs.theory.feature_flow([[1, 0], [1, 1]], [0.8, 0.2], "cross-entropy")
check = np.array([10.0, 100.0, 400.0])
own_samples = gs.datasets.features([[1, 0], [1, 1], [0, 1]], [0.75, 0.2, 0.05])
run = gs.simulate(own_samples, read_out, "cross-entropy", gs.GradientDescent(0.05), 8000, record_every=200)
trained = np.asarray(run.logits(np.rint(check / 0.05).astype(int)))[:, 2]  # of samples with feature 2 alone: v_2
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
axis.plot(when, starved.index(when)[..., 1], color=COLOURS[1], label="feature 2 never alone")
axis.plot(when, free.index(when)[..., 1], color=COLOURS[2], label="5 % of samples show it alone")
found = 1 - trained / np.asarray(free.alone(check)[:, 1])
axis.plot(check, found, "o", color=COLOURS[2], markerfacecolor="white", label="trained")
axis.set(xscale="log", xlabel="time t", ylabel="starvation index of feature 2", ylim=(0, 1))
axis.legend(frameon=False, loc="upper left")
print(f"index at t = 100,000: {float(starved.index(1e5)[1]):.2f} and {float(free.index(1e5)[1]):.2f}")
assert abs(found - np.asarray(free.index(check)[:, 1])).max() < 0.01
assert float(free.index(1e5)[1]) < float(free.index(100.0)[1])
assert float(starved.index(1e5)[1]) > float(starved.index(100.0)[1])

# %% [markdown]
# ## Exercises
#
# 1. From (10.1), why does hinge freeze feature 2 at $1/(2+q)$? (How much faster is $v_1$ while both samples pull?)
# 2. Feature 2 is twice as long: `gs.theory.feature_flow([[1, 0], [1, 1]], [0.8, 0.2], "cross-entropy", scales=[1.0,
#    2.0])`. How long must it be for its index to stay below 0.3 until $t = 100$?
# 3. Add early stopping to the remedies: 200 steps instead of 2000. Predict from the second figure whether it helps, then
#    look.
