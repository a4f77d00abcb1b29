"""`verify`: test every theorem of the catalogue against training, and report the results."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.table import Table

from gradstarve.ground import (
    Progress,
    as_flag,
    check_instance,
    deprecated,
    did_you_mean,
    environment,
    fields_html,
    files,
    html_table,
    one_key,
    positive_int,
    say,
    short_repr,
    shown,
    style,
    table_text,
    warn_deprecated,
)
from gradstarve.theorems._catalogue import CATALOGUE
from gradstarve.theorems._earlier import earlier, is_same_run, own_figures, put_aside, remove_figures
from gradstarve.theorems._entry import Counterexample, Outcome, Problem, Theorem, plain
from gradstarve.theorems._figure import LawFigure

FORMAT = 1  # of verify.json; increase it when the fields that are read change


@dataclass(frozen=True, eq=False)
class Row:
    """The result of one theorem: its outcome, the counterexamples found without a hypothesis, and the seconds it took.

    `hypothesis_violations`: hypotheses that an instance of the sampler breaks; empty unless the entry is wrong.
    """

    theorem: Theorem
    outcome: Outcome
    counterexamples: tuple[Counterexample, ...]
    seconds: float
    hypothesis_violations: tuple[str, ...] = ()

    __repr__ = short_repr
    _repr_html_ = fields_html

    @property
    def strays(self) -> tuple[str, ...]:
        """`hypothesis_violations` by its old name."""
        warn_deprecated("Row.strays", "Row.hypothesis_violations")
        return self.hypothesis_violations

    @property
    def ok(self) -> bool:
        """No violation, enough trials decided, and a counterexample for every hypothesis that is said to matter."""
        return self.outcome.ok and not self.hypothesis_violations and all(c.found for c in self.counterexamples)

    @property
    def verdict(self) -> str:
        """One sentence: what is wrong, or that the theorem holds."""
        o = self.outcome
        if o.violations:
            return (
                f"{o.violations} of {o.trials} trials violate it, the worst by {o.worst_gap:.3g} "
                f"(tolerance {o.tolerance:.3g})"
            )
        if self.hypothesis_violations:
            return f"an instance was drawn outside of its hypotheses: {'; '.join(self.hypothesis_violations)}"
        if not o.ok:
            return f"{o.undecided} of {o.trials} trials were undecided, too many for a verdict"
        for c in self.counterexamples:
            if not c.found:
                return f"no counterexample without a hypothesis said to be needed: {c.dropped}"
        return "holds"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays of gaps, as JSON can hold it."""
        t, o = self.theorem, self.outcome
        return plain(
            {
                "name": t.name,
                "equation": t.equation,
                "title": t.title,
                "claim": t.claim,
                "formula": t.formula,
                "hypotheses": [str(h) for h in t.hypotheses],
                "tolerance": o.tolerance,
                "why_tolerance": t.why_tolerance,
                "checked_with": t.checked_with,
                **({"power": t.power} if t.power else {}),
                **({"no_drop": t.no_drop} if t.no_drop else {}),
                "ok": self.ok,
                "verdict": self.verdict,
                "trials": o.trials,
                "violations": o.violations,
                "undecided": o.undecided,
                "worst_gap": o.worst_gap,
                "worst_instance": o.worst_instance,
                "details": {k: v for k, v in o.extra.items() if not isinstance(v, np.ndarray)},
                "necessity": [
                    {
                        "dropped": c.dropped,
                        "found": c.found,
                        "failure": c.failure,
                        "gap": c.gap,
                        "tolerance": c.tolerance,
                        "numbers": c.numbers,
                        **({"quote": dataclasses.asdict(c.quote)} if c.quote else {}),
                    }
                    for c in self.counterexamples
                ],
                "seconds": round(self.seconds, 2),
            }
        )


