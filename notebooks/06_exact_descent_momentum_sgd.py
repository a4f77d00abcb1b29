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
# # 6. Descent without the small step: exact laws for step sizes that people use
#
# Theory of learning dynamics is mostly written for gradient *flow*, the limit of small steps. Training takes steps, and
# large ones, with momentum, on one sample at a time. **Question:** what is left of the theory then?
#
# In the setting of Tachet des Combes et al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848) (one hidden ReLU
# layer, classes that are learnt independently of each other), all of it: one step of descent is a multiplication of two
# numbers per class. The setting and the sigmoidal curves are the paper's; formulas with a number, such as (8.1), are this
# library's own.
#
# You need: `pip install '.[notebooks]'`.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)  # agreement to rounding is the point here

import matplotlib.pyplot as plt
import numpy as np

import gradstarve as gs
from gradstarve.ground import COLOURS, RC

plt.rcParams.update(RC)
BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
TRAINED = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "none"}

# %% [markdown]
# ## 1. The law
#
# As in notebook 1, a class with the part $p$ of the data at norm $r$ is seen by neurons with $a_j = w_j\cdot\hat x > 0$ and
# read-outs $z_j$. With
#
# $$M_\pm = \sum_j (a_j \pm z_j)^2,\qquad u = \tfrac r4\,(M_+ - M_-)\ \text{ (the logit)},$$
#
# one step of size $\eta$ is
#
# $$M_\pm \leftarrow (1 \pm c)^2 M_\pm,\qquad c = \eta\, p\, r\, g(u), \tag{8.1}$$
#
# $g = -\ell'$ the residual of the loss. Any width, any dimension, any step size. `gs.derive("descent", loss)` proves it from
# the network; here is where the two sums come from, each step with what its check found:

# %%
derivation = gs.derive("descent", "cross-entropy")
for step in derivation.checked_steps:
    print(f"{step.name:22s} {step.reference:6s} {step.method}")
assert all(result.passed for result in derivation.check())

# %% [markdown]
# ## 2. Nine step sizes at once
#
# Two opposite classes, one with 80 % of the weight and one with 20 %; 16 networks of 8 neurons; step sizes from 0.02 to 2.
# Step sizes are arrays, so that one call trains all $9\times16$ networks and another solves them.

# %%
data = gs.datasets.antipodal(dim=5, frequencies=(0.8, 0.2), key=jax.random.key(0))
networks = gs.init_two_layer(jax.random.key(1), batch=16, width=8, dim=5, scale_w=0.1, scale_z=0.1)
step_sizes = np.geomspace(0.02, 2.0, 9)
crowd = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (9, *leaf.shape)), networks)
descent = gs.GradientDescent(np.broadcast_to(step_sizes[:, None], (9, 16)))

steps = 1000
solution = gs.solve(data, crowd, "cross-entropy", descent)  # (8.1), neurons that change class included
trajectory = gs.simulate(data, crowd, "cross-entropy", descent, steps=steps)  # knows nothing of it
law, trained = np.asarray(solution.margins(np.arange(steps + 1))), np.asarray(trajectory.margins())
print(law.shape, "step sizes, networks, steps, classes")
print(f"largest |law − training| of all of them: {np.abs(law - trained).max():.1e}")
assert np.abs(law - trained).max() < 1e-10

# %% [markdown]
# Not small: *nothing*. Two programs that share no line of mathematics differ by the rounding of up to a thousand steps.
#
# Now the flow, whose clock is $t = \eta k$. It is the same curve for every step size, and it is wrong by an amount
# proportional to the step size.

# %%
flow = gs.solve(data, networks, "cross-entropy")
t_end, one = 20.0, 3  # one of the networks, for the picture
times = np.linspace(0, t_end, 201)
flow_margins = np.asarray(flow.margins(times))  # [networks, times, classes]

