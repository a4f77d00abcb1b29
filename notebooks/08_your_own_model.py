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
# # 8. Your own model: will a shortcut starve what it should learn?
#
# A feature that most samples of a class share is learnt first, the loss falls, and the gradient that the other features
# need is gone: *gradient starvation*, described by Tachet des Combes et al.,
# [arXiv:1809.06848](https://arxiv.org/abs/1809.06848), and studied by Pezeshki et al.,
# [arXiv:2011.09468](https://arxiv.org/abs/2011.09468). **Question:** given a model, its first weights and the data, can
# that be told *before* training?
#
# `gs.starvation_report` linearises the network at its first weights. Let $\Phi$ have a row for each sample, the gradient of
# its logit, and $Y$ the labels ±1 on its diagonal. With the kernel $K = Y\Phi\Phi^\top Y$ the margins $m = Yf$ obey
#
# $$\dot m = K\,\sigma(-m),\qquad \sigma(x) = 1/(1+e^{-x}), \tag{14.1}$$
#
# for cross-entropy summed over the samples. This is solved with the feature of a group of samples in the data, and with
# it taken out. The *starvation index* compares what the network learns of the rest in the two cases,
#
# $$1 - \frac{\text{gain of the rest beside the feature}}{\text{gain of the rest alone}}. \tag{10.6}$$
#
# You need: `pip install '.[notebooks]'`. The model is equinox's; a function `apply(params, x)` does as well, flax or plain.

# %%
# %matplotlib inline
import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import gradstarve as gs
from gradstarve.ground import COLOURS, RC

plt.rcParams.update(RC)

# %% [markdown]
# ## 1. Data with a shortcut planted
#
# Images of 8 × 8 noisy pixels: class + has an upright bar, class − a level one. In training 90 % of class + also have a
# bright corner. It is a perfect shortcut: who sees the corner need not look at the bar. The model is a plain network of one
# hidden layer.


# %%
def images(seed, count, share=0.9, brightness=2.0):
    """(images with the corner, the same without, labels, who has the corner)"""
    rng = np.random.default_rng(seed)
    y = np.repeat([1, -1], count // 2)
    clean = 0.6 * rng.normal(size=(count, 8, 8))
    clean[y > 0, 2:6, 3] += 1
    clean[y < 0, 3, 2:6] += 1
    marked = np.arange(count) < share * count / 2
    x = clean.copy()
    x[marked, :2, :2] += brightness
    return x.astype(np.float32), clean.astype(np.float32), y, marked


x, clean, y, marked = images(0, 200)
_, x_test, y_test, _ = images(1, 2000)  # no image has the corner there

figure, axes = plt.subplots(figsize=(9, 2), layout="constrained")
shown = {0: "+ marked", 1: "+ marked", 95: "+", 96: "+", 150: "−", 151: "−"}
axes.imshow(np.concatenate([np.pad(x[i], 1, constant_values=np.nan) for i in shown], axis=1), cmap="gray")
for place, what in enumerate(shown.values()):
    axes.text(10 * place + 4.5, -1, what, ha="center")
axes.set_axis_off()


class Network(eqx.Module):
    hidden: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, key, width=512):
        first, second = jax.random.split(key)
        self.hidden, self.out = eqx.nn.Linear(64, width, key=first), eqx.nn.Linear(width, 1, key=second)

    def __call__(self, image):
        return self.out(jax.nn.relu(self.hidden(image.reshape(-1))))


network = Network(jax.random.key(0))

# %% [markdown]
# ## 2. Before training
#
# One call. `groups` says who has what; several groups at once are fine.

# %%
report = gs.starvation_report(network, None, (x, y), {"corner": marked}, features=4)
print(report.table())
(law,) = report.alarms
index = law.index[report.at]
assert 0.75 < index < 0.85
left = {outcome.remedy: outcome.index for outcome in report.remedies}
stop, longer = (next(left[name] for name in left if name.startswith(how)) for how in ("stop at", "train to"))
best = min((name for name in left if name != "remove the feature"), key=left.get)
assert stop > index > longer > left[best]
assert best.startswith("re-weight")

# %%
report.plot()

# %% [markdown]
# **Read it so.** By the time training looks finished (mean error 5 %) the corner has been learnt, and of the rest less than
# a quarter of what the network would have learnt without the corner. Stopping earlier makes it worse. Training on for ten
# times as long helps some; weights that make members and others of the class count alike help most. (The last table lists
# the eigenvectors of $K$ with the largest response, for who wants to see what the network takes for features.)
#
# ## 3. What training does
#
# Nothing has been trained so far. Now we do: on the marked images, on clean ones, and on marked ones with the weights of the
# report's best remedy, from the same first weights, for the same time.


# %%
@eqx.filter_jit
def train(network, x, y, weights, step_size, steps):
    """Descent on the weighted sum of the cross-entropies: time = step_size × step, as in the report."""
    params, rest = eqx.partition(network, eqx.is_array)

    def loss(params):
        return jnp.sum(weights * jax.nn.softplus(-y * jax.vmap(eqx.combine(params, rest))(x)[:, 0]))

    def step(_, params):
        return jax.tree.map(lambda p, g: p - step_size * g, params, jax.grad(loss)(params))

    return eqx.combine(jax.lax.fori_loop(0, steps, step, params), rest)