@dataclass(frozen=True, eq=False)
class Report:
    """The result of `verify`: `rows`, one per theorem in the order of the catalogue; `ok` if every row is.

    `key_data`: the seed, to repeat the run; `trials`: the requested number, None for the number of each entry, which is
    smaller with `quick`; `precision`: that of the run; `skipped`: the entries that make no statement in this precision;
    `environment`: versions and device.
    """

    rows: tuple[Row, ...]
    key_data: tuple[int, ...]
    trials: int | None = None
    quick: bool = False
    precision: str = "float64"
    skipped: tuple[str, ...] = ()
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every tested theorem holds."""
        return all(row.ok for row in self.rows)

    @property
    def violated(self) -> tuple[Row, ...]:
        """The rows that are not `ok`."""
        return tuple(row for row in self.rows if not row.ok)

    def rows_of_text(self) -> list[tuple[str, ...]]:
        """The table as strings, its header first: one row per theorem."""
        columns = ("theorem", "eq.", "trials", "violations", "worst gap", "tolerance", "without a hypothesis", "verdict")
        body = []
        for row in self.rows:
            o = row.outcome
            found = ", ".join(f"fails by {c.gap:.2g}" if c.found else "not found" for c in row.counterexamples) or "–"
            counts = (str(o.trials), str(o.violations), f"{o.worst_gap:.1e}", f"{o.tolerance:.2g}")
            body.append((row.theorem.name, row.theorem.equation, *counts, found, "holds" if row.ok else "FAILS"))
        return [columns, *body]

    def table(self) -> str:
        """One row per theorem as plain text: trials, violations, the worst gap, and the counterexamples."""
        return table_text(self.rows_of_text())

    def conclusion(self) -> str:
        """In one sentence, whether all theorems hold."""
        trials, bad = sum(row.outcome.trials for row in self.rows), [row.theorem.name for row in self.violated]
        if bad:
            return f"{len(bad)} of {len(self.rows)} theorems do not hold: {', '.join(bad)}"
        many = f"All {len(self.rows)} theorems hold" if len(self.rows) > 1 else "The theorem holds"
        return f"{many}: no violation in {trials:,} trials"

    def brief(self) -> str:
        """One line per theorem, within 80 columns, and a last line with the numbers of theorems and counterexamples.

        The bar is the worst gap: on a scale of powers of ten from rounding to the tolerance, or from 0 if the tolerance is
        a number of standard errors or a share, 0.1 and more.
        """
        wide = max(len(row.theorem.name) for row in self.rows)
        lines = [f"{'theorem':<{wide}}  verdict  worst gap, of the tolerance"]
        for row in self.rows:
            o = row.outcome
            verdict = "holds" if row.ok else "FAILS"
            lines.append(f"{row.theorem.name:<{wide}}  {verdict}    {_bar(o.worst_gap, o.tolerance)}  {_of(o)}")
        found = [c.found for row in self.rows for c in row.counterexamples]
        held = f"{sum(row.ok for row in self.rows)} of {len(self.rows)} theorems hold"
        seconds = sum(row.seconds for row in self.rows)
        taken = f"{seconds:.0f} s" if seconds < 99.5 else f"{seconds / 60:.0f} min"
        return "\n".join([*lines, f"{held} ({sum(found)} of {len(found)} counterexamples found) in {taken}"])

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_table(self.rows_of_text(), self.failures())

    def rich_table(self) -> Table:
        """The table in colours, with the claims, as a `rich.table.Table`; print it with `rich.print`."""
        table = Table(title="The theorems, tried against training", title_justify="left", pad_edge=False)
        table.add_column("theorem", no_wrap=True)
        table.add_column("eq.", no_wrap=True)
        table.add_column("claim")
        for column in ("trials", "violations", "worst gap", "tolerance"):
            table.add_column(column, justify="right")
        table.add_column("without a hypothesis")
        table.add_column("seconds", justify="right")
        for row in self.rows:
            o = row.outcome
            colour = "green" if o.ok else "red"
            each = f" × {o.extra['each']}" if "each" in o.extra else ""
            trials = f"{o.trials}{each}" + (f" ({o.undecided} undecided)" if o.undecided else "")
            found = [f"fails by {c.gap:.2g}" if c.found else "[red]not found[/red]" for c in row.counterexamples]
            table.add_row(
                row.theorem.name,
                row.theorem.equation,
                row.theorem.title,
                trials,
                f"[{colour}]{o.violations}[/{colour}]",
                f"{o.worst_gap:.1e}",
                f"{o.tolerance:.0e}" if o.tolerance < 0.1 else f"{o.tolerance:g}",
                ", ".join(found) if found else "–",
                f"{row.seconds:.1f}",
            )
        return table

    def failures(self) -> str:
        """The failures with their numbers, so that they can be run again; empty if there are none."""
        lines = []
        for row in self.violated:
            lines.append(f"{row.theorem.name} ({row.theorem.equation}): {row.verdict}")
            if row.outcome.violations:
                lines.append(f"  instance: {json.dumps(_finite(row.outcome.worst_instance))}")
            many = "quick=True" if self.quick else f"trials={self.trials}"
            many += "" if self.precision == "float64" else f", precision={self.precision!r}"
            words = f"jnp.array({list(self.key_data)}, jnp.uint32)"
            lines.append(f"  again: verify({row.theorem.name!r}, {many}, key=jax.random.wrap_key_data({words}))")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The whole report as JSON can hold it, and under "format" the number of its form."""
        return {
            "format": FORMAT,
            "ok": self.ok,
            "key": list(self.key_data),
            "trials": self.trials,
            "quick": self.quick,
            "precision": self.precision,
            "skipped": list(self.skipped),
            "environment": self.environment,
            "seconds": round(sum(row.seconds for row in self.rows), 2),
            "theorems": [_finite(row.to_dict()) for row in self.rows],
        }

    def save(self, directory: Any, figures: str = "png") -> list[Path]:
        """Write one figure per theorem, of the kind `figures` ("png", "svg", "pdf"), and then verify.json into `directory`.

        The directory is made if needed; the paths written are returned, that of verify.json first. Each file is complete or
        absent, whenever the process stops, and verify.json has the SHA-256 of its figures.

        Results of another run that are there already (other theorems, seed, trials, precision, versions or device) are put
        aside, with their figures, into a directory "earlier-1", "earlier-2", ... inside `directory`, and a line on stderr
        says so; those of the same run are replaced, and its figures of another kind stay. `ValueError` for an empty path,
        and where a verify.json is not what this method writes.
        """
        folder = files.make_directory(directory)
        numbers = self.to_dict()
        old = earlier(folder)
        another = old is not None and not is_same_run(old, numbers)
        if old is not None and another:
            say(f"Results of an earlier run are kept in {put_aside(folder, old)}")
        paths, digests = [], {}
        with Progress(None, len(self.rows), "drawing the theorems") as bar:
            for row in self.rows:
                paths.append(style.save(draw(row), folder / f"{row.theorem.name}.{figures}"))
                digests[paths[-1].name] = hashlib.sha256(paths[-1].read_bytes()).hexdigest()
                bar.update(len(paths))
        before = {} if old is None or another else own_figures(folder, old)
        text = json.dumps(numbers | {"figures": before | digests}, indent=1, allow_nan=False) + "\n"
        path = files.write_text(folder / "verify.json", text)
        if old is not None and another:
            remove_figures(folder, old, set(digests))
        return [path, *paths]


