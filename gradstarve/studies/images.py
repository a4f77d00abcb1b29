"""Shortcuts on real images: what the report says before training of samples not seen, beside networks that were trained.

Handwritten digits 0 to 4 against 5 to 9, 8 x 8 pixels in three colours, with a shortcut that agrees with the class on most
images and contradicts it on the rest: the digit is red or green ("colour"), or stripes stand or lie behind it ("stripes");
and "clean" images, whose colour is drawn by chance. The starvation report of a small convolutional network at its first
weights predicts the accuracy of the worst cell (class x shortcut) on test images, for nine ways to train; then each way is
tried. In JAX the network is an equinox module, trained by descent on all images, which is what the report speaks of but for
the linearisation; in PyTorch it has biases and the first weights of PyTorch, and is trained by SGD with momentum on batches.
All ways are read when plain training has come down to the mean error of the report's horizon, or as long after it as the way
says.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit
from scipy.stats import spearmanr

from gradstarve.diagnosis import StarvationReport, starvation_report
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    Progress,
    did_you_mean,
    headline,
    new_figure,
    number,
    save,
    sheet,
    short_repr,
    table_text,
    to_jsonable,
)
from gradstarve.problem import SIDE, Dataset, DeepReLU, GradientDescent, SpectralDecoupling, as_loss
from gradstarve.problem._datasets import _load as load_digits
from gradstarve.simulation import simulate
from gradstarve.studies.digits.convolution import Convolutional, convolutional
from gradstarve.studies.digits.train import interval
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import choices, counts, positive, seeds, setting
from gradstarve.studies.shortcut import loss_of

CASES = ("colour", "stripes", "clean")
FRAMEWORKS = ("jax", "torch")
WAYS = {
    "plain": "train as planned",
    "re-weighted": "re-weight the cells alike",
    "margin control": "margin control",
    "spectral decoupling": "spectral decoupling",
    "stopped": "stop at time",
    "re-weighted, stopped": "re-weight the cells alike and stop",
    "re-weighted later": "re-weight from the horizon on",
    "last layer re-trained": "re-train the last layer",
    "edited": "train and test on the edited samples",
}
"""Ways to train, and how the report begins their names."""
PENALTY = 0.02
_RECORDS = 30


def _cases(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    found = []
    for one in (value,) if isinstance(value, str) else value:
        kind, _, share = one.partition(" ") if isinstance(one, str) else (one[0], "", one[1])
        if kind not in CASES:
            raise ValueError(f"{name} must be of {', '.join(CASES)}, got {kind!r}{did_you_mean(kind, CASES)}")
        try:
            share = 0.5 if kind == "clean" else positive(name, float(share or 0.95))
        except ValueError:
            raise ValueError(f"{name} must be a name and an agreement such as 'colour 0.95', got {one!r}") from None
        if kind != "clean" and not 0.5 < share < 1:
            raise ValueError(f"{name}: the agreement must be above 1/2 and below 1, got {share:g}")
        found.append((kind, share))
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must be at least one, each once, got {found}")
    return tuple(found)


@dataclass(frozen=True)
class ImageSettings(plane.Settings):
    """What `image_study` takes, looked at before anything is computed.

    `cases`: names of `CASES` with an agreement, as "colour 0.95" or ("colour", 0.95); `frameworks` of `FRAMEWORKS`;
    `networks`: seeds, each with its own images, shortcut and first weights; `channels` of both convolutions; `train`,
    `test`: numbers of images; `step_size` and `steps`, at most, of descent on the mean loss; `size` of the stripes.
    """

    cases: tuple[tuple[str, float], ...] = setting(("colour 0.95", "stripes 0.95", "clean"), _cases)
    frameworks: tuple[str, ...] = setting(("jax",), choices(FRAMEWORKS))
    networks: int = setting(20, counts(2))
    channels: int = setting(8, counts(2))
    train: int = setting(150, counts(40))
    test: int = setting(160, counts(40))
    step_size: float = setting(0.3, positive)
    steps: int = setting(300, counts(_RECORDS))
    size: float = setting(0.5, positive)
    key: int | tuple[int, ...] = setting(0, seeds)


class Images(NamedTuple):
    """One data set: rows of pixels [n, 192] in float32, labels ±1, whether the shortcut is there, and images without it."""

    x: np.ndarray
    y: np.ndarray
    has: np.ndarray
    clean: np.ndarray

    @property
    def cells(self) -> np.ndarray:
        """Members [4, n] of class x shortcut."""
        return np.stack([(self.y == sign) & (self.has == value) for sign in (1, -1) for value in (True, False)])


def images(case: str, agreement: float, count: int, test: int, size: float, key: int) -> tuple[Images, Images]:
    """Training and test images without a shared one. The shortcut agrees with the class (red, or standing stripes, for class
    +) on a share `agreement` of each class in training, and on half of each class in the test.

    >>> train, test = images("colour", 0.9, 100, 60, 0.5, 0)
    >>> train.x.shape, float((train.has == (train.y > 0)).mean()), float((test.has == (test.y > 0)).mean())
    ((100, 192), 0.9, 0.5)
    """
    pixels, digits = load_digits()
    rng = np.random.default_rng((key, CASES.index(case)))
    halves = [rng.permutation(np.flatnonzero((digits < 5) == low)) for low in (True, False)]
    parts, used = [], 0
    for n, share in ((count, agreement), (test, 0.5)):
        half = n // 2
        chosen = np.concatenate([one[used : used + half] for one in halves])
        used += half
        y = np.repeat([1, -1], half)
        agrees = np.concatenate([rng.permutation(half) < round(share * half) for _ in range(2)])
        has = (y > 0) == agrees
        grey = pixels[chosen].reshape(-1, SIDE, SIDE, 1)
        plain = np.concatenate([grey, grey, 0 * grey], -1) / 2  # as bright as in one colour, and in neither
        if case == "stripes":
            x, columns = plain.copy(), np.arange(SIDE) % 2 == 0
            behind = np.where(has[:, None, None], columns[None, None, :], columns[None, :, None])
            x[..., 2] = size * behind * (1 - grey[..., 0])
        else:
            x = np.concatenate([grey * has[:, None, None, None], grey * ~has[:, None, None, None], 0 * grey], -1)
        rows = [part.reshape(len(y), -1).astype(np.float32) for part in (x, plain)]
        parts.append(Images(rows[0], y, has, rows[1]))
    return parts[0], parts[1]


class Outcome(NamedTuple):
    """One framework and case: accuracies of the worst cell by way, [seeds, ways], `predicted` before training and `trained`;
    `cells`, `trained_cells` [seeds, 4] of plain training; `alarms`, `found` [seeds]: whether the report raised one with the
    attribute named, and without groups; `seconds` [seeds, 2] of processors: of the report, and of one seed's training in
    every way; `reached` [seeds]: whether plain training came down to the error of the horizon."""

    framework: str
    case: str
    agreement: float
    predicted: np.ndarray
    trained: np.ndarray
    cells: np.ndarray
    trained_cells: np.ndarray
    alarms: np.ndarray
    found: np.ndarray
    seconds: np.ndarray
    reached: np.ndarray

    @property
    def name(self) -> str:
        """Framework and case in words."""
        return f"{self.framework}, {self.case}" + ("" if self.case == "clean" else f" {number(self.agreement)}")

    @property
    def errors(self) -> np.ndarray:
        """|predicted - trained| of the worst cell, the mean over ways, [seeds]."""
        return np.abs(self.predicted - self.trained).mean(1)

    @property
    def ranks(self) -> np.ndarray:
        """Spearman's correlation over ways of predicted and trained, [seeds]; 0 where all ways are alike."""
        found = []
        for one, other in zip(self.predicted, self.trained, strict=True):
            constant = np.ptp(one) == 0 or np.ptp(other) == 0
            found.append(0.0 if constant else _rank_correlation(one, other))
        return np.array(found)

    @property
    def mean_rank(self) -> float:
        """The same of the means over seeds."""
        return _rank_correlation(self.predicted.mean(0), self.trained.mean(0))

    @property
    def best(self) -> np.ndarray:
        """Whether the way predicted to be best is within two points of the best one trained, without editing, [seeds]."""
        chosen = self.predicted[:, :-1].argmax(1)
        mine = self.trained[np.arange(len(chosen)), chosen]
        return mine >= self.trained[:, :-1].max(1) - 0.02

    @property
    def gained(self) -> np.ndarray:
        """What the way predicted to be best gains on plain training, trained, [seeds]."""
        chosen = self.predicted[:, :-1].argmax(1)
        return self.trained[np.arange(len(chosen)), chosen] - self.trained[:, 0]


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    found: Any = spearmanr(one, other)
    return float(found.statistic)


