"""Classes of any frequency, norm and width, with one kappa and one theta_0, learn along one curve of 2 p r t (3.11)."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import expit

from gradstarve import theory
from gradstarve.ground import GUIDE, INK, ORDERED, headline, new_figure, number
from gradstarve.problem import Dataset, Mode, TwoLayerReLU
from gradstarve.simulation import simulate_flow

_KAPPA, _THETA, _DIM, _WIDTH = 0.02, 1.0, 5, 16
_LATEST = 16.0  # of 2 p r t
_RTOL = 1e-11


def compute(rng: np.random.Generator, quick: bool) -> dict[str, Any]:
    """Twelve trained classes, four if `quick`: `frequency`, `norm`, `width` [c], `time` and `error` [c, k] as trained, and
    `law` [c, k]; and the one curve of all, `tau` and `curve`."""
    count, records = (4, 12) if quick else (12, 12)
    frequency = np.exp(rng.permutation(np.linspace(np.log(0.02), np.log(0.95), count)))
    norm = np.exp(rng.permutation(np.linspace(np.log(0.3), np.log(3), count)))
    width = rng.integers(1, _WIDTH + 1, count)
    # Each class is recorded at times of its own, so that on the one curve all of them are seen.
    tau = (np.arange(records) + 1 - np.arange(count)[:, None] / count) * _LATEST / records
    trained = np.stack([_trained(rng, *of) for of in zip(frequency, norm, width.tolist(), tau, strict=True)])
    dense = np.linspace(0, _LATEST, 400)
    return {
        "frequency": frequency,
        "norm": norm,
        "width": width,
        "time": tau / (2 * frequency * norm)[:, None],
        "error": trained,
        "law": _curve(tau.reshape(-1)).reshape(tau.shape),
        "tau": dense,
        "curve": _curve(dense),
    }


def _curve(tau: np.ndarray) -> np.ndarray:
    """U of (3.11): the curve of one neuron with this kappa and theta_0, p = 1/2 and r = 1, whose time is tau."""
    grown, decayed = (np.sqrt(2 * _KAPPA) * np.exp(sign * _THETA / 2) for sign in (1, -1))
    mode = Mode(0.5, 1.0, np.array([(grown + decayed) / 2]), np.array([(grown - decayed) / 2]))
    curve: Any = theory.solve_mode(mode, "cross-entropy")
    return expit(-np.asarray(curve.logit(tau)))


def _trained(rng: np.random.Generator, frequency: float, norm: float, width: int, tau: np.ndarray) -> np.ndarray:
    """The error of class + of one network in d dimensions, trained by the flow of all weights up to each of `tau`."""
    axis = rng.normal(size=_DIM)
    axis /= np.linalg.norm(axis)
    used = np.arange(_WIDTH) < width
    shares = rng.uniform(0.2, 1, (2, _WIDTH)) * used
    shares /= np.linalg.norm(shares, axis=-1, keepdims=True)
    grown, decayed = shares * np.sqrt(2 * _KAPPA / norm) * np.exp(np.array([[1], [-1]]) * _THETA / 2)
    across = rng.normal(size=(_WIDTH, _DIM)) * 0.1 * used[:, None]
    across -= (across @ axis)[:, None] * axis
    network = TwoLayerReLU(((grown + decayed) / 2)[:, None] * axis + across, (grown - decayed) / 2)
    data = Dataset([norm * axis, -norm * axis], [1.0, -1.0], [frequency, 1 - frequency])
    run = simulate_flow(data, network, "cross-entropy", tau / (2 * frequency * norm), rtol=_RTOL, progress=False)
    return expit(-np.asarray(run.logits())[..., 0])


def _gap(numbers: dict[str, Any]) -> float:
    return float(np.max(np.abs(numbers["error"] - numbers["law"])))


def conclusion(numbers: dict[str, Any]) -> str:
    """What the collapse shows."""
    rate = numbers["frequency"] * numbers["norm"]
    return (
        f"{len(rate)} classes whose speeds p r differ {rate.max() / rate.min():.0f} times learn along one curve of 2 p r t, "
        f"within {_gap(numbers):.0e} of the error"
    )


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a class."""
    head = ("frequency p", "norm r", "neurons", "time to error 1/4", "2 p r t there", "largest gap")
    found: list[tuple[str, ...]] = [head]
    half = float(np.interp(-0.25, -numbers["curve"], numbers["tau"]))
    for k in np.argsort(-numbers["frequency"] * numbers["norm"]):
        p, r = numbers["frequency"][k], numbers["norm"][k]
        gap = np.max(np.abs(numbers["error"][k] - numbers["law"][k]))
        times = number(half / (2 * p * r)), number(half)
        found.append((number(p), number(r), str(numbers["width"][k]), *times, f"{gap:.0e}"))
    return found