def draw(row: Row, titled: bool = True) -> Any:
    """The figure of one tested theorem, a Matplotlib `Figure` of 6.4 x 4.0 inches, with a title or without.

    >>> row = verify("sign", trials=24, progress=False).rows[0]
    >>> draw(row).axes[0].get_title(loc="left")
    '(2.0) No point pushes a neuron the wrong way\\n0 violations in 24 trials'
    """
    check_instance("row", row, Row, "give one of verify(...).rows")
    titled = as_flag("titled", titled)
    with style.sheet(own=True):
        figure = style.new_figure(6.4, 4.0)
        ax = figure.subplots()
        more = (row.counterexamples,) if isinstance(row.theorem.figure, LawFigure) else ()
        with jax.enable_x64(True):
            row.theorem.figure(row.outcome, ax, *more)
        if titled:
            ax.set_title(f"({row.theorem.equation}) {row.theorem.title}\n{_summary(row)}", fontsize=10, loc="left")
    return figure


def _summary(row: Row) -> str:
    o = row.outcome
    return f"{o.violations} violations in {o.trials} trials" + (f", {o.undecided} undecided" if o.undecided else "")


def _bar(gap: float, tolerance: float, cells: int = 20) -> str:
    """`cells` characters, filled in proportion to the gap; all of them at the tolerance and beyond."""
    rounding = float(np.finfo(np.float64).eps)
    if not gap < tolerance:
        share = 1.0
    elif tolerance >= 0.1:
        share = gap / tolerance
    else:
        share = np.log(max(gap, rounding) / rounding) / np.log(max(tolerance, 2 * rounding) / rounding)
    filled = cells if share >= 1 else min(int(np.ceil(cells * share)), cells - 1)
    return "█" * filled + "░" * (cells - filled)


def _of(outcome: Outcome) -> str:
    """The worst gap and the tolerance."""
    tolerance = outcome.tolerance
    return f"{outcome.worst_gap:.1e} of {f'{tolerance:.0e}' if tolerance < 0.1 else f'{tolerance:.3g}'}"


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as strings, because JSON has no such numbers."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    return value


