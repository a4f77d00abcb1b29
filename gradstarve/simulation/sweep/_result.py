"""What a sweep gives back: statistics of every configuration, and the way back to any of its networks."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import (
    COLOURS,
    GUIDE,
    as_choice,
    as_floats,
    as_number,
    headline,
    html_table,
    new_figure,
    number,
    save,
    sheet,
    short_repr,
    shown,
    table_text,
)
from gradstarve.problem import GradientDescent, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation._simulate import simulate
from gradstarve.simulation._span import Span, left_by_decay
from gradstarve.simulation._trajectory import Trajectory
from gradstarve.simulation.sweep import _tables as tables
from gradstarve.simulation.sweep._plan import Configuration, axis, columns, label_among, labels, told
from gradstarve.simulation.sweep._remember import Forgotten, forgotten, precision
from gradstarve.simulation.sweep._run import draw as draw_networks
from gradstarve.simulation.sweep._run import key_of_draws, leaves_of
from gradstarve.simulation.sweep._statistics import (
    BY_BLOCK,
    ERROR,
    MARGIN,
    OF_EVERY_SWEEP,
    Part,
    decimal,
    expand,
    moments,
    own_of_part,
    quantile,
)

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Records(dict):
    """The kept records of every configuration in memory; called with its number it gives those of one."""

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        return self[number]


@dataclass(frozen=True, eq=False)
class SweepResult:
    """Statistics of the networks of a sweep, for every combination of the swept values.

    `threshold` is the error below which a network has learnt; `note` says which losses stop above it, or that it was chosen
    for their sake, and is empty where neither is so.

    Every array has the axes of `over` in front, [*over], in the order given there. R records at the steps `grid`, n points.
    `result["error_mean"]` is `result.statistics["error_mean"]`:

    | name                                                   | shape              | what                                |
    |--------------------------------------------------------|--------------------|-------------------------------------|
    | error_mean, error_variance, error_min, error_max       | [*over, R]         | of sum_i q_i sigmoid(-m_i)          |
    | loss_mean, loss_variance, loss_min, loss_max           | [*over, R]         | of sum_i q_i l(m_i)                 |
    | margin_mean, margin_variance, margin_min, margin_max   | [*over, R, n]      | of m_i                              |
    | learnt                                                 | [*over, R]         | share with error < `threshold`      |
    | learnt_all                                             | [*over, R]         | ... with every sigmoid(-m_i) < it   |
    | learnt_point                                           | [*over, R, n]      | ... with sigmoid(-m_i) < it         |
    | first_learnt, first_learnt_all, first_learnt_point     | [*over, R(, n)]    | networks first seen so at a record  |
    | never_learnt, never_learnt_all, never_learnt_point     | [*over(, n)]       | networks never seen so              |
    | error_histogram, margin_histogram                      | [*over, R(, n), B] | counts on `ERROR`, `MARGIN` edges   |
    | diverged                                               | [*over]            | networks with a number not finite   |

    Diverged networks take no part in means, extremes and histograms at any record; shares are of all networks, so that they
    count as not having learnt, and they are among those that never learn. Variances divide by the number of networks.
    """

    over: dict[Any, list]
    configurations: list[Configuration]
    grid: np.ndarray
    seeds: range
    key: Any
    threshold: float
    record_every: int
    statistics: dict[str, np.ndarray]
    seeds_diverged: list[np.ndarray]
    engine: str
    keep: str
    kept: Callable[[int], dict[str, np.ndarray]]
    note: str = ""
    blocks: Any = None

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_table(self._rows())

    def __getstate__(self) -> dict[str, Any]:
        # What reads the kept records knows files and locks of this process: the records themselves go.
        count = 0 if self.keep == "statistics" else len(self.configurations)
        kept = Records({number: self.kept(number) for number in range(count)})
        found = [picklable(one) for one in self.configurations]
        return {**self.__dict__, "configurations": found, "kept": kept, "key": None, "_key": self._key_data()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        data, kind = state.pop("_key")
        self.__dict__.update(state, key=jax.random.wrap_key_data(jnp.asarray(data), impl=kind))

    def _key_data(self) -> tuple[np.ndarray, str]:
        return np.asarray(jax.random.key_data(self.key)), str(jax.random.key_impl(self.key))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values are swept under each name of `over`."""
        return tuple(len(values) for values in self.over.values())

    def __getitem__(self, name: str) -> np.ndarray:
        """The statistic of that name."""
        if name not in self.statistics:
            raise KeyError(f"no statistic {name!r}; there are {', '.join(self.statistics)}")
        return self.statistics[name]

    def quantile(self, name: str, levels: Any) -> np.ndarray:
        """Quantiles of "error", [*over, R, *levels.shape], or of "margin", [*over, R, n, *levels.shape].

        The value that a share `levels` of the networks does not exceed, exact to a width of the histogram's bin: about 5 %
        of the error and of 1 - error, and 3 % of |m| or 0.0016 of a margin. Levels 0 and 1 are exact. NaN where every
        network diverged.
        """
        name = as_choice("name", name, ("error", "margin"))
        given = as_floats("levels", levels)
        if isinstance(levels, np.ndarray | np.generic | jax.Array):
            given = np.asarray(levels)  # in its own precision, which says what decimal is meant
        if given.size == 0:
            raise ValueError("levels is empty; give at least one number in [0, 1]")
        if given.dtype.kind == "b" or not ((given >= 0) & (given <= 1)).all():
            raise ValueError(f"levels must be numbers in [0, 1], got {shown(given.tolist())}")
        counts, low, high = (self[f"{name}_{what}"] for what in ("histogram", "min", "max"))
        found = quantile(ERROR if name == "error" else MARGIN, counts, low, high, given.reshape(-1))
        return found.reshape((*low.shape, *given.shape))

    def time_to_learn(self, level: Any = 0.5, of: str = "") -> np.ndarray:
        """The first recorded step by which a share `level` of the networks has been below the threshold, inf if none.

        That is ceil(level * seeds) networks, by the decimal number that `level` is written as: 7 of 100 for 0.07.

        `of`: "" the error, [*over]; "all" every point at once, [*over]; "point" each point, [*over, n].
        """
        of, number = as_choice("of", of, ("", "all", "point")), as_number("level", level, 0, 1, with_low=False)
        name = f"first_learnt{'_' if of else ''}{of}"
        share = decimal(level) or Fraction(str(number))
        reached = np.cumsum(self[name], axis=len(self.shape)) >= math.ceil(share * len(self.seeds))
        first = reached.argmax(axis=len(self.shape))
        return np.where(reached.any(axis=len(self.shape)), self.grid[first].astype(np.float64), np.inf)

    @property
    def names(self) -> list[str]:
        """What is swept, by name; names that are swept together stand for one axis."""
        return list(columns(self.over))

    def configuration(self, **values: Any) -> int:
        """The place among `configurations` of the one with these swept values; names of one value may be left out."""
        unknown = [name for name in values if name not in self.names]
        if unknown:
            raise ValueError(f"{', '.join(unknown)} was not swept; over: {', '.join(self.names) or 'nothing'}")
        places = []
        for key, swept in self.over.items():
            names, shown_as, fitting = columns({key: swept}), told(key, swept), range(len(swept))
            for name in names:
                if name in values:
                    wanted = label_among(shown_as[name], name, names[name], values[name])
                    fitting = [i for i in fitting if shown_as[name][i] == wanted]
            if len(fitting) > 1:
                name = next((name for name in names if name not in values), next(iter(names)))
                there = dict.fromkeys(str(shown_as[name][i]) for i in fitting)
                raise ValueError(f"which {name}? give {name}=, one of {', '.join(there)}")
            if not fitting:
                rows = [", ".join(map(str, row)) for row in zip(*shown_as.values(), strict=True)]
                raise ValueError(f"no {', '.join(names)} is swept together so; there are {'; '.join(rows)}")
            places.append(fitting[0])
        return int(np.ravel_multi_index(places, self.shape)) if places else 0

    def diverged_seeds(self, **values: Any) -> np.ndarray:
        """The first seeds (at most 20) whose network diverged in a configuration."""
        return self.seeds_diverged[self.configuration(**values)]

    def network(self, seed: Any, **values: Any) -> Any:
        """The network of `seed` before training in a configuration; several as a batch, for a sequence of seeds.

        It is network `seed` of `init_two_layer(key, ...)` with the sweep's key, width and scales, in the data's precision,
        whatever that of this process; where the sweep was given `network`, network(fold_in(key, seed)).
        """
        one, numbers = self._known(values, "network"), self._numbers(seed)
        with precision(self.precision):
            scales = jnp.asarray([one.scale_w, one.scale_z], one.data.points.dtype)
            networks = draw_networks(one, self.key, numbers, (scales[0], scales[1]))
            return networks[0] if np.ndim(seed) == 0 else networks

    def trajectory(self, seed: Any, **values: Any) -> Trajectory:
        """The run of `seed` (or of several) again, by `simulate`: the curve behind the statistics, to rounding."""
        one, networks = self._known(values, "loss", "dynamics", "network"), self.network(seed, **values)
        keys = None
        with precision(self.precision):
            if isinstance(one.dynamics, StochasticGradientDescent):
                draws = key_of_draws(self.key)
                keys = jax.vmap(lambda i: jax.random.fold_in(draws, i))(self._numbers(seed)).reshape(networks.batch_shape)
            steps, how = int(self.grid[-1]), {"record_every": self.record_every, "key": keys, "throw": False}
            return simulate(one.given, networks, one.loss, one.dynamics, steps, **how)

    @property
    def precision(self) -> str:
        """That of the data, in which the networks were trained: "float32" or "float64"."""
        return self.configurations[0].data.points.dtype.name

    def _known(self, values: Mapping[str, Any], *parts: str) -> Configuration:
        """The configuration of these values; `ValueError` where its directory does not hold one of the `parts`."""
        one = self.configurations[self.configuration(**values)]
        for part in parts:
            if isinstance(getattr(one, part), Forgotten):
                raise getattr(one, part).refusal()
        return one

    def _numbers(self, seed: Any) -> np.ndarray:
        numbers = np.atleast_1d(np.asarray(seed))
        if numbers.dtype.kind not in "iu" or numbers.ndim != 1 or not np.isin(numbers, self.seeds).all():
            raise ValueError(f"seed must be among {self.seeds.start}..{self.seeds.stop - 1}, got {seed!r}")
        return numbers.astype(np.uint32)

    def logits(self, **values: Any) -> np.ndarray:
        """f(x_i) of all networks of a configuration: [seeds, R, n] with keep="logits", [seeds, 1, n] with keep="final"."""
        number = self._kept_configuration(values)
        return self.kept(number)["logits"][..., self.configurations[number].index]

    def final(self, **values: Any) -> Any:
        """All trained networks of a configuration, [seeds]; needs keep="final" or "logits"."""
        number = self._kept_configuration(values)
        one, stored = self._known(values, "network"), self.kept(number)
        with precision(self.precision):
            if one.network is not None:
                template: Any = one.template
                leaves = [jnp.asarray(stored[name]) for name in leaves_of(template)]
                return jax.tree.unflatten(jax.tree.structure(template), leaves)
            small = TwoLayerReLU(stored["w"], stored["z"])
            if one.basis is None:
                return small
            # What is stored are the numbers that points push; the rest of each network is where it was, or decayed.
            draws = not isinstance(one.dynamics, GradientDescent)  # as the sweep was prepared
            span = Span(one.data, self.network(np.asarray(self.seeds), **values), draws)
            left = None
            if isinstance(one.dynamics, GradientDescent) and float(one.dynamics.weight_decay) > 0:
                spread = jax.tree.map(lambda leaf: jnp.reshape(leaf, (1,)).astype(small.dtype), one.dynamics)
                left = left_by_decay(spread, int(self.grid[-1]), self.record_every)[:, -1]
            return span.restore(small, left)

    def _kept_configuration(self, values: Mapping[str, Any]) -> int:
        if self.keep == "statistics":
            raise ValueError('this sweep kept statistics only; sweep with keep="final" or keep="logits"')
        return self.configuration(**values)

    def summary(self) -> list[dict[str, Any]]:
        """One entry per configuration: its swept values, networks, how many diverged, and where they ended.

        "learnt": the share with an error below the threshold at the last record; "median step": of `time_to_learn`;
        "last error": its 5, 50 and 95 % quantiles at the last record.
        """
        band = self.quantile("error", (0.05, 0.5, 0.95))[..., -1, :].reshape(-1, 3)
        columns = (self["diverged"], self["learnt"][..., -1], self.time_to_learn(0.5))
        found = []
        for one, seeds, error, *cells in zip(
            self.configurations, self.seeds_diverged, band, *map(np.ravel, columns), strict=True
        ):
            entry = dict(one.labels)
            entry |= {"networks": len(self.seeds), "diverged": int(cells[0]), "diverged seeds": seeds.tolist()}
            found.append(entry | {"learnt": float(cells[1]), "median step": float(cells[2]), "last error": error.tolist()})
        return found

    def conclusion(self) -> str:
        """In one sentence, how many networks have learnt by the last record, where fewest and where most have."""
        found = [100 * entry["learnt"] for entry in self.summary()]
        shares = f"{found[0]:.3g} %" if min(found) == max(found) else f"{min(found):.3g} to {max(found):.3g} %"
        many = f"{len(found)} configuration{'s' * (len(found) != 1)}"
        error = f"an error below {self.threshold:g}"
        return f"After {int(self.grid[-1])} steps {shares} of {len(self.seeds):,} networks have {error}, over {many}"

    def table(self) -> str:
        """`summary` as a plain table, and below it `note`, on losses that stop above the threshold."""
        return table_text(self._rows()) + (f"\n\n{self.note}" if self.note else "")

    def _rows(self) -> list[list[str]]:
        """`summary` as strings, the header first."""
        share = f"error < {number(self.threshold)}"
        rows = [[*self.names, "networks", "diverged", share, "median step", "last error 5 %", "50 %", "95 %"]]
        for entry in self.summary():
            when = entry["median step"]
            row = [str(entry[name]) for name in (*self.names, "networks", "diverged")]
            row += [f"{100 * entry['learnt']:.1f} %", "never" if np.isinf(when) else number(when, 6)]
            rows.append([*row, *map(number, entry["last error"])])
        return rows

    def to_xarray(self) -> Any:
        """All statistics as an `xarray.Dataset` with named axes: the swept names, step, point, quantile and histogram bins.

        Needs xarray: pip install 'gradstarve[sweep]'.
        """
        try:
            import xarray
        except ImportError:
            raise ImportError("to_xarray needs xarray: pip install 'gradstarve[sweep]' (or pip install xarray)") from None
        from gradstarve.simulation.sweep._plan import NETWORK_NAMES

        levels = np.array(QUANTILES)
        arrays = self.statistics | {f"{name}_quantile": self.quantile(name, levels) for name in ("error", "margin")}
        front = tuple(map(axis, self.over))
        entries = {name: ((*front, *axes(name, array.ndim - len(front))), array) for name, array in arrays.items()}
        coordinates: dict[str, Any] = {}
        for key, values in self.over.items():
            if isinstance(key, str):
                coordinates[key] = labels(key, values)
            else:
                coordinates |= {name: (axis(key), column) for name, column in told(key, values).items()}
        coordinates |= {"step": self.grid, "point": np.arange(self.configurations[0].data.size), "quantile": levels}
        middle = np.arange(len(ERROR.edges) - 1) + 0.5
        coordinates |= {"error_bin": ERROR.value(middle), "margin_bin": MARGIN.value(middle)}
        first = self.configurations[0]
        attributes = {"networks": len(self.seeds), "first_seed": self.seeds.start, "threshold": self.threshold}
        attributes |= {name: getattr(first, name) for name in NETWORK_NAMES if name not in self.names}
        return xarray.Dataset(entries, coordinates, attributes | {"engine": self.engine})

    def to_pandas(self, what: str = "curve") -> Any:
        """A `pandas.DataFrame`, its index the swept names and what else there is, its columns the statistics.

        `what`: "curve", a row for each step, of errors, losses and shares; "points", a row for each step and point;
        "summary", a row for each configuration, where it ended. Quantiles are columns such as `error_quantile_0.5`.

        Needs pandas: pip install 'gradstarve[sweep]'.
        """
        return tables.frame(self, what)

    def to_csv(self, path: Any, what: str = "curve") -> Path:
        """The table of `to_pandas` in a file of comma-separated values, with every digit. It needs no pandas."""
        return tables.write_csv(self, path, what)

    def to_parquet(self, path: Any, what: str = "curve") -> Path:
        """The table of `to_pandas` in a Parquet file. Needs pandas and pyarrow."""
        return tables.write_parquet(self, path, what)

    def merge(self, *others: Any) -> SweepResult:
        """This and other sweeps as one: other seeds of the same configurations, or other values along one axis.

        What else decides the numbers must be the same: steps, records, threshold, precision. Seeds must be a range in the
        end, and none counted twice. It is bit-identical to the one sweep of all where that has the same blocks: seeds from a
        multiple of the block's networks on; else its means are those to rounding. `ValueError` says what does not fit.

        >>> from gradstarve.problem import datasets
        >>> from gradstarve.simulation import sweep
        >>> first, second = (sweep(datasets.antipodal(), seeds, steps=20) for seeds in (range(30), range(30, 50)))
        >>> first.merge(second).seeds
        range(0, 50)
        """
        from gradstarve.simulation.sweep._merge import merged

        return merged([self, *others])

    def plot(self, path: Any = None, configurations: Sequence[int] | None = None, law: Any = None) -> Any:
        """Error bands over the steps and the share that has learnt, as a matplotlib `Figure`, saved to `path` if there is
        one; see `draw`."""
        return draw(self, path, configurations, law)