@dataclass(frozen=True, eq=False)
class ImageStudy:
    """What `image_study` found; `image_study(**study.settings)` computes it again."""

    settings: dict[str, Any]
    outcomes: tuple[Outcome, ...]

    __repr__ = short_repr

    def outcome(self, framework: str, case: str, agreement: float = 0.5) -> Outcome:
        """The outcome of that framework and case; `KeyError` if it is not part of the study."""
        for one in self.outcomes:
            if (one.framework, one.case, one.agreement) == (framework, case, agreement):
                return one
        raise KeyError((framework, case, agreement))

    def conclusion(self) -> str:
        """In one sentence, how near the predictions are where there is a shortcut, or where there is none."""
        one = max(self.outcomes, key=lambda one: one.case != "clean")
        error, rank = 100 * float(one.errors.mean()), float(one.ranks.mean())
        return (
            f"The accuracy of the worst cell ({one.name}) is predicted before training to {number(error, 2)} points on the "
            f"mean over {len(WAYS)} ways to train, and their order with a rank correlation of {number(rank, 2)}"
        )

    def rows(self) -> list[tuple[str, ...]]:
        """A row a framework and case, with intervals of 95 % over seeds, header first."""
        rows: list[tuple[str, ...]] = [
            ("images", "plain: predicted", "trained", "mean error", "rank correlation", "best is predicted", "it gains",
             "alarm, named", "unnamed", "seconds", "all trained")
        ]  # fmt: skip
        for one in self.outcomes:
            count = len(one.alarms)
            shares = [f"{int(v.sum())} of {count}" for v in (one.best, one.alarms, one.found)]
            values = [_span(v, 100) for v in (one.predicted[:, 0], one.trained[:, 0], one.errors)]
            seconds = [number(float(v), 2) for v in one.seconds.mean(0)]
            gained = _span(one.gained, 100)
            rows.append((one.name, *values, _span(one.ranks, 1), shares[0], gained, *shares[1:], *seconds))
        return rows

    def way_rows(self) -> list[tuple[str, ...]]:
        """A row a framework, case and way: accuracy of the worst cell in percent, predicted and trained, header first."""
        rows: list[tuple[str, ...]] = [("images", "way", "predicted", "trained", "predicted less trained")]
        for one in self.outcomes:
            for k, way in enumerate(WAYS):
                gap = one.predicted[:, k] - one.trained[:, k]
                rows.append((one.name, way, *(_span(v, 100) for v in (one.predicted[:, k], one.trained[:, k], gap))))
        return rows

    def number_rows(self) -> list[tuple[Any, ...]]:
        """Every number, a row a framework, case, seed and way, header first."""
        rows: list[tuple[Any, ...]] = [("framework", "case", "agreement", "seed", "way", "predicted", "trained")]
        for one in self.outcomes:
            for seed, pair in enumerate(zip(one.predicted, one.trained, strict=True)):
                for way, predicted, trained in zip(WAYS, *pair, strict=True):
                    rows.append((one.framework, one.case, one.agreement, seed, way, float(predicted), float(trained)))
        return rows

    def table(self) -> str:
        """Both tables as text."""
        return f"{table_text(self.rows())}\n\n{table_text(self.way_rows())}"

    def claims(self) -> list[tuple[str, bool]]:
        """What the report promises, and whether it holds, interval against interval."""
        found: list[tuple[str, bool]] = []
        for one in self.outcomes:
            _, low, high = interval(one.predicted[:, 0] - one.trained[:, 0])
            found.append((f"{one.name}: plain training as predicted within 10 points", bool(low >= -0.1 and high <= 0.1)))
            if one.case == "clean":
                found.append((f"{one.name}: no alarm", not (one.alarms.any() or one.found.any())))
                continue
            found.append((f"{one.name}: the report names the shortcut in every seed", bool(one.alarms.all())))
            found.append((f"{one.name}: ways are ranked better than by chance", bool(interval(one.ranks)[1] > 0)))
            found.append((f"{one.name}: the best way is predicted in most seeds", bool(one.best.mean() > 0.5)))
            text = f"{one.name}: the way predicted to be best lifts the worst cell"
            found.append((text, bool(interval(one.gained)[1] > 0)))
        return found

    def notes(self) -> str:
        """The claims, each with its verdict."""
        return "\n".join(f"{'holds         ' if holds else 'does not hold '}  {text}" for text, holds in self.claims())

    def to_dict(self) -> dict[str, Any]:
        """Every number in plain JSON types."""
        return to_jsonable({"ways": list(WAYS), "outcomes": [one._asdict() for one in self.outcomes]})

    def plot(self, path: Any = None) -> Any:
        """Predicted against trained for every way, as a matplotlib `Figure`; saved to `path` if there is one."""
        return draw(self, path)


