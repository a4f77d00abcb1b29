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
# # 10. Who lives, who dies and how fast: descent, signs, Adam
#
# **The question.** Under gradient descent one neuron in four dies if it sees one class and starts at random (notebook
# 2). Hardly anybody trains by plain descent. What do other optimisers do to neurons?
#
# **The answer.** Normalised steps and SAM kill the same neurons as descent. A step size of its own for each layer
# turns the line between life and death. Sign descent turns it too, by a number that grows with the dimension: it
# kills up to half of all neurons. Adam and RMSProp kill those that sign descent kills, nearly; but they do not keep
# its time. Labels that flip kill once more, and then never again.
#
# The setting is that of Tachet des Combes et al., [arXiv:1809.06848](https://arxiv.org/abs/1809.06848); formulas with
# a number are this library's own. $a = w\cdot\hat x$ is how strongly a neuron sees its class, $z$ its read-out, $p$
# the frequency of the class, $r$ the length of its points. You need `pip install '.[notebooks]'`.

# %%
# %matplotlib inline
import jax

jax.config.update("jax_enable_x64", True)

import matplotlib.pyplot as plt
import numpy as np
import optax

import gradstarve as gs
from gradstarve.ground import COLOURS, RC
from gradstarve.studies.optimisers import optimiser_study

plt.rcParams.update(RC)
BLUE, VERMILLION, GREEN = COLOURS[:3]

# %% [markdown]
# ## 1. Hyperbolas and straight lines
#
# Under descent $a + z$ grows by the factor $1 + c$ a step and $a - z$ by $1 - c$: neurons move along hyperbolas, and
# $z = -a$ divides those that learn from those that leave.
#
# Sign descent moves every weight by $\eta$. That moves $a$ by $\eta\rho\,\mathrm{sign}\,z$ with $\rho = |x|_1/|x|_2$,
# and $z$ by $\eta\,\mathrm{sign}\,a$: straight lines of slope $1/\rho$, whatever $p$, $r$ and the loss are, and the
# border is $z = -a/\rho$ (17.6). Four neurons from the same starts, each a network of its own, in the plane $(a, z)$;
# lines are the laws of `gs.solve`, markers are training.

# %%
x = np.array([0.9, 0.7, 0.5, 0.3, -0.6])
unit = x / np.linalg.norm(x)
rho = np.abs(unit).sum()
data = gs.Dataset(unit[None], [1])
starts = np.array([[0.9, -0.25], [0.9, -0.6], [0.5, -0.8], [0.3, 0.2]])  # (a, z)
four = gs.TwoLayerReLU(w=starts[:, None, :1] * unit, z=starts[:, 1:])

figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
fates = {}
for axis, (name, dynamics, slope, steps) in zip(
    axes,
    [("gradient descent", gs.GradientDescent(0.02), 1.0, 300), ("sign descent", gs.SignDescent(0.005), 1 / rho, 240)],
    strict=True,
):
    run = gs.simulate(data, four, "cross-entropy", dynamics, steps, record_every=20, record_networks=True)
    law = gs.solve(data, four, "cross-entropy", dynamics).network(np.arange(steps + 1))
    for k, colour in enumerate(COLOURS[:4]):
        exact_a, exact_z = np.asarray(law.w[k, :, 0]) @ unit, np.asarray(law.z[k, :, 0])
        a, z = np.asarray(run.networks.w[k, :, 0]) @ unit, np.asarray(run.networks.z[k, :, 0])
        axis.plot(exact_a, exact_z, color=colour)
        axis.plot(a, z, "o", color=colour, markerfacecolor="white", markersize=4)
        assert abs(exact_a[::20] - a).max() < 1e-12
    fates[name] = [bool(v > 0) for v in np.asarray(run.final.w)[:, 0] @ unit]
    edge = np.array([0, 1.2])
    axis.plot(edge, -slope * edge, color="black", linestyle="--", linewidth=1, label=f"z = −{slope:.2f} a")
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.set(xlim=(-0.15, 1.3), ylim=(-1, 1), xlabel="a", title=name)
    axis.legend(loc="lower right")
axes[0].set_ylabel("z")
print("alive:", fates)
assert fates == {"gradient descent": [True, True, False, True], "sign descent": [True, False, False, True]}

