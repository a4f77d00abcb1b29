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
# # 12. Where every neuron goes first: handwritten digits
#
# **The question.** The closed forms of notebooks 1 to 5 ask for classes along one direction each. Real data are not like
# that: images of one digit fill a wide cone, and most neurons see images of both digits. What can be said exactly?
#
# **The answer.** The beginning. While outputs are small, every point pushes with the same residual $g(0)$, so that neurons
# do not see each other. Each runs alone, in closed form from edge to edge, to one of a few directions that reproduce
# themselves, or dies (16.1)-(16.5). This phase ends when outputs are of size 1; how long that takes is known too.
# Afterwards the law of the class means, put on the images, is an approximation with a measured error.
#
# The images are those of scikit-learn's `load_digits`. You need `pip install '.[notebooks,examples]'`.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np

import gradstarve as gs
from gradstarve.ground import COLOURS, RC
from gradstarve.studies.alignment import alignment_study

plt.rcParams.update(RC)
BLUE, VERMILLION, GREEN, PURPLE = COLOURS[:4]
TRAINED = {"linestyle": "none", "marker": "o", "markersize": 4, "markerfacecolor": "white"}

# %% [markdown]
# ## 1. Sixty neurons on 357 images
#
# All images of 3 and 8, centred on the midpoint of the two mean images, and weights with a standard deviation of 0.01.
# Lines are the law, markers gradient descent on all weights.

# %%
study = alignment_study("digits", pair=(3, 8), scale=0.01, width=60, key=0)
study.plot()

# %% [markdown]
# Neurons turn to one mean image or to the other, by the sign of their read-out in the end. Which neuron ends where, and
# which images it then sees, stands in the table:

# %%
print(study.table())
print(study.notes())
assert np.nanmax(study.off[study.times <= study.valid_until]) < 1e-3

# %% [markdown]
# ## 2. The same, by hand
#
# `gs.early_alignment(data, network, loss)` is the law itself. It knows every neuron at any time, what happens to it, and
# where it ends.

# %%
data, phase = study.data, study.phase
print(phase)
print(phase.directions)
print(*phase.events.of(0)[:5], sep="\n")

# %% [markdown]
# A direction $v$ reproduces itself where a neuron along it is pushed along it:
# $k v = \pm g_0 \sum_{i:\, v \cdot x_i > 0} q_i y_i x_i$ (16.5). One line of NumPy checks that.

# %%
for v, k, sign, activity in zip(*(np.asarray(part) for part in phase.directions[:4]), strict=True):
    push = 0.5 * (np.asarray(data.weights) * np.asarray(data.labels) * activity) @ np.asarray(data.points)
    assert np.allclose(sign * k * v, push, atol=1e-9)
    print(f"rate {k:.4f}, read-out {'+' if sign > 0 else '-'}: sees {int((activity == 1).sum())} images")

# %% [markdown]
# ## 3. How long it lasts
#
# With weights `scale` times those at hand the outputs are `scale`$^2$ times as large, and grow like $e^{2 k t}$: the phase
# ends at $\log(1/\text{scale})/k$ and a constant, which all neurons enter. `exit_time` has both.

# %%
scales = np.logspace(0, -6, 7)
exits = np.asarray(phase.exit_time(scales))
slope = np.diff(exits) / np.diff(np.log(1 / scales))
figure, axis = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
axis.plot(1 / scales, exits, "o-", color=BLUE)
axis.set(xscale="log", xlabel="1/scale of the weights", ylabel="time at which max |f| = 1")
axis.annotate(f"slope {slope[-1]:.4f} = 1/k = {1 / phase.directions.rate[0]:.4f}", (1e3, exits[3]), (1e3, exits[1]))
assert abs(slope[-1] * phase.directions.rate[0] - 1) < 1e-3

# %% [markdown]
# ## 4. And then? The law of the class means, on the images
#
# `solve` refuses these data and says what it can offer. One offer is the law of the two mean images, which are opposite
# after centring: `.on(data)` puts its network on all 357 images, and `compare` measures both gaps, that of the data and that
# of the curves.

# %%
try:
    gs.solve(data, phase.initial, "cross-entropy")
except gs.HypothesisError as error:
    print(error.hypothesis, error.where, sep="\n")

step_size, steps = 0.05, 1600
law = gs.solve(data.means(), phase.initial, "cross-entropy").on(data)
run = gs.simulate(data, phase.initial, "cross-entropy", gs.GradientDescent(step_size), steps, record_every=40)
found = gs.compare(law, run, step_size=step_size)
print(found.table())

# %%
y = np.asarray(data.labels)
times = step_size * np.asarray(run.grid)
figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
for sign, colour, name in ((1, BLUE, "3"), (-1, VERMILLION, "8")):
    by_law, trained = (np.asarray(curve)[:, y == sign].mean(-1) for curve in (law.margins(times), run.margins()))
    axis.plot(times, by_law, color=colour, label=f"digit {name}: law of the means")
    axis.plot(times, trained, color=colour, label=f"digit {name}: trained", **TRAINED)
axis.set(xlabel="time", ylabel="mean margin")
axis.legend(fontsize=8)

# %% [markdown]
# Single images are up to 4 logits off, for an image may lie at more than a right angle to the mean of its class. The
# means over a class are right to a third of a logit from beginning to end: what is learnt is the difference of the means.

# %% [markdown]
# ## 5. Where the law ends
#
# Everything rests on small outputs. From weights of deviation 0.3 they are not small: the phase is over before it begins.

# %%
large = alignment_study("digits", scale=0.3, width=60, until=6.0, key=0)
print(large.notes())
assert large.valid_until < 1
assert np.nanmax(large.off) > 10 * np.nanmax(study.off[study.times <= 6])

# %% [markdown]
# ## Exercises
#
# 1. Choose two other digits, `pair=(1, 7)` in section 1. In how many directions do the neurons end, and is the angle to the
#    class means larger or smaller than for 3 and 8? Which of the two would you call the easier pair?
# 2. With `centred=False` all pixels are positive. Predict which neurons die first, then look at `phase.events`.
# 3. From which `scale` on does the phase last longer than the training that follows it? (Section 3 has the slope.)