def _span(values: np.ndarray, scale: float) -> str:
    mean, low, high = (scale * float(v) for v in interval(values))
    digits = 0 if scale == 100 else 2
    return f"{mean:.{digits}f} ± {(high - low) / 2:.{digits}f}"


def image_study(*, progress: Any = None, **settings: Any) -> ImageStudy:
    """The report's predictions for images with a shortcut, and networks trained in every way, for each case and framework.

    Settings are those of `ImageSettings`. `ValueError` for bad ones, `ImportError` without scikit-learn, or without PyTorch
    where it is asked for.
    """
    s: Any = ImageSettings.of(**settings)
    outcomes = []
    with Progress(progress, len(s.cases) * len(s.frameworks) * s.networks, "shortcuts on images") as bar:
        done = itertools.count(1)
        for framework in s.frameworks:
            for case, agreement in s.cases:
                outcomes.append(_outcome(framework, case, agreement, s, lambda: bar.update(next(done))))
    stored = asdict(s) | {"cases": [list(one) for one in s.cases]}
    return ImageStudy(stored, tuple(outcomes))


def _outcome(framework: str, case: str, agreement: float, s: Any, tick: Callable[[], None]) -> Outcome:
    first = s.key if isinstance(s.key, int) else s.key[0]
    data = [images(case, agreement, s.train, s.test, s.size, first + k) for k in range(s.networks)]
    networks = (_jax_networks if framework == "jax" else _torch_networks)(s, first)
    predicted, cells, alarms, found, seconds = [], [], [], [], []
    for network, (train, test) in zip(networks, data, strict=True):
        begin = time.process_time()
        report = _report(network, train, test)
        plans = {plan.name: plan for plan in report.heldout.plans}  # pyright: ignore[reportOptionalMemberAccess]
        seconds.append(time.process_time() - begin)
        predicted.append([_plan(plans, start).accuracy for start in WAYS.values()])
        told = _plan(plans, WAYS["plain"]).cells
        cells.append([told[f"class {sign}, {name}"] for sign in "+−" for name in ("there", "not there")])
        alarms.append(bool(report.alarms))
        kernel = train.y[:, None] * report.kernel * train.y
        start = train.y * report.margins[0]
        unnamed = starvation_report.from_kernel(kernel, train.y, start, features=0)  # pyright: ignore
        found.append(bool(unnamed.alarms))
        tick()
    begin = time.process_time()
    trained, trained_cells, reached = (_train_jax if framework == "jax" else _train_torch)(networks, data, s)
    each = (time.process_time() - begin) / s.networks
    return Outcome(
        framework, case, agreement, np.array(predicted), trained, np.array(cells), trained_cells, np.array(alarms),
        np.array(found), np.stack([seconds, np.full(s.networks, each)], 1), reached,
    )  # fmt: skip