# %% [markdown]
# **What to notice.** The second neuron (0.9, −0.6) learns under descent and dies under sign descent: its $w$ has five
# weights that all run towards zero at full speed, its $z$ is only one.
#
# ## 2. How many live
#
# With Gaussian starts the chance to live is an angle: $\frac12 + \frac1\pi\arctan(c\,\sigma_a/\sigma_z)$ with $c = 1$
# for descent, normalised descent and SAM (4.2), $c = \sqrt{\eta_z/\eta_a}$ for a step size per layer (17.3), and
# $c = 1/\rho$ for signs (17.6). Here are whole networks in 10 dimensions; Adam is that of optax, with its defaults,
# and has no law of its own. (`gradstarve optimisers` draws this with more networks, and RMSProp.)

# %%
names = ("descent", "normalised", "sam", "layers", "sign", "adam")
study = optimiser_study(optimisers=names, networks=50, ratios=(0.2, 1.0, 5.0), steps=1200, dims=(), progress=False)
print(study.table())
assert all(abs(share.deviation) < 4 for share in study.shares)
assert all(curve.gap is None or curve.gap < 1e-12 for curve in study.curves)
study.plot()

# %% [markdown]
# **What to notice.** Where there is a law, the error curve (right) is the law to rounding. Normalised descent has no slow
# tail, since its steps do not shrink with the gradient.
#
# ## 3. The more coordinates, the more dead
#
# Of a random direction in $d$ dimensions $\rho \approx \sqrt{2d/\pi}$. The chance to live falls from $3/4$ to $1/2$:
# a neuron of many inputs loses all its weights before its read-out has turned. Trained neurons, one a network:

# %%
rng = np.random.default_rng(0)
dims, count, scale = (1, 3, 10, 100), 1500, 0.05
alive, law, noise = [], [], []
for d in dims:
    direction = rng.normal(size=d)
    direction /= np.linalg.norm(direction)
    w, z = rng.normal(size=(2 * count, 1, d)) * scale, rng.normal(size=(2 * count, 1)) * scale
    sees = (w @ direction)[:, 0] > 0
    lone = gs.TwoLayerReLU(w[sees], z[sees])
    end = gs.simulate(gs.Dataset(direction[None], [1]), lone, "cross-entropy", gs.SignDescent(2e-4), 1000, record_every=1000)
    alive.append(float((np.asarray(end.final.w)[:, 0] @ direction > 0).mean()))
    law.append(float(gs.theory.learning_probability(dynamics=gs.SignDescent(2e-4), reach=np.abs(direction).sum())))
    noise.append(np.sqrt(law[-1] * (1 - law[-1]) / sees.sum()))
    print(f"d = {d:3d}: {alive[-1]:.3f} alive, law {law[-1]:.3f}, standard error {noise[-1]:.3f}")
assert (abs(np.array(alive) - law) < 4 * np.array(noise)).all()

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
smooth = np.geomspace(1, 200, 200)
typical = np.maximum(np.sqrt(2 * smooth / np.pi), 1)
axis.plot(smooth, 0.5 + np.arctan(1 / typical) / np.pi, color=BLUE, label="law at $ρ = \\sqrt{2d/π}$")
axis.plot(dims, law, "_", color="black", markersize=14, label="law of that direction (17.6)")
axis.errorbar(dims, alive, 2 * np.array(noise), fmt="o", color=VERMILLION, markerfacecolor="white", label="trained")
axis.axhline(0.75, color="grey", linestyle="--", linewidth=1)
axis.text(200, 0.755, "gradient descent", ha="right", color="grey")
axis.set(xscale="log", xlabel="d, coordinates", ylabel="share of neurons that live", ylim=(0.48, 0.78))
_ = axis.legend(loc="lower left")

# %% [markdown]
# ## 4. Adam and RMSProp: right fates, wrong times
#
# Without memory and epsilon both are sign descent. With their memory there is no law, so we measure: of each neuron
# whether its fate is what $z > -a/\rho$ says, and of each network how many steps it takes to a logit of $1/2$ over
# what the law says.

# %%
measured = optimiser_study(
    optimisers=("sign", "adam", "rmsprop"), networks=2, ratios=1.0, steps=10,
    dims=(10,), widths=(8,), rates=(0.025, 0.25), neurons=400, progress=False,
)  # fmt: skip
print(gs.ground.table_text(measured.agreement_rows()))
small = [one for one in measured.agreement if one.rate == 0.025]
assert min(one.right for one in small) > 0.95
assert all(0.6 < one.time < 0.8 for one in small if one.optimiser == "adam")
assert all(0.85 < one.time < 1 for one in small if one.optimiser == "rmsprop")

