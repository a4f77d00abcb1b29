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
# # 13. A shortcut that a minority contradicts, and when margin control helps
#
# **The question.** A background agrees with the label on most of the images and contradicts it on the others. What does
# training make of it? Two findings look opposite: losses that control the margin remove a shortcut, and losses that
# control the margin starve a rare feature altogether.
#
# **The answer.** Samples are $y\,(r_c e_1 + s\, r_s e_2)$ with $s = +1$ on a share $p$. With one layer the margins $a$ of
# the majority and $b$ of the minority obey (20.1), and everything about the shortcut is known: its peak, the time of it,
# and what is left of it. Margin control helps if and only if a minority contradicts the shortcut (20.5).

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np

import gradstarve as gs
from gradstarve import theory
from gradstarve.ground import COLOURS, RC

plt.rcParams.update(RC)
TRAINED = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "white"}
p = 0.9  # how often the shortcut agrees with the label
core, side = 1.0, 1.0  # norms of the core feature and of the shortcut

# %% [markdown]
# ## 1. Learnt, and then unlearnt
#
# The logit of the shortcut over time, for three losses. Lines are the law, markers descent on a read-out. With equal
# norms majority and minority are two clocks beside each other, $a = C - W(e^C)$ with $C = 2 r^2 p\, t + 1$ for
# cross-entropy (20.2).

# %%
losses = {
    "cross-entropy": gs.CrossEntropy(),
    "hinge": gs.Hinge(),
    "smoothed": gs.FlippedLabels("cross-entropy", 0.1),
}
times = np.geomspace(0.05, 200, 200)
data = gs.datasets.shortcut(p, core=core, shortcut=side)
figure, axis = plt.subplots(figsize=(6.4, 3.8))
for colour, (name, loss) in zip(COLOURS, losses.items(), strict=False):
    law = theory.shortcut(p, loss, core=core, shortcut=side)
    axis.plot(times, law.features(times)[:, 1], color=colour, label=f"{name}: peak {law.peak().height[0]:.3f}")
    start, dynamics = gs.DeepReLU(([0.0, 0.0],)), gs.GradientDescent(0.01)
    run = gs.simulate(data, start, loss, dynamics, 20_000, record_every=100, progress=False)
    a, b = run.margins()[:, 0], run.margins()[:, 1]
    shown = np.unique(np.geomspace(1, 200, 20).astype(int))
    axis.plot(0.01 * run.grid[shown], ((a - b) / 2)[shown], color=colour, **TRAINED)
axis.axhline(np.log(p / (1 - p)) / 2, color="0.7", linewidth=1, linestyle=":")
axis.set(xscale="log", xlabel="time t = step size × step", ylabel="logit of the shortcut")
axis.legend()

# %% [markdown]
# Cross-entropy ends at $\tfrac12 \log \tfrac{p}{1-p}$, dotted, whatever the norms (20.3). Hinge and smoothed labels end
# at 0:

# %%
for name, loss in losses.items():
    rests = [float(theory.shortcut(p, loss, core=core, shortcut=r).rest[1]) for r in (0.5, 1.0, 2.0)]
    print(f"{name:14s} r_s = 0.5, 1, 2:  v_s ends at {', '.join(f'{rest + 0:.4f}' for rest in rests)}")

# %% [markdown]
# The hinge loss leaves a part of a shortcut that is smaller than the core, (20.4). Any smooth loss with a finite rest
# leaves none of any shortcut.
#
# ## 2. The same loss on the starving pair
#
# Where no sample contradicts the frequent feature, the same margin control takes the rare feature away.

# %%
smoothed = losses["smoothed"]
print("shortcut, with a minority:", theory.shortcut(p, smoothed).rest.round(4))
print("starving pair            :", theory.settled_features([[1, 0], [1, 1]], [p, 1 - p], smoothed).round(4))
print("no minority              :", theory.feature_flow([[1, 1]], [1.0], smoothed, scales=[1.0, 2.0]).features(1e3).round(4))

# %% [markdown]
# ## 3. Worst cell, average, and re-weighting
#
# Gaussian noise around the features makes accuracies of margins. Re-weighting from the start, or only after a while,
# moves the worst cell; the law knows both.

# %%
noise = 0.6
figure, axis = plt.subplots(figsize=(6.4, 3.8))
plans = {"as they are": None, "balanced": [0.5, 0.5], "balanced from t = 5 on": [(5.0, None), (None, [0.5, 0.5])]}
for colour, (name, weights) in zip(COLOURS, plans.items(), strict=False):
    law = theory.shortcut(p, "cross-entropy", core=core, shortcut=1.5 * side, weights=weights)
    axis.plot(times, law.worst_accuracy(times, noise), color=colour, label=f"worst cell, {name}")
    axis.plot(times, law.average_accuracy(times, noise), color=colour, linestyle="--", linewidth=1)
axis.set(xscale="log", xlabel="time t", ylabel="accuracy (dashed: average)", ylim=(0, 1))
axis.legend()

# %% [markdown]
# How many contradicting samples does the minority need, to have an accuracy of 90 % at a time? For equal norms
# and no noise it is a formula, $1 - p = (b + e^b - 1)/(2 r^2 t)$ with $b = \log 9$:

# %%
for t in (30.0, 100.0, 1000.0):
    print(f"t = {t:6g}: 1 - p = {float(theory.minority_needed(0.9, t, 'cross-entropy')):.4f}")

# %% [markdown]
# ## 4. Three agreements, three losses
#
# What `gradstarve shortcut` draws, here for one agreement: law as lines, a trained read-out and two-layer networks as
# markers, and maps of what the worst cell has in the end.

# %%
from gradstarve.studies.shortcut import shortcut_study

study = shortcut_study(agreements=p, networks=4, pixels=15, time=50.0, progress=False)
print(study.table())
study.plot()

# %% [markdown]
# On real images with a colour (`gs.datasets.coloured_digits`) the order of the losses holds, and the numbers of the law
# do not; `gradstarve.studies.coloured` has the table.
#
# ## Exercises
#
# 1. Read the height of the peak off the first figure for `side = 0.5` and `side = 2`. Which of the losses profits from a
#    shortcut that is smaller than the core? Explain it with (20.4).
# 2. With balanced weights from the start the shortcut has no peak at all. Show it from (20.1): what are $a$ and $b$ then?
# 3. Find the time from which balanced weights no longer help the worst cell within `t = 200`. (Change the 5.0 in section 3.)