def picklable(one: Configuration) -> Configuration:
    """A configuration whose parts can be pickled: in the place of code that cannot stands a mark that says so."""
    lost = {}
    for what in ("loss", "dynamics", "network"):
        try:
            pickle.dumps(getattr(one, what))
        except Exception:  # PicklingError, AttributeError or TypeError, as the case may be
            lost[what] = forgotten(what, getattr(one, what))
    swept = {name: lost.get(name, value) for name, value in one.swept.items()}
    return replace(one, **lost, swept=swept) if lost else one


def axes(name: str, dims: int = 0) -> tuple[str, ...]:
    """The axes of a statistic after those of `over`; those of an own one, which has `dims`, carry its name."""
    if not name.startswith(OF_EVERY_SWEEP):
        return tuple(f"{name}_axis_{i}" for i in range(dims))
    of_point = name.startswith("margin") or name.endswith("_point")
    steps = () if name == "diverged" or name.startswith("never") else ("step",)
    last = {"quantile": ("quantile",), "histogram": (f"{name.partition('_')[0]}_bin",)}.get(name.rpartition("_")[2], ())
    return (*steps, *(("point",) if of_point else ()), *last)


def made(parts: list[Part], **fields: Any) -> SweepResult:
    """The result of one part per configuration, which it takes; `fields` are those of `SweepResult`."""
    found, seeds = fields["configurations"], fields["seeds"]
    sick = [part["seeds"] for part in parts]
    blocks = []
    # A generator, so that the parts of a large sweep go as their statistics come.
    parts.reverse()

    def wide() -> Iterator[Part]:
        for one in found:
            part = expand(parts.pop(), one.index)
            blocks.append({name: value for name, value in part.items() if is_by_block(name)})
            yield part

    statistics = finish(wide(), tuple(map(len, fields["over"].values())), len(seeds))
    return SweepResult(**fields, statistics=statistics, seeds_diverged=sick, blocks=blocks)