gaps = {"flow": [], "descent": []}
for eta, found, exact in zip(step_sizes, trained, law, strict=True):
    k = np.unique((np.linspace(0, t_end, 11)[1:] / eta).astype(int))
    limit = np.stack([[np.interp(eta * k, times, curve) for curve in net.T] for net in flow_margins])
    gaps["flow"].append(np.abs(found[:, k].swapaxes(1, 2) - limit).max())
    gaps["descent"].append(np.abs(found[:, k] - exact[:, k]).max())

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.plot(times, flow_margins[one, :, 0], color="black", linestyle="--", linewidth=1.4, label="flow, the law of small steps")
for number, colour in ((3, BLUE), (6, GREEN), (8, VERMILLION)):
    eta = step_sizes[number]
    k = np.arange(int(t_end / eta) + 1)
    shown = k[:: max(1, len(k) // 24)]
    left.plot(eta * k, law[number, one, k, 0], color=colour, linewidth=1.6, label=f"descent law, step size {eta:.2g}")
    left.plot(eta * shown, trained[number, one, shown, 0], color=colour, **TRAINED)
left.plot([], [], color="0.3", **TRAINED, label="trained")
left.set(xlabel="time t = step size × step", ylabel="margin of the frequent class", title="One network")
left.legend(frameon=False)
right.loglog(step_sizes, gaps["flow"], "s--", color="black", markersize=4, label="flow")
right.loglog(step_sizes, gaps["descent"], "o-", color=BLUE, markersize=4, label="descent law (8.1)")
right.set(xlabel="step size", ylabel=f"largest |law − training|, t ≤ {t_end:.0f}", title="All networks, both classes")
right.set_ylim(1e-16, 30)
right.legend(frameon=False, loc="center right")

slope = np.polyfit(np.log(step_sizes[:5]), np.log(gaps["flow"][:5]), 1)[0]
print(f"the flow's gap grows as (step size)^{slope:.2f}; at step size 2 it is {gaps['flow'][-1]:.2f}")
assert 0.85 < slope < 1.15
assert gaps["flow"][-1] > 0.5
assert max(gaps["descent"]) < 1e-12

# %% [markdown]
# **Notice.** Descent is slower than the flow: $(1+c)^2 < e^{2c}$. At step size 2 the flow has the frequent class learnt
# visibly before training has, and (8.1) does not care: its dots lie on its line at every step size.
#
# ## 3. Where the flow is not even qualitatively right
#
# With squared loss the flow glides to $u = 1$. One step near $u = 1$ multiplies the distance of a balanced class to it by
# $1 - 2\eta p r$: beyond $\eta p r = 1$ descent cannot settle. (8.1) goes with it, over the edge:

# %%
single = gs.Dataset([[1.0, 0.0]], [1])  # p = r = 1
balanced = gs.TwoLayerReLU([[0.1, 0.3]], [0.1])  # one neuron, a = z = 0.1; 0.3 is across the class and never moves
mode = gs.Mode(frequency=1.0, norm=1.0, a=[0.1], z=[0.1])
squared = {}
for eta in (0.5, 1.2, 1.45):
    dynamics = gs.GradientDescent(eta)
    exact = np.asarray(gs.solve_mode(mode, "squared", dynamics).logit(np.arange(201)))
    found = np.asarray(gs.simulate(single, balanced, "squared", dynamics, steps=200).margins())[:, 0]
    squared[eta] = exact, found

figure, panels = plt.subplots(1, 3, figsize=(9, 3.2), sharey=True, layout="constrained")
k = np.arange(41)
flow_curve = gs.solve_mode(mode, "squared").logit
for panel, (eta, (exact, found)), what in zip(panels, squared.items(), ("settles", "alternates", "is chaotic"), strict=True):
    panel.plot(k, flow_curve(eta * k), color="black", linestyle="--", linewidth=1.2, label="flow")
    panel.plot(k, exact[k], color=BLUE, linewidth=1.2, label="descent law")
    panel.plot(k, found[k], color=VERMILLION, **TRAINED, label="trained")
    panel.set(xlabel="step k", title=f"η p r = {eta}: {what}")
panels[0].set_ylabel("logit u, squared loss")
panels[0].legend(frameon=False, loc="center right")

cycle = squared[1.2][0][-2:]
print(f"η p r = 1.2 ends by going to and fro between {cycle.min():.4f} and {cycle.max():.4f}")
assert np.abs(squared[0.5][0][-1] - 1) < 1e-12
assert np.ptp(cycle) > 0.7
assert np.abs(squared[1.2][0] - squared[1.2][1]).max() < 1e-12
assert np.abs(squared[1.45][0] - squared[1.45][1])[:41].max() < 1e-8
late = np.abs(squared[1.45][0] - squared[1.45][1])[150:].max()
print(f"η p r = 1.45 after 150 steps: law and training differ by up to {late:.2f}")
assert late > 0.01

# %% [markdown]
# **The first place where agreement ends.** At $\eta p r = 1.45$ law and training agree for the steps shown and not for
# ever: the orbit is chaotic, every step makes a difference of $10^{-16}$ a little larger, and after some 150 steps two
# programs in the same precision have parted. The law is still true of real numbers; no computer keeps it.
#
# ## 4. Momentum and weight decay
#
# Heavy-ball and Nesterov momentum put the same two numbers into a recurrence with a memory, and weight decay $\lambda$ makes
# the factors $1 - \eta\lambda \pm c$ (8.2). With cross-entropy a decayed class comes to rest where the push balances the
# decay, at $u = \log(p r/\lambda - 1)$ (9.1), the same for every step size and momentum. Below $p r = 2\lambda$ it is never
# learnt.

# %%
choices = {
    "plain": gs.GradientDescent(0.5),
    "heavy ball 0.9": gs.GradientDescent(0.5, momentum=0.9),
    "Nesterov 0.9": gs.GradientDescent(0.5, momentum=0.9, nesterov=True),
    "plain, decay 0.05": gs.GradientDescent(0.5, weight_decay=0.05),
}
start = jax.tree.map(lambda leaf: leaf[one], networks)
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
k = np.arange(301)
for colour, (name, dynamics) in zip((BLUE, VERMILLION, GREEN, PURPLE), choices.items(), strict=True):
    run = gs.simulate(data, start, "cross-entropy", dynamics, steps=300)
    exact = np.asarray(gs.solve(data, start, "cross-entropy", dynamics).margins(k))
    gap = np.abs(exact - np.asarray(run.margins())).max()
    print(f"{name:18s} |law − training| up to {gap:.1e}")
    assert gap < 1e-10
    axes.plot(k, exact[:, 1], color=colour, label=name)
    axes.plot(k[::12], np.asarray(run.margins())[::12, 1], color=colour, **TRAINED)
rest = float(gs.theory.settled_logit(frequency=0.2, norm=1.0, weight_decay=0.05))
axes.axhline(rest, color=PURPLE, linestyle=":", linewidth=1.2)
axes.annotate("where decay lets it rest (9.1)", (298, rest), (0, 5), textcoords="offset points", ha="right", color=PURPLE)
axes.set(xlabel="step k", ylabel="margin of the rare class", title="Lines: law (8.2). Circles: trained")
axes.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.62))
assert abs(rest - np.log(0.2 / 0.05 - 1)) < 1e-12
assert abs(exact[-1, 1] - rest) < 0.02

