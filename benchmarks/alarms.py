"""How often the alarm of `starvation_report` is false, and how often it is raised for a shortcut of known strength.

`python -m benchmarks.alarms` writes benchmarks/results/alarms.json and prints the tables of docs/pytorch.md. Data without a
shortcut: Gaussian blobs in 2, 5, 20 and 50 dimensions, two moons, pairs of handwritten digits, and the same digits through
random convolutional features. Groups: none; one chance group; a chance attribute of three values; and the cells of label and
a chance attribute. Shortcuts: a coordinate, or a corner of the image, of graded strength on nine tenths of one class.

An alarm needs a p-value or a gap, which do not depend on the time, and an index, which costs a training of the linearised
network; so the report is made at a short time first, and to its horizon where p or gap are those of an alarm.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.stats import beta
from sklearn.datasets import load_digits, make_moons

import gradstarve as gs
from benchmarks import timing
from gradstarve.diagnosis._groups import ALARM_GAP, ALARM_P

KINDS = ("blobs 2", "blobs 5", "blobs 20", "blobs 50", "moons", "digits", "convolution")
GROUPS = ("none", "chance group", "chance types", "cells")
STRENGTHS = (0.5, 1.0, 2.0)
GRADED = ("digits", "convolution", "blobs 5", "blobs 20", "moons")  # where power is measured
SAMPLES, WIDTH = 200, 128


def samples(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """x [n, d] without a shortcut, and labels ±1."""
    if kind.startswith("blobs"):
        dim = int(kind.split()[1])
        y = np.repeat([1, -1], SAMPLES // 2)
        x = 0.5 * rng.normal(size=(SAMPLES, dim))
        x[:, 0] += y
        return x, y
    if kind == "moons":
        x, classes = map(np.asarray, make_moons(SAMPLES, noise=0.1, random_state=int(rng.integers(2**31))))
        return x - x.mean(0), 2 * classes - 1
    images, digits = map(np.asarray, load_digits(return_X_y=True))
    pair = rng.choice(10, 2, replace=False)
    chosen = rng.permutation(np.flatnonzero(np.isin(digits, pair)))[:SAMPLES]
    return images[chosen] / 16, np.where(digits[chosen] == pair[0], 1, -1)


def with_shortcut(kind: str, x: np.ndarray, members: np.ndarray, strength: float) -> np.ndarray:
    """A corner of 2 x 2 pixels at `strength`, or `strength` along a new coordinate, for members."""
    if kind in ("digits", "convolution"):
        images = x.reshape(-1, 8, 8).copy()
        images[members, :2, :2] = strength
        return images.reshape(len(x), -1)
    return np.concatenate([x, strength * members[:, None]], 1)


def kernel(kind: str, x: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Products of gradients, and logits: of a network of one hidden layer, or of a linear read-out of random filters."""
    if kind == "convolution":
        filters = rng.normal(size=(64, 1, 3, 3)) / 3
        images = x.reshape(-1, 8, 8)
        maps = np.stack([np.maximum(ndimage.convolve(images, one, mode="constant"), 0) for one in filters], 1)
        pooled = maps.reshape(len(x), 64, 4, 2, 4, 2).mean((3, 5)).reshape(len(x), -1)
        return pooled @ pooled.T + 1, np.zeros(len(x))
    w = rng.normal(size=(x.shape[1], WIDTH)) * np.sqrt(2 / x.shape[1])
    z = rng.normal(size=WIDTH) / np.sqrt(WIDTH)
    hidden = x @ w
    active, gates = np.maximum(hidden, 0), (hidden > 0) * z
    return active @ active.T + (x @ x.T + 1) * (gates @ gates.T) + 1, active @ z


def alarms(K: np.ndarray, logits: np.ndarray, y: np.ndarray, groups, key: int) -> list:
    """The laws with an alarm."""
    options = {"groups": groups, "features": 0, "key": key}
    short = gs.starvation_report.from_kernel(K, y, logits, times=[1e-3 / np.trace(K)], **options)
    if not any(law.p_value <= ALARM_P or law.separation >= ALARM_GAP for law in short.groups):
        return []
    return list(gs.starvation_report.from_kernel(K, y, logits, **options).alarms)


