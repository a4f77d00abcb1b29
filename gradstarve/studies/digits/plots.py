"""The figures of the digits: one for each study, lines with bands over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, GUIDE, NOTE, ORDERED, headline, new_figure, save, sheet
from gradstarve.studies.digits.patch import NOT_A_REMEDY
from gradstarve.studies.digits.train import interval

_LOSSES = {"cross-entropy": (COLOURS[0], "-", "o"), "hinge": (COLOURS[1], (0, (5, 2)), "s")}
_SWEEPS = {"weights": (COLOURS[0], "o"), "fewer images": (COLOURS[2], "^"), "brightness": (COLOURS[1], "s")}


def draw(name: str, found: dict[str, Any], path: Any = None) -> Any:
    """The figure of the study `name`, one of `study.STUDIES`, from its result; saved to `path` if given."""
    size = {"error": (12, 4.2), "speed": (10.5, 4.8), "starvation": (12.5, 4.6), "convolution": (12, 4.4)}
    panels = {"error": 3, "speed": 2, "starvation": 2, "convolution": 3}
    if name == "remedies":
        count = len(found["tables"])
        rows = max(len(table["rows"]) for table in found["tables"].values())
        size["remedies"], panels["remedies"] = (3.2 + 4.2 * count, 1.6 + 0.27 * rows), count
    with sheet():
        figure = new_figure(*size[name])
        axes = np.atleast_1d(figure.subplots(1, panels[name]))
        title = {
            "error": _error,
            "speed": _speed,
            "starvation": _starvation,
            "convolution": _convolution,
            "remedies": _remedies,
        }[name](axes, found)
        headline(figure, title, size=12)
        if path is not None:
            save(figure, path)
    return figure


def _band(panel: Any, x: Any, curves: np.ndarray, alpha: float = 0.18, **style: Any) -> None:
    """The mean of [seeds, records] with a band of 5 to 95 % of the seeds."""
    low, high = np.quantile(curves, (0.05, 0.95), axis=0)
    panel.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
    panel.plot(x, curves.mean(0), linewidth=1.8, **style)


def _points(panel: Any, x: Any, values: Any, **style: Any) -> None:
    """Means over seeds, the first axis of `values` [seeds, x], with 95 % confidence intervals."""
    mean, low, high = interval(values)
    panel.errorbar(x, mean, yerr=(mean - low, high - mean), capsize=2.5, linewidth=1.2, markersize=5.5, **style)


def _dress(panel: Any, title: str, x: str, y: str) -> None:
    panel.set_title(title, loc="left")
    panel.set_xlabel(x)
    panel.set_ylabel(y)


def _plain_ticks(panel: Any, *axes: str) -> None:
    """1, 2, 5, 10, ... on logarithmic axes, in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for name in axes:
        axis = getattr(panel, f"{name}axis")
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


_TIME = "time t = step size × step"


def _error(axes: Any, found: dict[str, Any]) -> str:
    smallest = min(found["scales"])
    for loss, (colour, line, marker) in _LOSSES.items():
        run = found["runs"][f"{loss} {smallest}"]
        for panel, key in ((axes[0], "error"), (axes[1], "margin")):
            _band(panel, run["time"], run[key], color=colour, linestyle=line, label=loss)
        x = np.array(found["scales"])
        learnt, predicted = (
            np.stack([found["runs"][f"{loss} {scale}"][key] for scale in found["scales"]], axis=-1)
            for key in ("learnt", "predicted")
        )
        axes[2].plot(x, predicted.mean(0), color=colour, linestyle=line, linewidth=1.2, label=f"{loss}, closed form")
        _points(axes[2], x, learnt, color=colour, linestyle="none", marker=marker, label=f"{loss}, trained")
    _dress(axes[0], "error of the training images", _TIME, "error σ(−m), mean over images")
    _dress(axes[1], "margin of the training images", _TIME, "margin m = y f(x), mean over images")
    _dress(axes[2], "time to a mean margin of 1", "standard deviation of the weights at the start", "time")
    axes[0].set_ylim(0, 0.53)
    axes[1].axhline(1, color=GUIDE, linewidth=0.8, linestyle=":")
    axes[2].set_xscale("log")
    axes[2].set_ylim(0, None)
    axes[0].legend()
    axes[2].legend(fontsize=8.5)
    return f"Two digits, one hidden ReLU layer: lines are means over {run['error'].shape[0]} seeds, bands 5–95 % of them"