def _plan(plans: dict[str, Any], start: str) -> Any:
    """The plan whose name begins so; of two, the shorter beginning is not the longer one."""
    return min((plan for name, plan in plans.items() if name.startswith(start)), key=lambda plan: len(plan.name))


def _report(network: Any, train: Images, test: Images) -> StarvationReport:
    """The report of a network at its first weights, with the shortcut named, the test images, and edited ones."""
    kind = [np.where(one.has, "there", "not there") for one in (train, test)]
    edited = np.concatenate([train.clean, test.clean])
    return starvation_report(
        network, (train.x, train.y), kind[0], test=(test.x, test.y, kind[1]), edited=edited, last_layer=True,
        penalty=PENALTY, features=0,
    )  # fmt: skip


def _worst(right: np.ndarray, test: Images) -> np.ndarray:
    """Accuracy of the worst cell, [...], of right [..., n]."""
    cells = test.cells
    return (right.astype(float) @ (cells.T / cells.sum(1))).min(-1)


def _stopped(right: np.ndarray, test: Images, upto: int) -> float:
    """The worst cell of right [T, n] where each half of the images is read at the time that is best for the other half."""
    half = np.zeros(len(test.y), bool)
    for cell in test.cells:
        half[np.flatnonzero(cell)[::2]] = True
    found = np.zeros(len(test.y))
    for mine in (half, ~half):
        cells = test.cells & ~mine
        rates = right[: upto + 1].astype(float) @ (cells.T / cells.sum(1))
        found[mine] = right[int(np.argmax(rates.min(1) + 0.01 * rates.mean(1))), mine]
    return float(_worst(found, test))