def false_alarm(kind: str, groups: str, seed: int) -> bool:
    """Whether data without a shortcut raise an alarm."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 0])
    x, y = samples(kind, rng)
    K, logits = kernel(kind, x, rng)
    share = rng.uniform(0.2, 0.9)
    if groups == "none":
        named = None
    elif groups == "chance group":
        named = {"chance": rng.random(len(y)) < share}
    else:
        values = rng.integers(0, 3, len(y)) if groups == "chance types" else (rng.random(len(y)) < share).astype(int)
        named = [f"{a}{b}" for a, b in zip(y, values, strict=True)] if groups == "cells" else values.astype(str)
    return bool(alarms(K, logits, y, named, seed))


def found(kind: str, named: bool, strength: float, seed: int) -> bool:
    """Whether the shortcut raises the alarm, and is the group of it."""
    rng = np.random.default_rng([seed, KINDS.index(kind), 1])
    x, y = samples(kind, rng)
    members = (y > 0) & (rng.random(len(y)) < 0.9)
    K, logits = kernel(kind, with_shortcut(kind, x, members, strength), rng)
    laws = alarms(K, logits, y, {"shortcut": members} if named else None, seed)
    return any((law.group.members == members)[y > 0].mean() > 0.9 for law in laws)


def interval(count: int, of: int) -> tuple[float, float]:
    """Exact 95 % for a rate (Clopper and Pearson)."""
    low = beta.ppf(0.025, count, of - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, of - count) if count < of else 1.0
    return float(low), float(high)


def at_most(count: int, of: int) -> float:
    """The rate that is exceeded with a confidence of 5 % only: the end of the one-sided interval of Clopper and Pearson.

    The question of a false alarm has one side. None of 300 is a rate of at most 1 - 0.05^(1/300) = 0.99 %.
    """
    return float(beta.ppf(0.95, count + 1, of - count)) if count < of else 1.0


def _rate(one: dict | None) -> str:
    return f"{one['alarms']} of {one['of']}" if one else "-"


def tables(result: dict) -> str:
    """The rows that are there, in Markdown."""
    lines = [f"| data without a shortcut | {' | '.join(GROUPS)} |", "|---" * (len(GROUPS) + 1) + "|"]
    for kind in KINDS:
        row = [result["false"].get(f"{kind}, {groups}") for groups in GROUPS]
        lines.append(f"| {kind} | {' | '.join(map(_rate, row))} |")
    heads = [f"{how}, {strength:g}" for how in ("named", "none") for strength in STRENGTHS]
    lines += ["", f"| data with a shortcut | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for kind in GRADED:
        row = [result["power"].get(f"{kind}, {head}") for head in heads]
        lines.append(f"| {kind} | {' | '.join(map(_rate, row))} |")
    return "\n".join(lines)


def main() -> None:
    """Run the study and write its numbers."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--sets", type=int, default=300, help="data sets without a shortcut, of each kind and grouping")
    parser.add_argument("--shortcuts", type=int, default=20, help="data sets with one, of each kind and strength")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "alarms.json")
    options = parser.parse_args()
    result = json.loads(options.out.read_text()) if options.out.exists() else {"false": {}, "power": {}}
    result["environment"] = timing.environment() | {"quick": False}
    for kind in KINDS:
        for groups in GROUPS:
            name = f"{kind}, {groups}"
            done = result["false"].get(name, {"alarms": 0, "of": 0})
            if done["of"] < options.sets:  # the seeds that are missing
                count = done["alarms"] + sum(false_alarm(kind, groups, seed) for seed in range(done["of"], options.sets))
                low, high = interval(count, options.sets)
                most = at_most(count, options.sets)
                result["false"][name] = {"alarms": count, "of": options.sets, "low": low, "high": high, "at_most": most}
                print(f"false alarms, {name}: {count} of {options.sets}, at most {100 * most:.2f} %", flush=True)
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    for kind in GRADED:
        for named in (True, False):
            for strength in STRENGTHS:
                name = f"{kind}, {'named' if named else 'none'}, {strength:g}"
                if result["power"].get(name, {}).get("of") != options.shortcuts:
                    count = sum(found(kind, named, strength, seed) for seed in range(options.shortcuts))
                    low, high = interval(count, options.shortcuts)
                    result["power"][name] = {"alarms": count, "of": options.shortcuts, "low": low, "high": high}
                    print(f"found, {name}: {count} of {options.shortcuts}", flush=True)
                    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(tables(result))


if __name__ == "__main__":
    main()