# %% [markdown]
# ## 5. One sample at a time
#
# SGD that draws one point a step leaves a class alone unless it draws it. So after $m$ draws of its own a class is where
# (8.1) with $p = 1$ is after $m$ steps, and $m$ among $T$ steps is binomial: **the distribution over all seeds is a finite
# sum**, and the time to a given logit is negative binomial (8.3). No average, no diffusion limit.
#
# 4,000 seeds of one network with four neurons for the rare class ($p = 0.2$), on orthogonal classes:

# %%
seeds, eta, steps = 4000, 0.5, 120
flat = gs.datasets.orthogonal(dim=2, frequencies=(0.8, 0.2))
a = np.array([0.05, 0.10, 0.12, 0.08])
z = np.array([0.10, -0.02, 0.08, 0.12])
w = np.stack([np.full(4, -0.1), a], axis=-1)  # away from the frequent class: exclusive to the rare one
batch = gs.TwoLayerReLU(np.broadcast_to(w, (seeds, 4, 2)), np.broadcast_to(-z, (seeds, 4)))  # −z: its label is −1
sgd = gs.StochasticGradientDescent(eta)
run = gs.simulate(flat, batch, "cross-entropy", sgd, steps=steps, key=jax.random.key(5))
found = np.asarray(run.margins())[:, :, 1]  # [seeds, steps + 1]

rare = gs.Mode(frequency=0.2, norm=1.0, a=a, z=z)
exact = gs.solve_mode(rare, "cross-entropy", sgd)
full_batch = gs.solve_mode(rare, "cross-entropy", gs.GradientDescent(eta))