def _alike(train: Images) -> np.ndarray:
    """Weights [n] of mean 1 under which all cells count alike."""
    counts = train.cells.sum(1)
    return (train.cells / np.maximum(counts, 1)[:, None]).sum(0) * len(train.y) / (counts > 0).sum()


class _Runs(NamedTuple):
    """Of one seed: right [T, n] of the test images for plain, re-weighted, margin control, decoupled and edited training,
    and of what goes on from the horizon at record `at`: re-weighted, and the last layer alone."""

    ways: dict[str, np.ndarray]
    at: int


def _read(runs: _Runs, test: Images) -> list[float]:
    ways, at = runs.ways, runs.at
    found = {name: float(_worst(right[at], test)) for name, right in ways.items()}
    found["stopped"] = _stopped(ways["plain"], test, at)
    found["re-weighted, stopped"] = _stopped(ways["re-weighted"], test, at)
    return [found[way] for way in WAYS]


def _cells(right: np.ndarray, test: Images) -> np.ndarray:
    return right.astype(float) @ (test.cells.T / test.cells.sum(1))


# JAX.


class OneLogit(eqx.Module):
    """A `Convolutional` network as a model of one image, [192] to a number."""

    network: Convolutional

    def __call__(self, x: jax.Array) -> jax.Array:
        """The logit of one image."""
        return self.network(x[None])[0]


def _jax_networks(s: Any, first: int) -> list[OneLogit]:
    together = convolutional(jax.random.key(first), s.networks, s.channels, 1.0, 3)
    return [OneLogit(jax.tree.map(lambda leaf, k=k: leaf[k], together)) for k in range(s.networks)]


@eqx.filter_jit
def _descend(points: Any, weights: Any, labels: Any, unseen: Any, start: Any, loss: Any, step: Any, steps: int, every: int):
    """Networks [records], logits of training images and of `unseen` ones; all seeds in one program."""

    def one(points: Any, weights: Any, unseen: Any, network: Any) -> Any:
        run = simulate(
            Dataset(points, labels, weights), network, loss, GradientDescent(step), steps, record_every=every,
            record_networks=True,
        )  # fmt: skip
        return run.networks, run.recorded, run.networks(unseen)

    return jax.vmap(one)(points, weights, unseen, start)


