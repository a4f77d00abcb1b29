"""Theory evaluation as a work-precision table: the closed form of many modes against integrating their ODE.

10,000 random modes, cross-entropy, float64. Everybody gets the reduced problem du/dt = 2 p r S g(u), S^2 = kappa^2 + u^2,
with numbers (2 p r, kappa, u0) worked out before the clock starts; "from the weights" starts from p, r, a, z instead.
Errors are |du| / S, and for the query |dt| 2 p r g(u): what the curve is off by in hyperbolic angle, in both cases.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import optimistix
from scipy.integrate import solve_ivp

from benchmarks.timing import interleaved
from gradstarve import Mode
from gradstarve.theory import solve_mode

Row = dict[str, Any]
BASE = "diffrax Tsit5 1e-8"
ERROR = 0.01
LOGIT = float(np.log((1 - ERROR) / ERROR))
# 2 p r t of the last time: every mode of the sample is past an error of 1% by then.
HORIZON = 150.0
# A call of half a millisecond that comes after one of thirty times that would be timed with cold caches and threads asleep.
TURN = 0.05


class Problem(NamedTuple):
    """Modes of one neuron each, [modes]; a, z: [modes, 1]."""

    frequency: np.ndarray
    norm: np.ndarray
    a: np.ndarray
    z: np.ndarray
    rate: np.ndarray
    kappa: np.ndarray
    start: np.ndarray

    def times(self, count: int) -> np.ndarray:
        """[modes, count], evenly from 0 (left out) to the horizon of each mode."""
        return np.linspace(0, HORIZON, count + 1)[1:] / self.rate[:, None]


def problem(modes: int, seed: int = 0) -> Problem:
    """p uniform in (0.05, 1); r, kappa and u0 over 1, 4 and 6 decades, rich and lazy."""
    rng = np.random.default_rng(seed)
    frequency, norm = rng.uniform(0.05, 1, modes), 10 ** rng.uniform(-0.5, 0.5, modes)
    kappa, start = 10 ** rng.uniform(-3, 1, modes), 10 ** rng.uniform(-6, 0, modes)
    # a^2 - z^2 = +- 2 kappa / r and a z = u0 / r; the smaller of the two from their product.
    larger = np.sqrt((np.hypot(kappa, start) + kappa) / norm)
    smaller = start / norm / larger
    first = rng.random(modes) < 0.5
    a, z = np.where(first, larger, smaller), np.where(first, smaller, larger)
    return Problem(frequency, norm, a[:, None], z[:, None], 2 * frequency * norm, kappa, start)


def measure(quick: bool) -> list[Row]:
    """Rows for 200 times, 10 times and one time-to-error query; `quick` takes a twentieth of the modes and fewer turns."""
    given = problem(500 if quick else 10_000)
    turns, checked = (3, 4) if quick else (11, 25)
    with jax.enable_x64(True):
        rows = []
        for count in (200, 10):
            times = given.times(count)
            exact = curves(given, times, checked)
            scale = np.hypot(given.kappa[:checked, None], exact)

            def error(u, exact=exact, scale=scale) -> float:
                found = np.asarray(u)[: len(exact)]
                return float(np.max(np.abs(found - exact[: len(found)]) / scale[: len(found)]))

            rows += table(f"{count} times", curve_peers(given, times), error, turns)
            rows.append(scipy_row(given, times, error, rows))
        waited = waits(given, checked)

        def late(t) -> float:
            return float(np.max(np.abs(np.asarray(t)[:checked] - waited) * given.rate[:checked] * ERROR))

        rows += table(f"time to error {ERROR}", query_peers(given), late, turns)
    return rows


def table(task: str, peers: dict[str, Callable[[], Any]], error: Callable[[Any], float], turns: int) -> list[Row]:
    """One row for each of the peers, in turns; a turn is as many calls as fill `TURN` seconds, and shared out among them."""
    calls = {name: enough(run) for name, run in peers.items()}

    def turn(run, count):
        def several():
            for _ in range(count):
                jax.block_until_ready(run())

        return several

    start = {name: firsts[0] for name, (_, firsts) in calls.items()}
    spent = interleaved({name: turn(run, calls[name][0]) for name, run in peers.items()}, turns)
    spent = {name: {"seconds": row["seconds"] / calls[name][0], "first_seconds": start[name]} for name, row in spent.items()}
    base = spent[BASE]["seconds"]
    return [
        {
            "name": name,
            "task": task,
            "seconds": spent[name]["seconds"],
            "compile_seconds": spent[name]["first_seconds"] - spent[name]["seconds"],
            "error": error(run()),
            "ratio_to_tsit5": base / spent[name]["seconds"],
        }
        for name, run in peers.items()
    ]


def enough(run: Callable[[], Any]) -> tuple[int, list[float]]:
    """How many calls fill `TURN` seconds, and how long the first three took: the first compiles."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return max(1, round(TURN / min(taken))), taken


