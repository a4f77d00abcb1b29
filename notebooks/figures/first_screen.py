"""The picture at the top of the README: theory on simulation, in motion.

    python notebooks/figures/first_screen.py

Writes first_screen.gif and, for readers who want no motion, its last picture as first_screen.png. Lines are closed forms,
drawn before anything is trained; everything that moves is training.
"""

from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import gradstarve as gs
from gradstarve.ground import COLOURS, RC
from gradstarve.ground._animate import palette_of

HERE = Path(__file__).parent
BLUE, RED = COLOURS[:2]
PICTURES, HOLD = 48, 22  # moving pictures, and how many times the last is shown
NETWORKS, WIDTH, SIGMA, ETA, STEPS = 512, 8, 0.12, 0.25, 192


def error_panel():
    """The two classes of 512 networks: law as lines, the band and the median of training up to a step."""
    data = gs.datasets.antipodal(dim=5, frequencies=(0.75, 0.25), key=jax.random.key(0))
    networks = gs.init_two_layer(jax.random.key(3), NETWORKS, WIDTH, 5, SIGMA, SIGMA)
    descent = gs.GradientDescent(ETA)
    run = gs.simulate(data, networks, "cross-entropy", descent, STEPS, record_every=1)
    law = gs.solve(data, networks, "cross-entropy", descent)
    steps = np.arange(STEPS + 1)
    lines, found = np.asarray(law.margins(steps)), np.asarray(run.margins())
    gap = abs(lines - found).max()
    assert gap < 1e-10, gap
    learnt = (found[:, -1] > 0).all(-1)  # networks in which no neuron was left for a class are another panel's matter
    error = 1 / (1 + np.exp(found[learnt]))
    exact = 1 / (1 + np.exp(lines[learnt]))
    return data, steps, np.median(exact, 0), np.quantile(error, [0.1, 0.5, 0.9], axis=0), gap


def neuron_panel(data, networks=56, sigma=0.45):
    """Neurons in the plane of a = w.x_+/|x_+| and z: [steps, neurons] each, and which class the law says they end in.

    They start from further out than those of the errors, so that their hyperbolas can be seen.
    """
    starts = gs.init_two_layer(jax.random.key(5), networks, WIDTH, 5, sigma, sigma)
    run = gs.simulate(data, starts, "cross-entropy", gs.GradientDescent(ETA), STEPS, record_every=1, record_networks=True)
    axis = np.asarray(data.points)[np.asarray(data.labels) > 0][0]
    axis = axis / np.linalg.norm(axis)
    trained = run.network()
    a = np.asarray(trained.w) @ axis
    a, z = (np.moveaxis(v, 1, 0).reshape(STEPS + 1, -1) for v in (a, np.asarray(trained.z)))
    plus = a[0] + z[0] > 0  # (4.3)
    there = a[-1] * z[-1] > 0  # the others are still on their way
    assert (plus == (a[-1] > 0))[there].all()
    print(f"{there.mean():.0%} of the neurons are in their class at the end")
    return a, z, plus


def feature_panel():
    """The starving pair, two layers: feature by feature, law and training, and the rare one if it were alone."""
    data, start = gs.datasets.starving_pair(0.8, 0.2), 0.05
    pair = gs.theory.starving_pair(0.8, 0.2, "cross-entropy", depth=2, init=(start, start))
    times = np.linspace(0, 60, PICTURES)
    fine = np.linspace(0, 60, 300)
    paths = gs.DeepReLU.paths(np.full((2, 2), start**0.5), features=[0, 1], dim=2)
    logits = np.asarray(gs.simulate_flow(data, paths, "cross-entropy", times).logits())
    found = np.stack([logits[:, 0], logits[:, 1] - logits[:, 0]])
    assert abs(found - np.asarray(pair.features(times))).max() < 1e-6
    return fine, np.asarray(pair.features(fine)), np.asarray(pair.flow.alone(fine))[..., 1], times, found