def is_by_block(name: str) -> bool:
    return name in BY_BLOCK or name.startswith("own.")


def finish(parts: Iterable[Part], shape: tuple[int, ...], networks: int) -> dict[str, np.ndarray]:
    """The statistics of a `SweepResult` from one part per configuration, in their order."""
    stacked: dict[str, np.ndarray] = {}
    count = math.prod(shape)

    def put(name: str, place: int, value: Any) -> None:
        value = np.asarray(value)
        if name not in stacked:
            stacked[name] = np.empty((count, *value.shape), value.dtype)
        stacked[name][place] = value

    for place, part in enumerate(parts):
        mean, variance = moments(part)
        low, high = (np.where(np.isfinite(part[name]), part[name], np.nan) for name in ("low", "high"))
        pairs = (("mean", mean), ("variance", variance), ("min", low), ("max", high))
        for column, name in ((0, "error"), (1, "loss"), (slice(2, None), "margin")):
            for what, values in pairs:
                put(f"{name}_{what}", place, values[:, column])
        for column, name in ((0, "learnt"), (1, "learnt_all"), (slice(2, None), "learnt_point")):
            put(name, place, part["below"][:, column] / networks)
            put(f"first_{name}", place, part["crossed"][:-1, column])
            put(f"never_{name}", place, part["crossed"][-1, column] + part["diverged"])
        put("error_histogram", place, part["bins"][:, 0])
        put("margin_histogram", place, part["bins"][:, 1:])
        put("diverged", place, part["diverged"])
        for name, value in own_of_part(part).items():
            put(name, place, value)
    return {name: array.reshape((*shape, *array.shape[1:])) for name, array in stacked.items()}