def accuracy(network, label):
    logits = np.asarray(jax.vmap(network)(x_test))[y_test == label, 0]
    return float((label * logits > 0).mean())


step_size = 0.2 / np.linalg.norm(report.kernel, 2)
steps = int(report.horizon / step_size)
equal = np.ones(len(y), np.float32)
alike = equal.copy()
for part in (marked, ~marked & (y > 0)):
    alike[part] = (y > 0).sum() / (2 * part.sum())
trained = {
    "marked": train(network, x, y, equal, step_size, steps),
    "marked, re-weighted": train(network, x, y, alike, step_size, steps),
    "clean": train(network, clean, y, equal, step_size, steps),
}
after = report.after_training(trained["marked"], alone=trained["clean"])
print(after.table())
for name, one in trained.items():
    print(f"{name:20s} clean test images: class + {100 * accuracy(one, 1):.0f} %, class − {100 * accuracy(one, -1):.0f} %")

(measured,) = after.groups
right = float((after.measured > 0).mean())
print(f"of the marked training images {100 * right:.1f} % are classified correctly")
assert right > 0.95
assert measured.alarm
assert abs(measured.index - measured.index_predicted) < 0.1
assert after.rank_correlation > 0.9
plus = {name: accuracy(one, 1) for name, one in trained.items()}
assert plus["marked"] < 0.7 < plus["marked, re-weighted"] < 0.85 < 0.93 < plus["clean"]

# %%
figure, bars = plt.subplots(figsize=(6.4, 2.8), layout="constrained")
place = np.arange(3)
for shift, label, colour in ((-0.2, 1, COLOURS[0]), (0.2, -1, COLOURS[1])):
    heights = [100 * accuracy(one, label) for one in trained.values()]
    bars.barh(place + shift, heights, 0.36, color=colour, label=f"class {'+' if label > 0 else '−'}")
bars.set_yticks(place, trained)
bars.invert_yaxis()
bars.axvline(50, color="0.3", linewidth=1, linestyle=":")
bars.set(xlabel="accuracy on clean test images (%)", ylabel="trained on", xlim=(0, 100))
_ = bars.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))

# %% [markdown]
# **Notice.** Class + falls to little above chance on images without the corner, although training looks fine. Training is
# faster than its linearisation (the kernel doubles on the way), so compare at equal loss, as the table does: there the
# index was predicted from the first weights to a few hundredths. Re-weighting recovers a good part and not all, as foretold.
#
# ## 4. Where it stops holding
#
# What the report cannot see, case by case.

# %%
strong, _, _, bright = images(0, 200, brightness=8.0)
faint, _, _, _ = images(0, 200, brightness=0.5)
every, _, _, all_of_class = images(0, 200, share=1.0)
chance = np.random.default_rng(2).permutation(marked)
cases = {
    "bright corner, no groups named": (strong, None),
    "this corner, no groups named": (x, None),
    "faint corner, named": (faint, {"corner": marked}),
    "corner on all of class +, named": (every, {"corner": all_of_class}),
    "clean images, a group drawn by chance": (clean, {"chance": chance}),
}
reports = {name: gs.starvation_report(network, None, (a, y), g, features=0) for name, (a, g) in cases.items()}
for name, one in reports.items():
    print(f"{name.upper()}\n{one.summary()}\n")

# %%
found = [bool(one.alarms) for one in reports.values()]
assert found == [True, False, False, False, False]

# %% [markdown]
# 1. Without names clusters are looked for. A corner bright enough to stand apart from the noise is found, with the samples
#    that have it.
# 2. The corner of section 1 is not: the rule of alarm wants a gap of 25 standard deviations, set on handwritten digits so
#    that it stays quiet on data without a shortcut. **No alarm without groups is no all-clear.** Name what you suspect.
# 3. A faint corner makes a high enough index, and is not told from chance with 10 samples outside of it: see its p.
# 4. A feature that *every* member of a class has is not told from the class. Nobody can: in these data the corner is the
#    class. It takes a sample without it.
# 5. A group by chance raises no alarm.
#
# And it is a linearisation. A network that leaves its first kernel far behind (narrow, small first weights, large steps)
# may end elsewhere; `after_training` measures how far it has gone. The same network with 16 neurons is rightly told to
# starve, but its samples are ranked less well, and its kernel is another one at the end:

# %%
narrow = Network(jax.random.key(3), width=16)
before = gs.starvation_report(narrow, None, (x, y), {"corner": marked}, features=0)
step_size = 0.2 / np.linalg.norm(before.kernel, 2)
steps = int(before.horizon / step_size)
trained_narrow = [train(narrow, data, y, equal, step_size, steps) for data in (x, clean)]
then = before.after_training(trained_narrow[0], alone=trained_narrow[1])
print(then.table())
assert then.rank_correlation < after.rank_correlation
assert then.kernel_change > 3 * after.kernel_change

# %% [markdown]
# ## Exercises
#
# 1. Give half of class − the same corner. What does the report say now, and why is it right?
# 2. Where does the index cross the alarm's 0.25 as the share of marked images goes from 50 % to 95 %? Train at both ends.
# 3. Use a model of your own: any `apply(params, x)` that gives one logit a sample. From another framework, hand the Jacobian
#    to `gs.starvation_report.from_jacobian`, or logged margins to `.from_margins`.