@deprecated("names", "trials", "key", "progress", "quick", "precision")
def verify(
    names: Any = "all",
    *,
    trials: Any = None,
    key: Any = None,
    progress: bool = True,
    quick: bool = False,
    precision: str = "float64",
) -> Report:
    """Test the theorems called `names` ("all", one name, or several) on random instances, and drop their hypotheses.

    - `trials`: the least number of instances of each, rounded up to whole batches; None for the number of each entry;
    - `key`: a JAX key or an integer, 0 if None: the same key gives the same instances, whatever else is run;
    - `progress`: one line on stderr after each theorem, and on a terminal the theorem that is being tested;
    - `quick`: fewer trials, mostly one batch of one loss for each entry, and less power for statistical claims;
    - `precision`: "float64", or "float32" to run training and laws in float32, with the entries' tolerances for float32
      and without dropping hypotheses.

    The precision does not depend on the setting of JAX, which is restored afterwards. `.ok` of the report is whether all
    theorems hold. `ValueError` for a name that is not in the catalogue, with a list of the names.

    >>> from gradstarve.theorems import verify
    >>> report = verify("sign", trials=24, progress=False)
    >>> report.ok, report.rows[0].outcome.violations
    (True, 0)
    """
    chosen = _choose(names)
    progress, quick = as_flag("progress", progress), as_flag("quick", quick)
    if quick and trials is not None:
        raise ValueError(f"quick chooses the trials itself, so leave out either it or trials, got trials = {shown(trials)}")
    if trials is not None:
        trials = positive_int("trials", trials)
    if not isinstance(precision, str) or precision not in ("float64", "float32"):
        raise ValueError(f'precision must be "float64" or "float32", got {shown(precision)}')
    single = precision == "float32"
    skipped = tuple(theorem.name for theorem in chosen if single and theorem.single_tolerance is None)
    tell = partial(say, markup=True) if progress else lambda line: None
    rows = []
    with (
        jax.enable_x64(not single),
        warnings.catch_warnings(),
        Progress(None if progress else False, len(chosen), "verifying") as bar,
    ):
        # The samplers' NumPy numbers are rounded on purpose here.
        warnings.filterwarnings("ignore", message=".*is float64 but JAX runs in 32-bit mode")
        key = one_key(0 if key is None else key)
        for done, theorem in enumerate(chosen):
            bar.update(done, label=f"verifying {theorem.name}")
            if theorem.name in skipped:
                tell(f"skip {theorem.name} ({theorem.equation}): makes no statement in {precision}")
                continue
            start = time.perf_counter()
            # An entry's key depends on its name alone, so that verifying one or all gives it the same instances.
            own = jax.random.fold_in(key, _number(theorem.name))
            usual = theorem.quick_trials if quick else theorem.default_trials
            outcome = theorem.check(own, usual if trials is None else trials)
            # Some claims fail by less than float32 can tell.
            found = () if single else theorem.counterexamples(own)
            outcome = outcome.judged(theorem.tolerance_in(precision)) if single else outcome
            # Hypotheses compare numbers to the rounding of float64.
            outside = () if single else hypothesis_violations(theorem, outcome)
            rows.append(Row(theorem, outcome, found, time.perf_counter() - start, outside))
            row = rows[-1]
            mark = "[green]ok[/green]  " if row.ok else "[red]FAIL[/red]"
            tell(f"{mark} {theorem.name} ({theorem.equation}): {row.verdict}, {row.seconds:.1f} s")
        data = tuple(int(word) for word in np.asarray(jax.random.key_data(key)).reshape(-1))
        return Report(tuple(rows), data, trials, quick, precision, skipped, environment())


_LOOKED_AT = 6


def hypothesis_violations(theorem: Theorem, outcome: Outcome) -> tuple[str, ...]:
    """The hypotheses that a sample of the trials breaks."""
    found: dict[str, None] = {}
    for trial in np.unique(np.linspace(0, outcome.trials - 1, _LOOKED_AT).astype(int)):
        problem = Problem.read(outcome.instance(int(trial)))
        if problem is not None:
            found.update(dict.fromkeys(theorem.broken(problem)))
    return tuple(found)


def _choose(names: Any) -> list[Theorem]:
    """The theorems called `names`, in the order of the catalogue, each once."""
    if isinstance(names, str):
        names = list(CATALOGUE) if names == "all" else [names]
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f'names must be "all", a name or a list of names, got {shown(names)}')
    unknown = [name for name in names if name not in CATALOGUE]
    if unknown or not names:
        none = f'names is empty, so that no theorem is named; use one of {", ".join(CATALOGUE)}, or "all"'
        raise ValueError(_unknown(unknown[0]) if unknown else none)
    return [theorem for name, theorem in CATALOGUE.items() if name in names]


def _unknown(name: str) -> str:
    """The error for a name that is not in the catalogue: the entries that may be meant, by their name or equation."""
    number = name.strip("() ")
    of_equation = [entry.name for entry in CATALOGUE.values() if number in re.findall(r"[0-9]+[.][0-9]+", entry.equation)]
    alike = [entry for entry in CATALOGUE if len(name) > 2 and name in entry]
    meant = did_you_mean(name, CATALOGUE)
    if of_equation:
        meant = f"; equation ({number}) is that of {', '.join(map(repr, of_equation))}"
    elif alike and not meant:
        meant = f"; did you mean {' or '.join(map(repr, alike))}?"
    return f'unknown theorem {shown(name)}{meant}; use one of {", ".join(CATALOGUE)}, or "all"'


def _number(name: str) -> int:
    """A number below 2^31 that depends on the name alone (`hash` differs from run to run)."""
    value = 0
    for byte in name.encode():
        value = (value * 257 + byte) % (2**31 - 1)
    return value