step = 20
after = exact.distribution(step)
values, chances = np.asarray(after.values), np.asarray(after.probabilities)
counts = np.array([(np.abs(found[:, step] - value) < 1e-9).mean() for value in values])
wait = exact.time_to_logit(1.0)
first = np.argmax(found >= 1, axis=1)
assert (found[:, -1] >= 1).mean() > 0.98

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.vlines(values, 0, chances, color=BLUE, linewidth=3, label="law (8.3)")
left.plot(values, counts, color=VERMILLION, **TRAINED, label=f"{seeds:,} trained seeds")
left.axvline(float(full_batch.logit(step)), color="black", linestyle="--", linewidth=1.2, label="full-batch descent")
left.set(xlabel=f"logit of the rare class after {step} steps", ylabel="probability", title="No other value occurs")
left.legend(frameon=False)
left.set_xlim(-0.02, 1.05)
k = np.arange(steps + 1)
right.step(k, wait.cdf(k), where="post", color=BLUE, label="law: negative binomial")
right.plot(k[::5], [(found[:, : i + 1].max(axis=1) >= 1).mean() for i in k[::5]], color=VERMILLION, **TRAINED, label="seeds")
at = float(full_batch.time_to_logit(1.0))
right.axvline(at, color="black", linestyle="--", linewidth=1.2, label="full-batch descent")
right.legend(frameon=False)
_ = right.set(xlabel="step k", ylabel="P(u has reached 1 by step k)", title="How long it takes")

# %%
everywhere = counts.sum()
error = np.sqrt(float(after.variance) / seeds)
off = abs(found[:, step].mean() - float(after.mean)) / error
distance = np.abs(np.cumsum(counts) - np.cumsum(chances)).max() * np.sqrt(seeds)
median = float(after.quantile(0.5))
print(f"seeds on the {step + 1} values of the law:   {100 * everywhere:.0f} %")
print(f"mean: law {float(after.mean):.4f}, seeds {found[:, step].mean():.4f}, apart by {off:.1f} standard errors")
print(f"Kolmogorov-Smirnov √n·D = {distance:.2f} (above 1.95 once in a thousand)")
print(f"full batch {float(full_batch.logit(step)):.4f}; median over seeds {median:.4f}")
print(f"time to u = 1: law {float(wait.mean):.1f} ± {float(wait.variance) ** 0.5:.1f}, full batch {at:.0f} steps")
assert everywhere == 1.0
assert off < 4
assert distance < 1.95
assert median < float(full_batch.logit(step)) < float(after.mean)

# %% [markdown]
# **Notice.** All seeds lie on the 21 values of the law, to rounding. Early in training the *mean* over seeds is ahead of
# full-batch descent and the *typical* seed behind it: growth is multiplicative, luck compounds, and
# $p\log(1+\eta r g) < \log(1 + \eta p r g)$.
#
# ## 6. Where it stops holding
#
# Everything above needs neurons that see one class (or antipodal classes). `solve` looks, and refuses with the neuron
# that breaks it. Here is what the law of the mode would have said of neurons that see both of two orthogonal classes:

# %%
seen_by_both = gs.TwoLayerReLU([[0.1, 0.3], [0.05, 0.3]], [0.1, -0.2])
try:
    gs.solve(flat, seen_by_both, "cross-entropy", gs.GradientDescent(0.3))
except gs.HypothesisError as refusal:
    print(refusal)
else:
    raise AssertionError("solve took a network outside of its hypotheses")

run = gs.simulate(flat, seen_by_both, "cross-entropy", gs.GradientDescent(0.3), steps=20)
alone = gs.solve_mode(gs.Mode(0.8, 1.0, a=seen_by_both.w[:, 0], z=seen_by_both.z), "cross-entropy", gs.GradientDescent(0.3))
gap = abs(float(run.margins()[20, 0]) - float(alone.logit(20)))
print(f"\nafter 20 steps: trained {float(run.margins()[20, 0]):.3f}, the frequent class alone {float(alone.logit(20)):.3f}")
assert gap > 0.25

# %% [markdown]
# Other limits: optax's optimisers (Adam and so on) have no such law, `simulate` trains with them; SGD with two norms in one
# class depends on which of them was drawn; in float32 the same agreement is of order $10^{-5}$, and worse for networks that
# pass next to a kink.
#
# ## Exercises
#
# 1. In section 3 find the step size at which the orbit of period 2 turns into one of period 4 (between 1.2 and 1.3). What
#    happens at 1.6, and why does the neuron never come back? Look at `solve_mode(...).weights(k)`.
# 2. Momentum 0.9 is said to be a step ten times as long. Plot heavy ball with step size 0.2 against plain descent with step
#    size 2, and against time instead of steps. When is the rule good, when is it not?
# 3. Derive the number of own draws that hinge loss needs from $u_0$ to $u = 1$ for a balanced class
#    ($M_- = 0$, factor $(1+\eta r)^2$ a draw), and with it the mean and the standard deviation of its waiting time. Check
#    with `gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(eta)).time_to_logit(1.0)`.