def _train_jax(networks: list[OneLogit], data: list[tuple[Images, Images]], s: Any) -> tuple[np.ndarray, ...]:
    """Accuracies of the worst cell [seeds, ways], of plain training's cells [seeds, 4], and whether it came down [seeds]."""
    every = s.steps // _RECORDS
    count, labels = len(data), jnp.asarray(data[0][0].y, jnp.float32)
    signs = data[0][1].y
    step = jnp.float32(s.step_size)

    def stack(pick: Callable[[Images, Images], np.ndarray]) -> jax.Array:
        return jnp.asarray(np.stack([pick(*one) for one in data]), jnp.float32)

    start = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one.network for one in networks])
    x, unseen = stack(lambda train, _: train.x), stack(lambda _, test: test.x)
    clean, unseen_clean = stack(lambda train, _: train.clean), stack(lambda _, test: test.clean)
    flat = jnp.full((count, len(labels)), 1 / len(labels), jnp.float32)
    alike = stack(lambda train, _: _alike(train) / len(train.y))

    def run(points: Any, weights: Any, unseen: Any, start: Any, loss: Any = "cross-entropy") -> tuple[Any, Any, np.ndarray]:
        nets, seen, outputs = _descend(
            points, weights, labels, unseen, start, as_loss(loss), step, every * _RECORDS, every
        )
        return nets, np.asarray(seen, float), np.asarray(outputs) * signs > 0

    nets, seen, plain = run(x, flat, unseen, start)
    error = expit(-seen * np.asarray(labels)).mean(-1)
    low = error <= 0.05
    at = np.where(low.any(1), low.argmax(1), _RECORDS)
    ways = {
        "plain": plain,
        "re-weighted": run(x, alike, unseen, start)[2],
        "margin control": run(x, flat, unseen, start, loss_of("smoothed"))[2],
        "spectral decoupling": run(x, flat, unseen, start, SpectralDecoupling("cross-entropy", PENALTY))[2],
        "edited": run(clean, flat, unseen_clean, start)[2],
    }
    there = jax.tree.map(lambda leaf: leaf[jnp.arange(count), at], nets)
    ways["re-weighted later"] = run(x, alike, unseen, there)[2]
    features = [jax.vmap(lambda net, x: net.features(x))(there, one) for one in (x, unseen)]
    ways["last layer re-trained"] = run(features[0], alike, features[1], DeepReLU((there.read_out,)))[2]
    found, cells = [], []
    for k, (_, test) in enumerate(data):
        runs = _Runs({name: right[k] for name, right in ways.items()}, int(at[k]))
        found.append(_read(runs, test))
        cells.append(_cells(plain[k, at[k]], test))
    return np.array(found), np.array(cells), low.any(1)


# PyTorch.


def _torch_networks(s: Any, first: int) -> list[Any]:
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ImportError("networks in PyTorch need it: pip install 'gradstarve[torch]'") from None
    nn, found = torch.nn, []
    for k in range(s.networks):
        torch.manual_seed(first + k)
        blocks = (nn.Unflatten(1, (SIDE, SIDE, 3)), _LastFirst(), nn.Conv2d(3, s.channels, 3, 2, 1), nn.ReLU())
        blocks += (nn.Conv2d(s.channels, s.channels, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * s.channels, 1))
        found.append(nn.Sequential(*blocks))
    return found