def _speed(axes: Any, found: dict[str, Any]) -> str:
    for panel, suffix in zip(axes, ("", ", raw pixels"), strict=True):
        reach = []
        for name, (colour, marker) in _SWEEPS.items():
            rows = found["sweeps"].get(name + suffix)
            if rows is None:
                continue
            x = np.array([row["frequency"] * row["norm"].mean() for row in rows])
            times = np.stack([row["margin"] for row in rows], axis=-1)
            slope = interval(found["fits"][name + suffix]["margin"])
            label = f"{'r' if name == 'brightness' else 'p'} by {name}, slope "
            label += f"{slope[0]:.3f} ± {(slope[2] - slope[1]) / 2:.3f}".replace("-", "−")
            style = {"color": colour, "marker": marker, "markerfacecolor": "white"}
            _points(panel, x, times, linestyle="none", label=label, **style)
            reach.append((x, times.mean(0)))
            if "predicted" in rows[0]:
                order = np.argsort(x)
                predicted = np.array([row["predicted"].mean() for row in rows])
                panel.plot(x[order], predicted[order], color=colour, linewidth=1.3)
        x, times = (np.concatenate(parts) for parts in zip(*reach, strict=True))
        line = np.geomspace(x.min() / 1.1, x.max() * 1.1, 2)
        middle = np.exp(np.mean(np.log(times * x)))
        panel.plot(line, middle / line, color=GUIDE, linewidth=1, linestyle=(0, (4, 3)), label="∝ 1/(p r)")
        if not suffix:
            panel.plot([], [], color=NOTE, linewidth=1.3, label="closed form on the class means")
        panel.set_xscale("log")
        panel.set_yscale("log")
        _plain_ticks(panel, "x", "y")
        panel.legend(fontsize=8.5)
    seeds = found["sweeps"]["weights"][0]["margin"].size
    _dress(axes[0], "centred pixels: class means opposite", "p r, frequency × norm of the mean image", "time to margin 1")
    _dress(axes[1], "raw pixels: classes share brightness", "p r, frequency × norm of the mean image", "time to margin 1")
    return f"The rarer or fainter class is learnt later: means over {seeds} seeds, 95 % confidence intervals"


def _shades(count: int) -> list[Any]:
    """From light to dark, for values in an order."""
    import matplotlib as mpl

    return [mpl.colormaps[ORDERED](x) for x in np.linspace(0.12, 1.0, count)]


def _starvation(axes: Any, found: dict[str, Any]) -> str:
    runs = found["runs"]
    for fraction, colour in zip(runs, _shades(len(runs)), strict=True):
        run = runs[fraction]
        shown = run["time"] >= min(4, run["time"][-1] / 2)  # before, no network has begun to learn and accuracy is chance
        curves, label = 100 * run["clean"][:, shown], f"{100 * fraction:g} % patched"
        _band(axes[0], run["time"][shown], curves, alpha=0.1, color=colour, label=label)
    last = runs[max(f for f in runs if f < 1) if len(runs) > 1 else max(runs)]
    patched = 100 * last["patched"].mean(0)[shown]
    axes[0].plot(last["time"][shown], patched, color=COLOURS[1], linestyle=(0, (2, 2)), label="images with patch")
    axes[0].set_xscale("log")
    _plain_ticks(axes[0], "x")
    axes[0].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8.5)
    _accuracies(axes[1], runs, "")
    axes[1].legend(loc="lower left")
    _dress(axes[0], "accuracy on test images without patch, both classes alike", _TIME, "accuracy (%)")
    _dress(axes[1], "at the end of training", "fraction of class + that is patched in training (%)", "accuracy (%)")
    seeds = last["clean"].shape[0]
    return f"A bright patch starves the shape: means over {seeds} seeds, bands 5–95 % of them, bars 95 % confidence"