# --- the candidates ----------------------------------------------------------------------------------------------------


def solved(given: Problem):
    """The closed forms of all modes."""
    return solve_mode(Mode(*(jnp.asarray(x) for x in given[:4])))


def curve_peers(given: Problem, times: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Logits [modes, times], each mode at its own times."""
    at, solution = jnp.asarray(times), solved(given)
    each = eqx.filter_jit(eqx.filter_vmap(lambda one, t: one.logit(t)))
    weights = [jnp.asarray(x) for x in given[:4]]
    return {
        "gradstarve": lambda: each(solution, at),
        "gradstarve, from the weights": lambda: each(solve_mode(Mode(*weights)), at),
        BASE: integrated(given, at, diffrax.Tsit5(), 1e-8),
        "diffrax Dopri8 1e-8": integrated(given, at, diffrax.Dopri8(), 1e-8),
    }


def field(t, u, arguments):
    """du/dt."""
    rate, kappa = arguments
    return rate * jnp.sqrt(kappa * kappa + u * u) * jax.nn.sigmoid(-u)


def integrated(given: Problem, at, solver, tolerance: float) -> Callable[[], Any]:
    """diffrax, vmapped over the modes, saving at the times of each."""

    @jax.jit
    def run(start, rate, kappa, at):
        def one(start, rate, kappa, at):
            control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
            term, save = diffrax.ODETerm(field), diffrax.SaveAt(ts=at)
            return diffrax.diffeqsolve(
                term, solver, 0.0, at[-1], None, start, (rate, kappa), saveat=save, stepsize_controller=control
            ).ys

        return jax.vmap(one)(start, rate, kappa, at)

    inputs = [jnp.asarray(x) for x in (given.start, given.rate, given.kappa)]
    return lambda: run(*inputs, at)


def query_peers(given: Problem) -> dict[str, Callable[[], Any]]:
    """The times [modes] at which the error is first at most `ERROR`."""
    solution, weights = solved(given), [jnp.asarray(x) for x in given[:4]]
    return {
        "gradstarve": lambda: solution.time_to_error(ERROR),
        "gradstarve, from the weights": lambda: solve_mode(Mode(*weights)).time_to_error(ERROR),
        BASE: crossed(given, diffrax.Tsit5(), 1e-8),
        "diffrax Dopri8 1e-8": crossed(given, diffrax.Dopri8(), 1e-8),
        "diffrax Tsit5 1e-8 on dt/du": swapped(given, 1e-8),
    }


def crossed(given: Problem, solver, tolerance: float) -> Callable[[], Any]:
    """diffrax until the logit is reached: an event, located by Newton's method on the interpolant."""

    @jax.jit
    def run(start, rate, kappa):
        def one(start, rate, kappa):
            event = diffrax.Event(lambda t, y, args, **_: y - LOGIT, optimistix.Newton(tolerance, tolerance))
            control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
            term = diffrax.ODETerm(field)
            return diffrax.diffeqsolve(
                term, solver, 0.0, jnp.inf, None, start, (rate, kappa), stepsize_controller=control, event=event
            ).ts[-1]

        return jax.vmap(one)(start, rate, kappa)

    inputs = [jnp.asarray(x) for x in (given.start, given.rate, given.kappa)]
    return lambda: run(*inputs)


def swapped(given: Problem, tolerance: float) -> Callable[[], Any]:
    """diffrax on the integral (3.5) itself, dt/du: what knows that there is one."""

    def slope(u, t, arguments):
        return 1 / field(t, u, arguments)

    @jax.jit
    def run(start, rate, kappa):
        def one(start, rate, kappa):
            control = diffrax.PIDController(rtol=tolerance, atol=tolerance)
            term, solver = diffrax.ODETerm(slope), diffrax.Tsit5()
            return diffrax.diffeqsolve(
                term, solver, start, LOGIT, None, jnp.zeros(()), (rate, kappa), stepsize_controller=control
            ).ys[-1]

        return jax.vmap(one)(start, rate, kappa)

    inputs = [jnp.asarray(x) for x in (given.start, given.rate, given.kappa)]
    return lambda: run(*inputs)


def scipy_row(given: Problem, times: np.ndarray, error, rows: list[Row], count: int = 4) -> Row:
    """SciPy has one ODE at a time: `count` of them, scaled up."""

    def run():
        return [
            solve_ivp(
                lambda t, u, i=i: given.rate[i] * np.hypot(given.kappa[i], u) / (1 + np.exp(u)),
                (0, times[i, -1]),
                given.start[i : i + 1],
                "DOP853",
                times[i],
                rtol=1e-8,
                atol=1e-8,
            ).y[0]
            for i in range(count)
        ]

    seconds = interleaved({"scipy": run}, 3)["scipy"]["seconds"] * len(given.rate) / count
    task = rows[-1]["task"]
    base = next(row["seconds"] for row in rows if row["task"] == task and row["name"] == BASE)
    return {
        "name": "SciPy DOP853 1e-8",
        "task": task,
        "seconds": seconds,
        "compile_seconds": 0.0,
        "error": error(np.array(run())),
        "ratio_to_tsit5": base / seconds,
        "note": f"{count} modes one by one, scaled up to {len(given.rate)}",
    }


# --- the references ----------------------------------------------------------------------------------------------------


def curves(given: Problem, times: np.ndarray, count: int) -> np.ndarray:
    """u [count, times] from the ODE of the angle, d theta/dt = 2 p r g(kappa sinh theta), to 1e-13."""
    found = []
    for rate, kappa, start, at in zip(given.rate[:count], given.kappa, given.start, times, strict=False):

        def turn(t, theta, rate=rate, kappa=kappa):
            return rate / (1 + np.exp(kappa * np.sinh(theta)))

        begin = [np.arcsinh(start / kappa)]
        theta = solve_ivp(turn, (0, at[-1]), begin, "DOP853", at, rtol=1e-13, atol=1e-14).y[0]
        found.append(kappa * np.sinh(theta))
    return np.array(found)


def waits(given: Problem, count: int) -> np.ndarray:
    """t [count] at which u = `LOGIT`: the integral over the angle to 30 digits."""
    found = []
    with mp.workdps(30):
        for rate, kappa, start in zip(given.rate[:count], given.kappa, given.start, strict=False):
            kappa = mp.mpf(float(kappa))
            ends = [mp.asinh(mp.mpf(float(u)) / kappa) for u in (start, LOGIT)]
            cuts = [ends[0] + (ends[1] - ends[0]) * k / 16 for k in range(17)]
            value = mp.quad(lambda theta, kappa=kappa: 1 + mp.exp(kappa * mp.sinh(theta)), cuts)
            found.append(float(value / mp.mpf(float(rate))))
    return np.array(found)
