"""Remedies against gradient starvation on one problem: the effect of each on every feature, and its cost.

The data are samples of S types over K orthogonal features, x = sum of r_k e_k over the type's features with label +1, and
their opposites with label -1. Ordinary two-layer ReLU networks are trained on them under each remedy, all from the same
random starts, together and with all features but one removed from the samples. Measured are

- the starvation index (10.6) of each feature, of its logit v_k = [f(r_k e_k) - f(-r_k e_k)]/2;
- the accuracy on test samples that show feature k alone, in Gaussian noise of standard deviation `noise` in each
  coordinate: the probability that y f(x + noise) > 0. The effect of noise along a feature is proportional to the weight of
  the feature, so that a starved feature is masked by the noise of the feature that starves it;
- the accuracy on test samples like those of training, with the same noise;
- the cost: steps until the mean cross-entropy on the original data falls to each of `loss_levels`.

For comparison there are the law of one layer (10.1), a read-out from zero under the same remedy (not with weight decay, for
which there is no law of several features), and a read-out trained by the same steps, whose gap to the law is due to finite
steps. Ordinary neurons mix features and obey no law from random starts.

Results with the default settings on three tables: the starving pair {1} 0.8, {1, 2} 0.2; the shortcut {1} 0.75,
{1, 2} 0.2, {2} 0.05 (the default); and the ring {1, 2} 0.6, {1, 3} 0.3, {2, 3} 0.1:

- frequency causes starvation, and re-weighting the types by the laws changes the frequencies: all features are right in
  91.5 % of the cases (ring: 87 %), where the slowest had 61 % and 83 % (81 %). For the pair this is training on its rarer
  type alone;
- a logit penalty on *all* samples aims at equal margins (14.4). On the ring, which has as many types as features, this means
  equal logits, and is as good as re-weighting (87 %). In the two other tables it makes things worse, in every
  scaling: a feature that is never needed only disturbs equal margins (pair: 51 %), and a feature that is seldom needed
  nearly so (71 %). `penalty 2 added`, `divided` and `0.1 multiplied` reach the same end at speeds of 1, 1/2 and 1/20;
- a small penalty on the samples *without* the starved feature slows the frequent one: 82 % and 93 % at lambda = 0.01.
  0.1 is too much, and feature 1 starves (80 % and 74 %); on the ring even the small penalty starves feature 2;
- with hinge loss feature 2 catches up if it has samples without feature 1 (88 %); for pair and ring it changes nothing;
- weight decay, early stopping and the step size do not help. Indices below 0 are no success: stopped early, or under a
  decay that erases it alone (9.1), feature 2 has a larger logit beside feature 1 than alone, but far too small a logit;
- there is a price: accuracy on test samples like those of training falls as feature 2 gains, 97.6 % to 93 % and 95.8 % to
  93 %, because a network that relies on both features is affected by the noise of both. (On the ring it stays at 99.1 %.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    FAINT,
    NOTE,
    ConvergenceError,
    HypothesisError,
    Progress,
    as_seed,
    check_positive,
    deprecated,
    headline,
    new_figure,
    number,
    one_key,
    positive_int,
    real_arrays,
    save,
    sheet,
    table_text,
)
from gradstarve.problem import (
    Dataset,
    DeepReLU,
    GradientDescent,
    Loss,
    SpectralDecoupling,
    as_loss,
    datasets,
    init_two_layer,
)
from gradstarve.simulation import simulate

# Ways of training against gradient starvation, and the list of them for a table of sample types.


@dataclass(frozen=True)
class Remedy:
    """One way of training. Fields that are not given are as in training without a remedy.

    `name`; `loss`: inside any penalty; `penalty`: lambda of spectral decoupling, 0 for none, in the `scaling` of
    `SpectralDecoupling`, on the sample types `types` or on all (None); `weight_decay`; `step_factor`: of the step size, at
    the same time = step size x step; `stop_loss`: the mean cross-entropy on the data at which training stops; `factors`: by
    which the samples of each type are weighted, [S].
    """

    name: str
    loss: str = "cross-entropy"
    penalty: float = 0.0
    scaling: str = "added"
    types: tuple[int, ...] | None = None
    weight_decay: float = 0.0
    step_factor: float = 1.0
    stop_loss: float | None = None
    factors: tuple[float, ...] | None = None

    @classmethod
    def of(cls, given: Any) -> Remedy:
        """A remedy, or one from a dict of its fields, in which JSON has turned tuples into lists."""
        if isinstance(given, Remedy):
            return given
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        return cls(**values)

    def loss_for(self, types: Any) -> Loss:
        """The loss of samples whose types are `types`, [n] integers.

        >>> Remedy("some", penalty=0.5, types=(1,)).loss_for([0, 1, 1]).penalty.tolist()
        [0.0, 0.5, 0.5]
        """
        if self.penalty == 0:
            return as_loss(self.loss)
        penalty: Any = self.penalty
        if self.types is not None:
            penalty = np.where(np.isin(np.asarray(types), self.types), self.penalty, 0.0).tolist()
        return SpectralDecoupling(self.loss, penalty, scaling=self.scaling)

    def weights_for(self, types: Any, weights: Any) -> np.ndarray:
        """`weights` [n] of samples of these `types` under the remedy, of sum 1. Types with the factor 0 have weight 0."""
        weights = np.asarray(weights, np.float64)
        if self.factors is not None:
            weights = weights * np.asarray(self.factors)[np.asarray(types)]
        return weights / weights.sum()


def list_remedies(types: Any, probabilities: Any, scales: Any = None, logit: float = 2.0) -> tuple[Remedy, ...]:
    """The remedies that the study compares, first of all none, with weights computed from the laws of this table.

    The starved feature is the slowest one at the start by (10.1); penalties "on samples without" it are on the types
    that do not show it (left out if all types show it), and re-weighting is `fastest_weights`, `equal_speed_weights` and
    `equal_time_weights` to `logit`, those that exist and differ, for one layer.

    >>> for remedy in list_remedies([[1, 0], [1, 1]], [0.9, 0.1])[-5:]:
    ...     print(remedy.name)
    hinge loss
    early stopping
    step size ÷ 4
    step size × 4
    weights: equal speeds
    """
    plain = theory.fastest_weights(types, probabilities, scales=scales)
    shown = np.asarray(types)
    starved = int(np.argmin(plain.before))
    without = tuple(int(s) for s in np.flatnonzero(shown[:, starved] == 0))
    remedies = [
        Remedy("nothing"),
        Remedy("penalty 0.1 added", penalty=0.1),
        Remedy("penalty 2 added", penalty=2.0),
        Remedy("penalty 2 divided", penalty=2.0, scaling="divided"),
        Remedy("penalty 0.1 multiplied", penalty=0.1, scaling="multiplied"),
    ]
    if without:
        remedies += [
            Remedy(f"penalty {k:g} on samples without {starved + 1}", penalty=k, types=without) for k in (0.01, 0.1)
        ]
    remedies += [Remedy(f"weight decay {decay:g}", weight_decay=decay) for decay in (1e-3, 1e-2, 5e-2)]
    remedies += [
        Remedy("hinge loss", loss="hinge"),
        Remedy("early stopping", stop_loss=0.3),
        Remedy("step size ÷ 4", step_factor=0.25),
        Remedy("step size × 4", step_factor=4.0),
    ]
    makers = {
        "equal speeds": lambda: theory.equal_speed_weights(types, probabilities, scales=scales),
        "equal times": lambda: theory.equal_time_weights(types, probabilities, logit=logit, scales=scales),
        "fastest": lambda: plain,
    }
    seen: list[np.ndarray] = []
    for name, make in makers.items():
        try:
            weights = make().factors
        except (HypothesisError, ConvergenceError):
            continue
        if not any(np.allclose(weights, other, rtol=1e-6, atol=1e-9) for other in seen):
            seen.append(weights)
            remedies.append(Remedy(f"weights: {name}", factors=tuple(weights.tolist())))
    return tuple(remedies)


# The study.

QUANTILES = (0.1, 0.5, 0.9)
_RECORDS = 2000
_DRAWS = 1000  # test samples per type and class


class Spread(NamedTuple):
    """Quantiles 10, 50 and 90 % over networks, each a number or [K]."""

    low: np.ndarray
    median: np.ndarray
    high: np.ndarray


@dataclass(frozen=True)
class Outcome:
    """The result of one remedy.

    `logits`, `index`: v_k and the starvation index at the end, [K] each; `accuracy`: on feature k alone in noise, [K];
    `overall`: on samples like those of training in noise; `steps`: the number of steps, and `cost`: the steps until each of
    the levels of training loss was reached, inf for never, medians over networks. `law_logits`, `law_index`: [K], one layer
    by (10.1) after as many steps, None without a law; `law_gap`: the gap of a trained read-out, over the largest logit
    (None too at other step sizes).
    """

    remedy: Remedy
    logits: Spread
    index: Spread
    accuracy: Spread
    overall: Spread
    steps: float
    cost: np.ndarray
    law_logits: np.ndarray | None
    law_index: np.ndarray | None
    law_gap: float | None


@dataclass(frozen=True)
class RemedyStudy:
    """The result of `remedy_study`; `remedy_study(**study.settings)` computes it again. `starved`: the slowest feature."""

    settings: dict[str, Any]
    outcomes: tuple[Outcome, ...]
    starved: int

    def outcome(self, name: str) -> Outcome:
        """The outcome of the remedy called `name`; `KeyError` if there is none."""
        for outcome in self.outcomes:
            if outcome.remedy.name == name:
                return outcome
        raise KeyError(name)

    def conclusion(self) -> str:
        """In one sentence, which remedy helps the starved feature most."""
        return _title(self)[0]

    def table(self) -> str:
        """A row per remedy: logits, indices, the index of one layer by law, accuracies in percent, cost in steps."""
        size = len(self.outcomes[0].logits.median)
        names = [str(k + 1) for k in range(size)]
        header = ("remedy", *(f"v{k}" for k in names), *(f"index {k}" for k in names), f"law: index {self.starved + 1}")
        levels = [f"steps to {level:g}" for level in self.settings["loss_levels"]]
        rows: list[tuple[str, ...]] = [(*header, *(f"{k} alone, %" for k in names), "all, %", *levels)]
        for o in self.outcomes:
            law = "-" if o.law_index is None else f"{o.law_index[self.starved]:.2f}"
            accuracy = [f"{100 * value:.1f}" for value in (*o.accuracy.median, o.overall.median)]
            cost = ["never" if np.isinf(value) else f"{value:.0f}" for value in o.cost]
            values = (*(f"{v:.2f}" for v in o.logits.median), *(f"{v:.2f}" for v in o.index.median))
            rows.append((o.remedy.name, *values, law, *accuracy, *cost))
        return table_text(rows)

    def notes(self) -> str:
        """An explanation of the table, in words."""
        s = self.settings
        gaps = [o.law_gap for o in self.outcomes if o.law_gap is not None]
        law = f", to which a trained read-out has a gap of {number(max(gaps), 2)} at most" if gaps else ""
        lines = (
            f"Medians over {s['networks']} ordinary ReLU networks of {s['width']} neurons, after {s['steps']} steps of "
            f"{s['step_size']:g}; index 1 - v/v_alone;",
            f"law: of one layer{law}. %: right answers in noise {s['noise']:g} on samples",
            "that show one feature alone, and on samples as in training. steps to: until that cross-entropy on the data.",
            "penalty: spectral decoupling, lambda/2 times the squared logit, by its scaling; weights: of sample types.",
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        outcomes = []
        for outcome in self.outcomes:
            values = {name: v._asdict() if isinstance(v, Spread) else v for name, v in vars(outcome).items()}
            outcomes.append(values | {"remedy": asdict(outcome.remedy)})
        return {"quantiles": QUANTILES, "starved": self.starved, "outcomes": outcomes}

    def plot(self, path: Any = None) -> Any:
        """The comparison as a matplotlib `Figure`, saved to `path` if there is one; see `studies.remedies_plot`."""
        return draw(self, path)


@deprecated(seed="key")
def remedy_study(
    types: Any = ((1, 0), (1, 1), (0, 1)),
    probabilities: Any = (0.75, 0.2, 0.05),
    scales: Any = None,
    remedies: Sequence[Remedy | dict] | None = None,
    networks: int = 64,
    width: int = 16,
    init: float = 0.1,
    step_size: float = 0.2,
    steps: int = 2000,
    noise: float = 0.5,
    loss_levels: Any = (0.6, 0.2),
    key: Any = 0,
    progress: Any = None,
) -> RemedyStudy:
    """Train ordinary networks under each remedy, and measure the logits of all features and the cost.

    `types`: [S, K] of -1, 0 and 1; `probabilities`: [S], which sum to 1; `scales`: r_k [K], default 1; the default is a
    shortcut table: feature 1 mostly alone, at times both, feature 2 seldom alone. `remedies`: default `list_remedies` of the
    table; `networks` random starts (at least 2) of `width` neurons with weights of standard deviation `init`, the same under
    all remedies; `steps` of gradient descent with `step_size`; `noise`: standard deviation of each input coordinate in
    testing; `loss_levels`: see the head of the module. `progress` as in `simulate`. `ValueError` for bad tables and numbers,
    `ConvergenceError` for training that diverges.

    >>> study = remedy_study(remedies=[Remedy("nothing")], networks=2, steps=100)
    >>> study.outcome("nothing").index.median.shape, study.starved
    ((2,), 1)
    """
    problem = _Problem(types, probabilities, scales, networks, width, init, step_size, steps, noise, loss_levels, key)
    table = (v.tolist() for v in (problem.types, problem.probabilities, problem.scales))
    listed = list_remedies(*table) if remedies is None else remedies
    chosen = tuple(Remedy.of(remedy) for remedy in listed)
    if not chosen or len({remedy.name for remedy in chosen}) < len(chosen):
        raise ValueError(f"remedies must be at least one, each of its own name, got {[r.name for r in chosen]}")
    outcomes = []
    with Progress(progress, len(chosen), "training under remedies") as bar:
        for i, remedy in enumerate(chosen):
            outcomes.append(problem.outcome(remedy))
            bar.update(i + 1)
    settings = problem.settings() | {"remedies": [asdict(remedy) for remedy in chosen]}
    return RemedyStudy(settings, tuple(outcomes), problem.starved)


class _Problem:
    """The checked problem: the table, the networks, and the settings of training and tests."""

    def __init__(self, types, probabilities, scales, networks, width, init, step_size, steps, noise, loss_levels, key):
        types, probabilities = real_arrays(types=types, probabilities=probabilities)
        datasets.check_types(types)
        size = types.shape[1]
        (scales,) = real_arrays(scales=np.ones(size, types.dtype) if scales is None else scales)
        datasets.features(types, probabilities, scales=scales)  # checks the table
        numbers = {"init": init, "step_size": step_size, "noise": noise}
        for name, value in numbers.items():
            (array,) = real_arrays(**{name: value})
            if array.shape:
                raise ValueError(f"{name} must be a number, got shape {array.shape}")
            check_positive(name, array)
        (levels,) = real_arrays(loss_levels=loss_levels)
        if levels.ndim != 1 or not levels.size:
            raise ValueError(f"loss_levels must be one number or more, got {loss_levels!r}")
        check_positive("loss_levels", levels)
        self.numbers: dict[str, Any] = {name: float(value) for name, value in numbers.items()}
        self.numbers["loss_levels"] = [float(level) for level in loss_levels]
        counts = {"networks": positive_int("networks", networks, minimum=2), "width": positive_int("width", width)}
        self.numbers |= counts | {"steps": positive_int("steps", steps), "key": as_seed(key)}
        self.types, self.probabilities, self.scales = (np.asarray(v, np.float64) for v in (types, probabilities, scales))
        self.dtype = np.asarray(types).dtype
        self.size = size
        self.starved = int(np.argmin(self.scales**2 * (self.probabilities @ self.types)))
        # The sample type of each training point: the types, then their opposites.
        self.of_type = np.tile(np.arange(len(self.types)), 2)
        self.labels = np.repeat([1, -1], len(self.types))
        self.start = init_two_layer(one_key(key), networks, width, size, init, init)
        self.start = jax.tree.map(lambda leaf: leaf.astype(self.dtype), self.start)
        draws = jax.random.normal(jax.random.fold_in(one_key(key), 1), (_DRAWS, size), self.dtype)
        self.draws = noise * draws

    def settings(self) -> dict[str, Any]:
        table = {name: getattr(self, name).tolist() for name in ("types", "probabilities", "scales")}
        return table | self.numbers

    def data(self, remedy: Remedy, only: int | None = None) -> tuple[Dataset, Loss]:
        """Training points under the remedy, [2S, K]; with `only` one feature is kept."""
        weights = self.weights(remedy, self.of_type, np.tile(self.probabilities, 2))
        shown = self.types if only is None else self.types * np.eye(self.size)[only]
        points = self.labels[:, None] * (shown * self.scales)[self.of_type]
        loss = _one_a_sample(remedy.loss_for(self.of_type), len(points))
        return Dataset(*(v.astype(self.dtype) for v in (points, self.labels, weights))), loss

    def weights(self, remedy: Remedy, of_type: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The weights of the remedy; types that it leaves out keep a negligible weight, so that shapes do not change."""
        return np.maximum(remedy.weights_for(of_type, weights), np.finfo(self.dtype).tiny)

    def steps(self, remedy: Remedy) -> tuple[int, int]:
        """The number of steps, and the steps from one record to the next: every step, or about two thousand records."""
        count = max(1, round(self.numbers["steps"] / remedy.step_factor))
        return count, -(-count // _RECORDS)

    def train(self, remedy: Remedy, network: Any, only: int | None, count: int, every: int, keep: bool = False) -> Any:
        """The `Trajectory`. One engine for all remedies, so that its compiled programs serve all of them."""
        data, loss = self.data(remedy, only)
        descent = GradientDescent(self.numbers["step_size"] * remedy.step_factor, weight_decay=remedy.weight_decay)
        return simulate(
            data,
            network,
            loss,
            descent,
            count,
            record_every=every,
            record_networks=keep,
            engine="reference",
            progress=False,
        )

    def outcome(self, remedy: Remedy) -> Outcome:
        """All numbers of a remedy."""
        count, every = self.steps(remedy)
        run = self.train(remedy, self.start, None, count, every)
        grid, losses = np.asarray(run.grid), self.losses(run)
        last = np.full(len(losses), len(grid) - 1)
        stops = remedy.stop_loss is not None
        if stops:
            last = _first(losses <= remedy.stop_loss, last)
            count = int(grid[last.max()])
            run = self.train(remedy, self.start, None, count, every, True)
        final = _at(run.networks, last) if stops else run.final
        logits, alone = self.features(final), np.empty((self.numbers["networks"], self.size))
        for k in range(self.size):
            # Training on one feature alone takes as many steps as training on all together.
            one = self.train(remedy, self.start, k, count, every, stops)
            alone[:, k] = self.features(_at(one.networks, last) if stops else one.final)[:, k]
        index = _index(logits, alone)
        accuracy, overall = self.accuracies(final)
        costs = [_first(losses <= level, np.full(len(losses), -1)) for level in self.numbers["loss_levels"]]
        law = self.law(remedy, float(np.median(grid[last])))
        cost = [np.median(np.where((reached < 0) | (reached > last), np.inf, grid[reached])) for reached in costs]
        return Outcome(
            remedy=remedy,
            logits=_middle(logits),
            index=_middle(index),
            accuracy=_middle(accuracy),
            overall=_middle(overall),
            steps=float(np.median(grid[last])),
            cost=np.array(cost, np.float64),
            law_logits=law[0],
            law_index=law[1],
            law_gap=law[2],
        )

    def losses(self, run: Any) -> np.ndarray:
        """The mean cross-entropy on the original data, [networks, records]."""
        return np.logaddexp(0, -np.asarray(run.margins(), np.float64)) @ (np.tile(self.probabilities, 2) / 2)

    def features(self, network: Any) -> np.ndarray:
        """The logits v_k of the features, [networks, K]."""
        shown = np.diag(self.scales).astype(self.dtype)
        outputs = np.asarray(network(jnp.asarray(np.concatenate([shown, -shown]))), np.float64)
        return (outputs[..., : self.size] - outputs[..., self.size :]) / 2

    def accuracies(self, network: Any) -> tuple[np.ndarray, np.ndarray]:
        """The accuracies on noisy samples: on each feature alone, [networks, K], and on the training mix, [networks]."""
        clean = np.concatenate([np.eye(self.size), self.types]) * self.scales
        right = []
        for point in clean.astype(self.dtype):
            noisy = point + self.draws
            outputs = np.asarray(network(jnp.concatenate([noisy, -noisy])))
            right.append(np.mean(outputs * np.repeat([1, -1], len(noisy)) > 0, axis=-1))
        each = np.stack(right, axis=-1)
        return each[:, : self.size], each[:, self.size :] @ self.probabilities

    def law(self, remedy: Remedy, step: float) -> tuple[np.ndarray | None, np.ndarray | None, float | None]:
        """The logits and index of one layer from zero by (10.1) after `step` steps, and the gap of a trained read-out; None
        where (10.1) does not hold."""
        if remedy.weight_decay:
            return None, None, None
        of_type = np.arange(len(self.types))
        loss = remedy.loss_for(of_type)
        if not loss.stops:
            loss = _one_a_sample(loss, len(of_type))
        weights = self.weights(remedy, of_type, self.probabilities)
        # The law is computed in the precision of the networks.
        types, weights, scales = (v.astype(self.dtype) for v in (self.types, weights, self.scales))
        try:
            flow = theory.feature_flow(types, weights, loss, scales=scales)
        except HypothesisError:
            return None, None, None
        whole, _ = self.steps(remedy)
        times = np.array([step, whole]) * self.numbers["step_size"] * remedy.step_factor
        try:
            found, alone = np.asarray(flow.features(times)), np.asarray(flow.alone(times))
        except ConvergenceError:  # one feature at rest and another still moving, for very many steps
            return None, None, None
        index = _index(found[0], alone[0])
        if remedy.step_factor != 1:
            return found[0], index, None
        read_out = DeepReLU((np.zeros((1, self.size), self.dtype),))
        trained = self.features(self.train(remedy, read_out, None, whole, whole).final)[0]
        return found[0], index, float(np.abs(trained - found[1]).max() / np.abs(found[1]).max())


def _one_a_sample(loss: Loss, count: int) -> SpectralDecoupling:
    """The same loss with one penalty per sample, possibly 0, so that one compiled program serves all remedies."""
    if not isinstance(loss, SpectralDecoupling):
        return SpectralDecoupling(loss, jnp.zeros(count))
    spread = (jnp.broadcast_to(leaf, (count,)) for leaf in (loss.penalty, loss.target))
    return eqx.tree_at(lambda penalised: (penalised.penalty, penalised.target), loss, tuple(spread))


def _first(found: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The index of the first True of each row, [networks], or `otherwise` if there is none."""
    return np.where(found.any(-1), found.argmax(-1), otherwise)


def _index(found: np.ndarray, alone: np.ndarray) -> np.ndarray:
    """The starvation index, computed in the default precision of JAX."""
    return np.asarray(theory.starvation_index(jnp.asarray(found), jnp.asarray(alone)))


def _middle(values: np.ndarray) -> Spread:
    return Spread(*np.quantile(values, QUANTILES, axis=0))


def _at(networks: Any, records: np.ndarray) -> Any:
    """Each network at its own record: batch axes [networks] from [networks, records]."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf[np.arange(len(records)), records]), networks)


# The figure of a `RemedyStudy`: one row per remedy; the starvation of each feature, the accuracies, and the cost.
#
# Points are medians over networks and bars reach from the 10 % to the 90 % quantile; diamonds are the law of one layer
# (10.1). Features differ in colour (Okabe and Ito) and marker. Matplotlib is imported when a figure is drawn.

_MARKS = ("o", "s", "^", "D", "v", "P")
_GREY, _ALL = NOTE, COLOURS[6]
_FLOOR = -0.35  # the lowest index drawn to scale; lower values are written as numbers
_SPREAD = 0.46  # the share of a row's height that its markers fill


def draw(study: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.remedies.RemedyStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    rows = len(study.outcomes)
    order = ranked(study)
    with sheet():
        figure = new_figure(12, 2.5 + 0.4 * rows)
        panels = figure.subplots(1, 3, sharey=True, width_ratios=[1.15, 1.15, 0.8])
        _indices(panels[0], order)
        _accuracies(panels[1], study, order)
        _costs(panels[2], study, order)
        panels[0].set_yticks(range(rows), [o.remedy.name for o in order])
        panels[0].set_ylim(rows - 0.4, -0.6)
        for panel in panels:
            panel.grid(axis="y", visible=False)
            panel.tick_params(axis="y", length=0)
            for row in range(0, rows, 2):
                panel.axhspan(row - 0.5, row + 0.5, color=FAINT, alpha=0.4, linewidth=0, zorder=0)
        headline(figure, *_title(study))
        handles, labels = _legend(study)
        columns = len(handles) if len(handles) < 7 else -(-len(handles) // 2)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.8)
        if path is not None:
            save(figure, path)
    return figure


def ranked(study: Any) -> list[Any]:
    """The outcomes, sorted by the accuracy on samples that show only the most starved feature, the best first."""
    return sorted(study.outcomes, key=lambda one: -float(one.accuracy.median[study.starved]))


def _title(study: Any) -> tuple[str, str]:
    s = study.settings
    types = ", ".join(
        f"{{{', '.join(str(k + 1) for k, shown in enumerate(row) if shown)}}} {number(p)}"
        for row, p in zip(s["types"], s["probabilities"], strict=True)
    )
    k, best, plain = study.starved, ranked(study)[0], study.outcomes[0]
    found, before = (100 * float(one.accuracy.median[k]) for one in (best, plain))
    gain = f"{found:.0f} % right on feature {k + 1} alone, instead of {before:.0f} %"
    first = f"The best remedy is {best.remedy.name}: {gain}" if best is not plain else f"No remedy helps feature {k + 1}"
    return (
        first,
        f"The best first, on samples that show the features {types}. {s['networks']} ordinary ReLU networks of {s['width']} "
        f"neurons under each, {s['steps']} steps of size {s['step_size']:g}: median, and 10 to 90 % of networks. "
        "Penalty: spectral decoupling",
    )


def _offsets(count: int) -> np.ndarray:
    return _SPREAD * (np.arange(count) - (count - 1) / 2) / max(count - 1, 1)


def _point(panel: Any, row: float, spread: Any, colour: str, mark: str, scale: float = 1.0) -> None:
    low, middle, high = (float(value) * scale for value in spread)
    panel.plot([low, high], [row, row], color=colour, lw=2.2, alpha=0.45, solid_capstyle="round", zorder=2)
    edge = {"ms": 9, "mew": 2.2} if mark == "|" else {"ms": 5.5, "mec": "white", "mew": 0.5}
    panel.plot([middle], [row], marker=mark, color=colour, ls="none", zorder=3, **edge)


def _indices(panel: Any, order: list[Any]) -> None:
    panel.set_title("starvation index", loc="left", fontweight="bold")
    panel.set_xlabel("1 − v / v alone:   0 learnt as if alone,   1 not at all")
    for row, outcome in enumerate(order):
        size = len(outcome.index.median)
        for k, off in enumerate(_offsets(size)):
            spread = np.array([part[k] for part in outcome.index])
            if spread[1] < _FLOOR:
                # The index is below the axis: the feature is helped by the others.
                panel.plot([_FLOOR + 0.02], [row + off], marker="<", color=COLOURS[k], ms=5.5, ls="none", zorder=3)
                panel.annotate(f"{spread[1]:.1f}", (_FLOOR + 0.05, row + off), color=COLOURS[k], fontsize=8, va="center")
            else:
                _point(panel, row + off, np.maximum(spread, _FLOOR), COLOURS[k], _MARKS[k % len(_MARKS)])
            if outcome.law_index is not None and outcome.law_index[k] > _FLOOR:
                law = {"marker": "D", "ms": 8.5, "mfc": "none", "mec": COLOURS[k], "mew": 1.0, "ls": "none", "zorder": 1.5}
                panel.plot([outcome.law_index[k]], [row + off], **law)
    panel.axvline(0, color=_GREY, lw=0.8, zorder=1)
    panel.set_xlim(_FLOOR, 1.08)


def _accuracies(panel: Any, study: Any, order: list[Any]) -> None:
    panel.set_title(f"right answers in noise {number(study.settings['noise'])}", loc="left", fontweight="bold")
    panel.set_xlabel("% of test samples")
    lowest = 50.0
    for row, outcome in enumerate(order):
        size = len(outcome.accuracy.median)
        offsets = _offsets(size + 1)
        for k in range(size):
            spread = [part[k] for part in outcome.accuracy]
            _point(panel, row + offsets[k], spread, COLOURS[k], _MARKS[k % len(_MARKS)], 100.0)
        _point(panel, row + offsets[size], outcome.overall, _ALL, "|", 100.0)
        lowest = min(lowest, 100 * float(np.min(outcome.accuracy.low)))
    panel.axvline(100 * float(study.outcomes[0].overall.median), color=_GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    panel.set_xlim(max(lowest - 2, 0), 101)


def _costs(panel: Any, study: Any, order: list[Any]) -> None:
    levels = study.settings["loss_levels"]
    panel.set_title("cost", loc="left", fontweight="bold")
    panel.set_xlabel("steps to that loss on the data")
    finite = [value for o in study.outcomes for value in o.cost if np.isfinite(value)]
    most = max([*finite, 10.0])
    never = most * 3
    panel.set_xscale("log")
    shades = np.linspace(0, 0.55, len(levels))
    for row, outcome in enumerate(order):
        for off, value, shade in zip(_offsets(len(levels)), outcome.cost, shades, strict=True):
            colour = (shade, shade, shade)
            if np.isfinite(value):
                panel.plot([max(value, 1)], [row + off], marker="o", color=colour, ms=5, ls="none", zorder=3)
            else:
                panel.annotate("never", (never, row + off), color=colour, fontsize=8, ha="center", va="center")
    panel.set_xlim(min([*finite, 1e9]) / 2 if finite else 1, never * 2)
    panel.axvline(never / 1.75, color=_GREY, lw=0.6, zorder=1)


def _legend(study: Any) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    size = len(study.outcomes[0].index.median)
    handles = [Line2D([], [], color=COLOURS[k], marker=_MARKS[k % len(_MARKS)], ls="none", ms=6) for k in range(size)]
    labels = [f"feature {k + 1}" for k in range(size)]
    if any(o.law_index is not None for o in study.outcomes):
        handles.append(Line2D([], [], color=_GREY, marker="D", mfc="none", ls="none", ms=7))
        labels.append("law of one layer (10.1)")
    handles.append(Line2D([], [], color=_ALL, marker="|", ls="none", ms=8, mew=1.6))
    labels.append("samples as in training (dashed: without remedy)")
    levels = study.settings["loss_levels"]
    for level, shade in zip(levels, np.linspace(0, 0.55, len(levels)), strict=True):
        handles.append(Line2D([], [], color=(shade, shade, shade), marker="o", ls="none", ms=5))
        labels.append(f"cross-entropy {level:g}")
    return handles, labels