def _LastFirst() -> Any:
    """Colours from the last axis to the first, where PyTorch has them."""
    import torch  # pyright: ignore[reportMissingImports]

    class LastFirst(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x.movedim(-1, 1)

    return LastFirst()


_BATCH, _MOMENTUM = 30, 0.9


def _train_torch(networks: list[Any], data: list[tuple[Images, Images]], s: Any) -> tuple[np.ndarray, ...]:
    """As `_train_jax`."""
    import torch  # pyright: ignore[reportMissingImports]

    every = s.steps // _RECORDS
    tensor = torch.from_numpy
    found, cells, reached = [], [], []
    for k, (network, (train, test)) in enumerate(zip(networks, data, strict=True)):
        labels, alike = tensor(train.y.astype(np.float32)), tensor(_alike(train).astype(np.float32))
        flat = torch.ones_like(labels)

        def run(network: Any, x: Any, weights: Any, unseen: Any, smooth: float = 0.0, penalty: float = 0.0,
                upto: int = _RECORDS, labels: Any = labels, seed: int = k, signs: np.ndarray = test.y) -> Any:  # fmt: skip
            """Copies [T + 1] of the network on its way, errors [T + 1], and right [T + 1, n]."""
            import copy

            torch.manual_seed(seed)
            network = copy.deepcopy(network)
            weights_of = [one for one in network.parameters() if one.requires_grad]
            descent = torch.optim.SGD(weights_of, s.step_size * (1 - _MOMENTUM), _MOMENTUM)
            x, unseen, copies, errors, right = tensor(x), tensor(unseen), [], [], []
            order: list[int] = []
            for step in range(upto * every + 1):
                if step % every == 0:
                    with torch.no_grad():
                        errors.append(float(torch.sigmoid(-labels * network(x)[:, 0]).mean()))
                        right.append(network(unseen)[:, 0].numpy() * signs > 0)
                    copies.append(copy.deepcopy(network))
                if len(order) < _BATCH:
                    order = torch.randperm(len(labels)).tolist()
                some, order = order[:_BATCH], order[_BATCH:]
                f = network(x[some])[:, 0]
                of = torch.nn.functional.softplus
                loss = (1 - smooth) * of(-labels[some] * f) + smooth * of(labels[some] * f) + penalty / 2 * f**2
                descent.zero_grad()
                (weights[some] * loss).mean().backward()
                descent.step()
            return copies, np.array(errors), np.array(right)

        copies, errors, plain = run(network, train.x, flat, test.x)
        low = errors <= 0.05
        at = int(low.argmax()) if low.any() else _RECORDS
        upto = max(at, 1)
        there = copies[at]
        ways = {
            "plain": plain,
            "re-weighted": run(network, train.x, alike, test.x, upto=upto)[2],
            "margin control": run(network, train.x, flat, test.x, smooth=0.1, upto=upto)[2],
            "spectral decoupling": run(network, train.x, flat, test.x, penalty=PENALTY, upto=upto)[2],
            "edited": run(network, train.clean, flat, test.clean, upto=upto)[2],
            "re-weighted later": run(there, train.x, alike, test.x, upto=upto)[2],
        }
        for part in list(there)[:-1]:
            part.requires_grad_(False)
        ways["last layer re-trained"] = run(there, train.x, alike, test.x, upto=upto)[2]
        found.append(_read(_Runs(ways, at), test))
        cells.append(_cells(plain[at], test))
        reached.append(low.any())
    return np.array(found), np.array(cells), np.array(reached)


# The figure.

_MARKS = ("o", "s", "^", "D", "v", "P", "X", "<", "*")


def draw(study: ImageStudy, path: Any = None) -> Any:
    """Predicted against trained accuracy of the worst cell: a panel a case, a row a framework, a mark a way to train."""
    frameworks = list(dict.fromkeys(one.framework for one in study.outcomes))
    cases = list(dict.fromkeys((one.case, one.agreement) for one in study.outcomes))
    with sheet():
        figure = new_figure(1.0 + 3.0 * max(len(cases), 3), 2.4 + 3.2 * len(frameworks))
        axes = figure.subplots(len(frameworks), len(cases), squeeze=False, sharex=True, sharey=True)
        for row, framework in zip(axes, frameworks, strict=True):
            for axis, (case, agreement) in zip(row, cases, strict=True):
                _panel(axis, study.outcome(framework, case, agreement))
            name = {"jax": "JAX, descent", "torch": "PyTorch, SGD"}[framework]
            row[0].set_ylabel(f"{name}\ntrained, %")
        for axis in axes[-1]:
            axis.set_xlabel("predicted before training, %")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
        headline(
            figure,
            "The worst cell on test images: predicted from the first weights, and trained",
            f"Digits 0–4 against 5–9, a shortcut on a share p; mean and 95 % interval of "
            f"{study.settings['networks']} seeds; ρ: rank correlation of the means",
        )
        if path is not None:
            save(figure, path)
    return figure


def _panel(axis: Any, one: Outcome) -> None:
    axis.plot([0, 100], [0, 100], color=GUIDE, lw=0.9, zorder=1)
    for k, way in enumerate(WAYS):
        (x, *ends_x), (y, *ends_y) = (np.array(interval(100 * v[:, k])) for v in (one.predicted, one.trained))
        axis.errorbar(
            x, y, xerr=np.abs(np.array(ends_x) - x)[:, None], yerr=np.abs(np.array(ends_y) - y)[:, None], fmt=_MARKS[k],
            color=COLOURS[k % len(COLOURS)], ms=6 if k else 7, lw=1.1, label=way, zorder=3,
        )  # fmt: skip
    case = "clean: colour by chance" if one.case == "clean" else f"{one.case}, p = {number(one.agreement)}"
    axis.set_title(f"{case}\nmean error {100 * one.errors.mean():.0f}, ρ = {one.mean_rank:.2f}", loc="left")
    axis.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal")