def draw(numbers: dict[str, Any]) -> Any:
    """Left every class over its own time, right all of them over 2 p r t, and the gaps under it."""
    import matplotlib as mpl

    figure = new_figure(11, 5.0)
    grid = figure.add_gridspec(2, 2, height_ratios=(5, 1))
    raw, one, strip = (figure.add_subplot(place) for place in (grid[:, 0], grid[0, 1], grid[1, 1]))
    rate = 2 * numbers["frequency"] * numbers["norm"]
    order = np.argsort(rate)
    shades = mpl.colormaps[ORDERED](np.linspace(0.15, 1, len(rate)))
    look: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": "white", "markersize": 5, "zorder": 3}
    one.plot(numbers["tau"], numbers["curve"], color=INK, linewidth=2, zorder=2)
    for place, k in enumerate(order):
        colour = shades[place]
        raw.plot(numbers["tau"][1:] / rate[k], numbers["curve"][1:], color=colour, linewidth=1.5)
        raw.plot(numbers["time"][k], numbers["error"][k], color=colour, **look)
        one.plot(rate[k] * numbers["time"][k], numbers["error"][k], color=colour, **look)
        gap = np.maximum(np.abs(numbers["error"][k] - numbers["law"][k]), 1e-17)
        strip.plot(rate[k] * numbers["time"][k], gap, ".", color=colour, markersize=4)
    for k, where in ((order[-1], 0.42), (order[0], 0.42)):
        at = float(np.interp(-where, -numbers["curve"], numbers["tau"])) / rate[k]
        text = f"p = {number(numbers['frequency'][k], 2)}, r = {number(numbers['norm'][k], 2)}"
        colour = shades[-1] if k == order[-1] else INK
        left = k == order[-1]
        raw.annotate(text, (at, where), (-6 if left else 6, 0), textcoords="offset points", ha="right" if left else "left",
                     color=colour, fontsize=9.5)  # fmt: skip
    raw.set(xscale="log", xlabel="time t = step size × step", ylabel="error: probability of the wrong label", ylim=(0, 0.52))
    raw.set_xlim(0.2 * _LATEST / rate.max() / 10, 9 * _LATEST / rate.min())
    raw.set_title("twelve classes, each at its own speed" if len(rate) == 12 else "each class at its own speed", loc="left")
    one.set(ylim=(0, 0.52))
    one.tick_params(labelbottom=False)
    one.set_title("the same errors over frequency × norm × time: one curve", loc="left")
    one.annotate("law U(2 p r t)", (float(np.interp(-0.2, -numbers["curve"], numbers["tau"])), 0.2), (12, 4),
                 textcoords="offset points", color=INK)  # fmt: skip
    strip.axhline(1e-8, color=GUIDE, linewidth=0.8)
    strip.set(yscale="log", ylim=(1e-17, 1e-7), yticks=[1e-16, 1e-12, 1e-8], xlabel="2 p r t", ylabel="gap to\nthe law")
    strip.sharex(one)
    headline(figure, conclusion(numbers), "Lines: law (3.11). Circles: networks of 1 to 16 neurons in 5 dimensions, trained")
    return figure