def _accuracies(panel: Any, runs: dict[float, Any], name: str) -> None:
    """Accuracies at the last record against the fraction, on a scale that separates 90, 95 and 100 %."""
    fractions = sorted(runs)
    place = np.arange(len(fractions))
    what = {
        "clean_negative": ("class −, no patch", COLOURS[6], "v"),
        "patched": ("class + with patch", COLOURS[1], "D"),
        "clean": ("both classes, no patch", COLOURS[0], "o"),
        "clean_positive": ("class +, no patch", COLOURS[2], "^"),
    }
    for key, (label, colour, marker) in what.items():
        values = 100 * np.stack([runs[f][key][:, -1] for f in fractions], axis=-1)
        _points(panel, place, values, color=colour, marker=marker, label=name + label)
    panel.set_xticks(place, [f"{100 * f:g}" for f in fractions])
    panel.set_ylim(-3, 103)


def _convolution(axes: Any, found: dict[str, Any]) -> str:
    for loss, (colour, line, _) in _LOSSES.items():
        run = found["shapes"][loss]
        _band(axes[0], run["time"], run["error"], color=colour, linestyle=line, label=loss)
    axes[0].set_ylim(0, 0.53)
    axes[0].legend()
    for (name, sweep), (colour, marker) in zip(found["speeds"].items(), ((COLOURS[0], "o"), (COLOURS[1], "s")), strict=True):
        values, times = zip(*sweep, strict=True)
        # p r relative to that of equal classes, so that both changes share an axis.
        x = np.array(values) / (0.5 if name == "frequency" else 1.0)
        _points(axes[1], x, np.stack(times, axis=-1), color=colour, marker=marker, linestyle="none", label=f"by {name}")
        even = np.mean(times[int(np.abs(np.log(x)).argmin())])
    reach = np.array(axes[1].get_xlim())
    axes[1].set_xscale("log")
    axes[1].set_yscale("log")
    reach = np.array([max(reach[0], 0.1), reach[1]])
    _plain_ticks(axes[1], "x", "y")
    axes[1].plot(reach, even / reach, color=GUIDE, linewidth=1, linestyle=(0, (4, 3)), label="∝ 1/(p r)")
    axes[1].legend()
    _accuracies(axes[2], found["runs"], "")
    axes[2].legend(loc="lower left", fontsize=8.5)
    _dress(axes[0], "error, centred pixels", _TIME, "error σ(−m), mean over images")
    _dress(axes[1], "time to margin 1 of class +", "p r, as multiples of even classes", "time")
    _dress(axes[2], "accuracy at the end, raw pixels", "fraction of class + that is patched (%)", "accuracy (%)")
    seeds = run["error"].shape[0]
    return f"A convolutional network on the same digits: {seeds} seeds, bands 5–95 % of them, bars 95 % confidence"


def _remedies(axes: Any, found: dict[str, Any]) -> str:
    names = list(dict.fromkeys(name for table in found["tables"].values() for name in table["rows"]))
    seeds = 0
    for panel, (fraction, table) in zip(axes, found["tables"].items(), strict=True):
        for y, name in enumerate(names):
            row = table["rows"].get(name)
            if row is None:
                continue
            seeds = row["end"].size
            for when, face, shift in (("early", "white", -0.13), ("end", COLOURS[0], 0.13)):
                mean, low, high = (100 * part for part in interval(row[when]))
                panel.errorbar(
                    mean,
                    y + shift,
                    xerr=[[mean - low], [high - mean]],
                    color=COLOURS[0],
                    marker="o",
                    markerfacecolor=face,
                    markersize=5,
                    capsize=2,
                    linewidth=1.1,
                    linestyle="none",
                    label=f"t = {table[when]:g}" + (", as long as no patch takes" if when == "early" else ", the end"),
                )
        for name in NOT_A_REMEDY:
            panel.axvline(100 * table["rows"][name]["end"].mean(), color=GUIDE, linewidth=0.9, linestyle=":")
        panel.set_yticks(np.arange(len(names)), names if panel is axes[0] else [""] * len(names))
        panel.set_ylim(len(names) - 0.5, -0.5)
        low, high = panel.get_xlim()  # intervals of few seeds may extend beyond possible values
        panel.set_xlim(max(low, 0), min(high, 102))
        handles, labels = panel.get_legend_handles_labels()
        panel.legend(handles[:2], labels[:2], fontsize=8.5, loc="lower left")
        _dress(panel, f"patch on {100 * fraction:g} % of class +", "accuracy on test images without patch (%)", "")
    return f"What each remedy recovers: {seeds} seeds, 95 % confidence; dotted: plain and no patch at the end"