# The figure of a sweep: the error of all networks as a median in a band, and the share of them that has learnt.

_BAND = (0.05, 0.5, 0.95)
_BANDS = 2  # more of them are a grey mass
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))


def drawn_configurations(result: Any) -> list[int]:
    """Up to seven configurations by number, spread evenly over all."""
    total = len(result.configurations)
    return [int(i) for i in np.unique(np.linspace(0, total - 1, min(total, len(COLOURS))).round())]


def draw(result: Any, path: Any, configurations: Sequence[int] | None, law: Any = None) -> Any:
    """The figure of a `SweepResult`, saved to `path` too if there is one.

    Left the error over the steps, on a logarithmic axis: the median over networks and, where there are at most two
    configurations, the band of 5 to 95 % of them (more would lie on top of each other). Right the share of networks with an
    error below the threshold. `configurations` (by number, the last name of `over` running fastest) chooses what is drawn;
    by default up to seven, spread evenly. `law`: errors by the law of some of the networks of each that is drawn,
    [configurations, networks, records], NaN where there is none; drawn as circles on top.
    """
    total = len(result.configurations)
    if configurations is None:
        configurations = drawn_configurations(result)
    bad = [i for i in configurations if not 0 <= i < total]
    if bad or len(configurations) == 0:
        raise ValueError(f"configurations must be some of 0..{total - 1}, got {list(configurations)!r}")
    bands = result.quantile("error", _BAND).reshape(total, len(result.grid), 3)
    learnt = result["learnt"].reshape(total, -1)
    with sheet():
        figure = new_figure(9, 4.6)
        left, right = figure.subplots(1, 2)
        told = False  # whether there is a law of any
        for place, which in enumerate(configurations):
            line = {
                "color": COLOURS[place % len(COLOURS)],
                "linestyle": _LINES[place % len(_LINES)],
                "linewidth": 1.9,
                "label": _name(result, which),
            }
            low, middle, high = bands[which].T
            if len(configurations) <= _BANDS:
                left.fill_between(result.grid, low, high, color=line["color"], alpha=0.16, linewidth=0)
            left.plot(result.grid, middle, **line)
            right.plot(result.grid, 100 * learnt[which], **line)
            if law is not None and np.isfinite(law[place]).all():
                told = True
                _circles(left, right, result, law[place], line["color"])
        left.axhline(result.threshold, color=GUIDE, linewidth=0.8, linestyle=":")
        left.set_yscale("log")
        what = "median, band of 5–95 %" if len(configurations) <= _BANDS else "median"
        left.set_title(f"error: {what} of networks", loc="left")
        left.set_ylabel("error σ(−m), averaged over the data")
        right.set_title(f"networks with an error below {number(result.threshold)}", loc="left")
        right.set_ylabel("share of networks (%)")
        right.set_ylim(-2, 102)
        for panel in (left, right):
            panel.set_xlabel("step k")
            panel.set_xlim(result.grid[0], result.grid[-1])
        handles, labels = left.get_legend_handles_labels()
        if told and law is not None:
            from matplotlib.lines import Line2D

            handles.append(Line2D([], [], marker="o", linestyle="none", color=GUIDE, markerfacecolor="white"))
            labels.append(f"law of {law.shape[1]} of them, 95 %")
        if total > 1 or told:
            # As many columns as fit into nine inches.
            columns = max(1, min(4, len(labels), 110 // (max(map(len, labels)) + 8)))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        headline(figure, _title(result, len(configurations)), size=12)
        if path is not None:
            save(figure, path)
    return figure


def _circles(left: Any, right: Any, result: Any, law: np.ndarray, colour: str) -> None:
    """The median of the errors by the law [networks, records] and the share below the threshold, with 95 % intervals."""
    some = np.unique(np.linspace(0, len(result.grid) - 1, 13).round().astype(int))
    law, steps = law[:, some], result.grid[some]
    mark: dict[str, Any] = {"fmt": "o", "color": colour, "markersize": 5, "markerfacecolor": "white", "zorder": 4}
    mark |= {"elinewidth": 1.0}
    # The median of so many lies between the quantiles 1/2 ± 0.98/sqrt(n) of all: far apart where half of them fail.
    low, high = np.quantile(law, np.clip(0.5 + np.array([-0.98, 0.98]) / np.sqrt(len(law)), 0, 1), axis=0)
    middle = np.median(law, axis=0)
    left.errorbar(steps, middle, np.stack([middle - low, high - middle]), **mark)
    share = (law < result.threshold).mean(0)
    right.errorbar(steps, 100 * share, 196 * np.sqrt(share * (1 - share) / len(law)), **mark)


def _name(result: Any, which: int) -> str:
    def shown(value: Any) -> str:
        return number(value) if isinstance(value, int | float) else str(value)

    return ", ".join(f"{name} = {shown(value)}" for name, value in result.configurations[which].labels.items())


def _title(result: Any, drawn: int) -> str:
    networks = len(result.seeds)
    text = f"{networks:,} network{'s' * (networks > 1)}"
    total = len(result.configurations)
    if total > 1:
        text += f" for each of {total} configurations" + (f", {drawn} of them shown" if drawn < total else "")
    diverged = int(result["diverged"].sum())
    return text + (f"; {diverged:,} diverged and are left out" if diverged else "")