def draw():
    """The figure, and a function that moves it to picture k."""
    data, steps, exact, quantiles, gap = error_panel()
    a, z, plus = neuron_panel(data)
    fine, laws, alone, times, found = feature_panel()
    figure = Figure(figsize=(12, 4.0), dpi=80, layout="constrained")
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.14)
    one, two, three = figure.subplots(1, 3)

    for k, (colour, name) in enumerate(((BLUE, "frequent class"), (RED, "rare class"))):
        one.plot(steps, exact[:, k], color=colour, label=f"{name}, law")
    one.set(title="The error is a sigmoid", xlabel="step of descent", ylabel="error", xlim=(0, STEPS), ylim=(0, 0.52))
    one.plot([], [], "o", color="#666666", markerfacecolor="white", label=f"{NETWORKS} networks trained")
    one.legend(frameon=False, loc="upper right")
    bands = [one.fill_between([0], [0], [0], color=colour, alpha=0.18, linewidth=0) for colour in (BLUE, RED)]
    marks = [one.plot([], [], m, color=c, markerfacecolor="white", markersize=5.5)[0] for c, m in ((BLUE, "o"), (RED, "s"))]

    reach = 1.9
    two.plot([-reach, reach], [reach, -reach], "--", color="#555555", linewidth=1)
    two.text(0.96 * reach, -0.70 * reach, "a + z = 0", rotation=-45, ha="right", fontsize=9, color="#555555")
    two.set(title="A neuron's fate is known at the start", xlabel="a, first layer along the frequent class",
            ylabel="z, second layer", xlim=(-reach, reach), ylim=(-reach, reach))
    colours = np.where(plus, BLUE, RED)
    trails = mpl.collections.LineCollection([], colors=colours, linewidths=0.5, alpha=0.35)
    two.add_collection(trails)
    dots = two.scatter(a[0], z[0], s=9, c=colours, linewidths=0)

    three.plot(fine, laws[0], color=BLUE)
    three.plot(fine, laws[1], color=RED)
    three.plot(fine, alone, "--", color=RED, linewidth=1.2)
    for x, y, turn, colour, words in ((15, 5.3, 20, BLUE, "frequent feature"), (27, 0.32, 0, RED, "rare feature"),
                                      (27, 1.75, 0, RED, "rare feature, if alone")):
        three.text(x, y, words, rotation=turn, rotation_mode="anchor", color=colour, fontsize=10)
    three.set(title="Frequent features starve rare ones", xlabel="time", ylabel="logit of the feature",
              xlim=(0, 60), ylim=(0, 7))
    marker = {"markerfacecolor": "white", "markersize": 5.5}
    points = [three.plot([], [], m, color=c, **marker)[0] for c, m in ((BLUE, "o"), (RED, "s"))]
    print(f"largest gap of a logit between law and training: {gap:.1e}")

    def move(k):
        now = round(k / (PICTURES - 1) * STEPS)
        at = np.arange(0, now + 1, 12)
        for j in range(2):
            bands[j].remove()
            bands[j] = one.fill_between(steps[: now + 1], quantiles[0, : now + 1, j], quantiles[2, : now + 1, j],
                                        color=(BLUE, RED)[j], alpha=0.18, linewidth=0)
            marks[j].set_data(steps[at], quantiles[1, at, j])
            points[j].set_data(times[: k + 1 : 3], found[j, : k + 1 : 3])
        dots.set_offsets(np.stack([a[now], z[now]], -1))
        trails.set_segments(list(np.stack([a[: now + 1], z[: now + 1]], -1).swapaxes(0, 1)))

    return figure, move


def main():
    """Draw all pictures, and write both files."""
    from PIL import Image

    with mpl.rc_context({**RC, "axes.titlesize": 12, "axes.titleweight": "bold"}):
        figure, move = draw()
        pictures = []
        for k in range(PICTURES):
            move(k)
            figure.canvas.draw()
            pictures.append(Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB"))
        figure.savefig(HERE / "first_screen.png", dpi=120)
    still = Image.open(HERE / "first_screen.png").convert("RGB")
    still.quantize(palette=palette_of(still), dither=Image.Dither.NONE).save(HERE / "first_screen.png", optimize=True)
    # One palette for all pictures: else colours flicker. Every second picture is smooth enough, and half the bytes.
    palette = palette_of(pictures[-1], 24)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in (*pictures[:-1:2], pictures[-1])]
    durations = [140] * (len(frames) - 1) + [70 * HOLD]
    how = {"save_all": True, "append_images": frames[1:], "duration": durations, "loop": 0, "optimize": True}
    frames[0].save(HERE / "first_screen.gif", **how)
    for name in ("first_screen.gif", "first_screen.png"):
        print(f"{name}: {(HERE / name).stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