# %% [markdown]
# (`gradstarve optimisers` measures it from 1 to 100 dimensions and for widths of 1 to 64, with the same outcome.)
#
# Why is Adam faster than the law? While a mode grows its gradients grow, and Adam divides a mean over 10 steps by the
# root of a mean of squares over 1000 steps, which lags. Its weights therefore move by *more* than the step size.
# Later the gradients fall, the same lag makes its steps small, and the curve bends down. RMSProp of optax forgets
# within 10 steps; only its first steps are large, because it does not correct for the empty memory it starts with.

# %%
start = gs.TwoLayerReLU(w=0.01 * unit[None], z=[0.01])
eta, steps = 1e-3, 1000
figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
most = {}
for name, optimiser, colour in (
    ("Adam", optax.adam(eta), COLOURS[4]),
    ("RMSProp", optax.rmsprop(eta), "black"),
    ("signs", gs.SignDescent(eta), VERMILLION),
):
    run = gs.simulate(data, start, "cross-entropy", optimiser, steps, record_networks=True)
    moved = np.diff(np.asarray(run.networks.z[:, 0])) / eta
    most[name] = float(np.median(moved))
    axis.plot(np.arange(1, steps + 1), moved, color=colour, label=name)
axis.set(xlabel="step", ylabel="a step of z, over the step size", ylim=(0, 2))
axis.legend()
print("median:", {name: round(value, 3) for name, value in most.items()})
assert most["Adam"] > 1.1
assert abs(most["RMSProp"] - 1) < 0.05
assert abs(most["signs"] - 1) < 1e-9

# %% [markdown]
# ## 5. Labels that flip: loss of plasticity
#
# Let the labels of the class flip after every task. A flip turns the clock of the class round: neurons with $z > c\,a$
# at the start, which lived through the first task, die now. A later flip leads the clock to where it has been, and
# kills no neuron (21.1). With $c = 1$ three quarters are left after the first task and one half after the first flip;
# under sign descent, with $c = 1/\rho$, far fewer. Other frequencies in place of other labels kill no neuron, nor do two
# antipodal classes, which take up each other's neurons. (`gradstarve plasticity` draws this with more networks.)

# %%
from gradstarve.studies.plasticity import plasticity_study

rules = ("descent", "decay", "sign", "antipodal")
flips = plasticity_study(rules=rules, networks=30, tasks=4, neurons=300, widths=(1, 8), starts=200, progress=False)
print(flips.table())
assert all(task.right == 1 for task in flips.tasks)
assert [round(task.law, 3) for task in flips.of("descent")] == [0.75, 0.5, 0.5, 0.5]
assert flips.of("sign")[1].alive < 0.35
assert [task.alive for task in flips.of("antipodal")] == [1.0] * 4
relearn = [task.trained for task in flips.of("decay")]
assert relearn[1] < relearn[2] < relearn[3]  # weight decay: later every time
assert (flips.plane.died == flips.plane.said).all()
flips.plot()

# %% [markdown]
# **What to notice.** Weight decay saves no neuron and makes each flip dearer than the one before: it shrinks
# $a - z$, which has to grow back (19.5). Steps of one length have to walk back as far as they went.
#
# ## 6. Where the law ends
#
# Sign descent knows coordinates, not directions. As soon as the points of a class have two directions, the push on
# $w$ is the sign of a *sum* over points, and no single $\rho$ describes it. `solve` says so. (Gradient descent has
# the same hypothesis for its closed form.)

# %%
two = gs.Dataset([[1.0, 0.2], [0.2, 1.0]], [1, 1])
network = gs.TwoLayerReLU(w=[[0.3, 0.2]], z=[-0.27])
try:
    gs.solve(two, network, "cross-entropy", gs.SignDescent(0.001))
except gs.HypothesisError as error:
    refused = str(error)
print(refused)
assert "direction" in refused
middle = np.asarray(two.points).mean(axis=0)
border = -float(network.w[0] @ middle) / np.abs(middle).sum()  # -a/rho of the mean point
run = gs.simulate(two, network, "cross-entropy", gs.SignDescent(0.001), 600, record_every=600)
kept = bool((np.asarray(run.final(two.points)) > 0).any())
print(f"border of the mean point at z = {border:.3f}, above -0.27; trained, the neuron is", "alive" if kept else "dead")
assert border > -0.27
assert kept

# %% [markdown]
# ## Exercises
#
# 1. A neuron of one input ($d = 1$) has $\rho = 1$. Why do descent and sign descent then kill the same neurons, and
#    at what step do they differ?
# 2. Choose `read_out_step_size` so that gradient descent kills as many neurons as sign descent does in 10 dimensions.
#    Check with `gs.theory.learning_probability`.
# 3. Give Adam `b2=0.9` in the last figure but one. What becomes of its step, and of the times in the table?
