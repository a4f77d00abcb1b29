"""Wrong-sign neurons between two classes at an obtuse angle: dead for ever, or active on the other class (4.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import TwoLayerReLU
from gradstarve.theorems._entry import COLOURS, EXCLUSIVE, NEVER_STOPS, ONE_RAY, Outcome, Quote
from gradstarve.theorems._register import Drop, Trials, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    DIM,
    WIDTH,
    Geometry,
    log_uniform,
    record,
    train_exact,
    train_flow,
    two_rays,
)
from gradstarve.theorems.laws.hinge import AT_LAST, HINGE_LOSS, followed
from gradstarve.theorems.laws.modes import FRACTIONS


def leavers(
    rng: np.random.Generator, geometry: Geometry, cosine: float, wrong: tuple[float, float] = (1.02, 3.0)
) -> tuple[TwoLayerReLU, np.ndarray, np.ndarray, np.ndarray]:
    """Networks of neurons exclusive to class -, with z = beta times a number in `wrong`: (network, alpha, beta, used).

    alpha = w.xh_+ is on both sides of -|cosine| beta, a third of the time within 0.2 % to 10 % of it; any closer, and the
    error of the integrator would decide.
    """
    plus, minus = geometry.axes
    shape = (BATCH, WIDTH)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (BATCH, 1))
    beta = log_uniform(rng, 1e-2, 0.5, (BATCH, 1)) * log_uniform(rng, 0.5, 2, shape) * used
    near = 1 + log_uniform(rng, 2e-3, 0.1, shape) * rng.choice([-1, 1], shape)
    far = log_uniform(rng, 0.1, 10, shape)
    alpha = -abs(cosine) * beta * np.where(rng.uniform(size=shape) < 1 / 3, near, far)
    coordinates = np.stack([alpha, beta], axis=-1) @ np.linalg.pinv(geometry.axes).T
    noise = rng.normal(size=(*shape, DIM))
    noise -= np.einsum("bhd,kd,ke->bhe", noise, *[np.linalg.qr(np.stack([plus, minus]).T)[0].T] * 2)
    w = coordinates + noise * beta[..., None] * rng.uniform(0, 1, (*shape, 1))
    return TwoLayerReLU(w, beta * log_uniform(rng, *wrong, shape)), alpha, beta, used


def followed_to_the_end(
    geometry: Geometry, network: TwoLayerReLU, largest: float = 60.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(active on class +, active on class -, lost) at the end, after every clock has run far."""
    times = 2 * FRACTIONS * largest / geometry.rates.min()
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    final: Any = run.final
    along = np.asarray(final.w) @ geometry.axes.T
    return along[..., 0] > 0, along[..., 1] > 0, lost


def _stray_fates(rng: np.random.Generator, cosine: float, wrong: tuple[float, float], what: str) -> Trials:
    """Leavers at another angle, or neurons with another read-out, against their fate by the law of leavers."""
    geometry = two_rays(rng, cosine)
    network, alpha, beta, used = leavers(rng, geometry, cosine, wrong)
    plus, minus, lost = followed_to_the_end(geometry, network)
    dead = np.asarray(theory.dies_for_ever(alpha, np.where(used, beta, 1), -abs(cosine)))
    fails = used & ~lost[:, None] & np.where(dead, plus | minus, ~plus & ~minus)

    def fate(i: int, j: int) -> Quote:
        quantity = f"the fate (0: active on no point) of {_neuron(alpha, beta, network, i, j)}"
        return Quote(quantity, "at the end", not dead[i, j], plus[i, j] | minus[i, j])

    rest = f"{int(fails.sum())} of {int(used.sum())} neurons {what}"
    return _first_failures(geometry, network, "cross-entropy", fails, fate, rest)


def _first_failures(geometry: Geometry, network: TwoLayerReLU, loss: str, fails: np.ndarray, fate: Any, rest: str) -> Trials:
    """Trials that are networks, represented by their first neuron that `fails` [b, h], quoted by `fate(network, neuron)`."""
    first = np.argmax(fails, axis=-1)

    def numbers(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, neuron=int(first[i]))

    return Trials(fails.any(-1), numbers, quote=lambda i: fate(i, int(first[i])), rest=rest)


def _neuron(alpha: np.ndarray, beta: np.ndarray, network: TwoLayerReLU, i: int, j: int) -> str:
    where = f"w.xh_+ = {alpha[i, j]:.3g}, w.xh_- = {beta[i, j]:.3g}"
    return f"a neuron with {where}, z = {float(network.z[i, j]):.3g}"


def _beside(
    rng: np.random.Generator, geometry: Geometry, network: TwoLayerReLU, used: np.ndarray, size: tuple[float, float]
) -> tuple[TwoLayerReLU, np.ndarray]:
    """The last neuron of every second network replaced by one that learns class -, w.xh_- = -z being in `size` over
    sqrt(r); and the remaining leavers."""
    minus = geometry.axes[1]
    rows = np.arange(BATCH)[:, None] % 2 == 1
    swap = rows & (np.arange(WIDTH) == WIDTH - 1)
    length = log_uniform(rng, *size, (BATCH, 1)) / np.sqrt(geometry.norms[1])
    w = np.where(swap[..., None], length[..., None] * minus, np.asarray(network.w))
    return TwoLayerReLU(w, np.where(swap, -length, np.asarray(network.z))), used & ~swap


def _awake(network: TwoLayerReLU, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Which neurons are active on class + and on class -, [b, h] each; neurons that became inactive are on the edge."""
    w = np.asarray(network.w)
    least = np.sqrt(np.finfo(w.dtype).eps) * np.linalg.norm(w, axis=-1)
    plus, minus = (w @ axis > least for axis in geometry.axes)
    return plus, minus


def _learnt_sooner(rng: np.random.Generator) -> Trials:
    """With a neuron that learns class - sooner, the leavers stay in their class."""
    cosine = -0.5
    geometry = two_rays(rng, cosine)
    network, alpha, beta, used = leavers(rng, geometry, cosine)
    network, used = _beside(rng, geometry, network, used, (1.5, 2.0))
    run = train_exact(geometry.data, network, AT_LAST)
    final: Any = run.final
    fails = _awake(final, geometry)[1] & used & (np.arange(BATCH) % 2 == 1)[:, None]
    dead = np.asarray(theory.dies_for_ever(alpha, np.where(used, beta, 1), cosine))

    def fate(i: int, j: int) -> Quote:
        told = "dies" if dead[i, j] else "leaves and wakes on class +"
        who = _neuron(alpha, beta, network, i, j)
        what = f"1 if it is on class -, else 0, for {who}, which the rule says {told},"
        return Quote(what, "when all is learnt", 0.0, fails[i, j])

    rest = f"so it is for {int(fails.sum())} of {int(used[1::2].sum())} leavers"
    return _first_failures(geometry, network, "hinge", fails, fate, rest)


def draw_waking(outcome: Outcome, ax: Any) -> None:
    """alpha/beta of every neuron over the cosine of the angle, its fate, and the line of the law."""
    points = outcome.extra["points"]
    for value, name, colour in ((1.0, "awake on class + (trained)", COLOURS[0]), (0.0, "dead (trained)", COLOURS[1])):
        mine = points[:, 2] == value
        ax.scatter(points[mine, 0], -points[mine, 1], s=9, color=colour, linewidths=0, label=name)
    line = np.linspace(-1, 0, 50)
    ax.plot(line, -line, color="black", linestyle="--", linewidth=1.2, label="law: α + |c| β = 0")
    ax.set_xlim(-1, 0)
    ax.set_ylim(0, 1.5)
    ax.set_xlabel("c, cosine of the angle between the classes")
    ax.set_ylabel("−α / β at the start")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


_RULE = (
    r"\begin{split} \alpha_j + \left| c \right|\, \beta_j < 0: \quad &\text{neuron } j \text{ is dead for ever}, \\ "
    r"\alpha_j + \left| c \right|\, \beta_j > 0: \quad &\text{it wakes on the points } x_+, \\ "
    r"&\alpha_j = w_j \cdot \hat{x}_+ \le 0 < \beta_j = w_j \cdot \hat{x}_- < z_j, \qquad "
    r"c = \hat{x}_+ \cdot \hat{x}_- \end{split}"
)
_EIGHT = tuple({"turn": k} for k in range(8))  # angles, in as many parts


def _angle(rng: np.random.Generator, turn: int) -> float:
    return -0.05 - 0.9 * (turn + float(rng.uniform())) / 8


@register(
    name="waking",
    equation="4.4",
    title="Some of the neurons that leave a class wake on the other one",
    meaning="A neuron that leaves one class may wake up on the other one; two of its first weights decide which.",
    claim="a neuron that leaves class - at an obtuse angle is dead for ever iff alpha + |c| beta < 0, else it wakes on "
    "class +",
    formula=_RULE,
    hypotheses=(
        ONE_RAY,
        "an angle with cosine c in (-1, 0) between the classes",
        EXCLUSIVE,
        "the neuron leaves class -: z > beta = w.xh_- > 0 >= alpha = w.xh_+",
        NEVER_STOPS,
    ),
    tolerance=0.5,
    why_tolerance=(
        "yes or no: 0 agrees, 1 contradicts; a third of the neurons are within 0.2 % to 10 % of the line, and "
        "the integrator's error is far below that"
    ),
    checked_with=BY_FLOW,
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    losses=("cross-entropy", "exponential"),
    rounds=_EIGHT,
    drops=(
        Drop(
            # The read-out has the wrong sign but is too small, and the neuron learns its class nevertheless.
            "the neuron leaves its class (0 < z < beta instead)",
            lambda rng: _stray_fates(rng, -0.5, (0.1, 0.9), "stay on class - although alpha + |c| beta < 0"),
        ),
        Drop(
            # Leaving one class also moves a neuron away from the other one.
            "classes at an obtuse angle (60 degrees instead)",
            lambda rng: _stray_fates(
                rng, 0.5, (1.02, 3.0), "are active on no point at the end although alpha + |c| beta > 0"
            ),
        ),
    ),
    figure=draw_waking,
)
def waking(rng: np.random.Generator, turn: int) -> Trials:
    """The flow of networks of leavers at random obtuse angles; one trial is one neuron."""
    cosine = _angle(rng, turn)
    geometry = two_rays(rng, cosine)
    network, alpha, beta, used = leavers(rng, geometry, cosine)
    plus, minus, lost = followed_to_the_end(geometry, network)
    dead = np.asarray(theory.dies_for_ever(alpha, np.where(used, beta, 1), cosine))
    wrong = np.where(dead, plus | minus, ~plus)
    undecided = (minus & ~plus) | lost[:, None]
    each = {"on_plus": plus, "on_minus": minus, "dies_by_law": dead}
    fate = np.where(plus, 1.0, np.where(minus, 0.5, 0.0))
    points = np.stack([np.full(fate.shape, cosine), alpha / np.where(used, beta, 1), fate], axis=-1)[used]
    numbers = _neurons(geometry, "cross-entropy", network, used, each)
    return Trials(wrong[used], numbers, undecided[used], "cross-entropy", extra={"points": points})


def _neurons(geometry: Geometry, loss: str, network: TwoLayerReLU, used: np.ndarray, each: dict[str, np.ndarray]) -> Any:
    """`numbers` of trials that are the `used` [b, h] neurons, with `each` [b, h] at its own."""
    places = np.argwhere(used)

    def numbers(i: int) -> dict[str, Any]:
        b, j = (int(n) for n in places[i])
        return record(geometry.data, loss, network, b, neuron=j, **{name: bool(v[b, j]) for name, v in each.items()})

    return numbers


@register(
    name="waking-hinge",
    equation="4.4",
    title="With hinge loss too, some of those that leave a class wake on the other one",
    meaning="With the hinge loss too, some neurons that leave one class wake on the other, unless the class is learnt "
    "before they have left.",
    claim="a neuron that leaves class - before class - is learnt is dead for ever iff alpha + |c| beta < 0, else it wakes "
    "on class +; where every neuron of class - is a leaver, all of them leave",
    formula=_RULE,
    hypotheses=(
        ONE_RAY,
        "an angle with cosine c in (-1, 0) between the classes",
        EXCLUSIVE,
        "the neuron leaves class - before it is learnt: z > beta = w.xh_- > 0 >= alpha = w.xh_+",
        HINGE_LOSS,
    ),
    tolerance=0.5,
    why_tolerance=(
        "yes or no: 0 agrees, 1 contradicts; a third of the neurons are within 0.2 % to 10 % of the line, and rounding is "
        "far below that"
    ),
    checked_with="simulate_hinge_exact: all weights of the full network from event to event",
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    losses=("hinge",),
    rounds=_EIGHT,
    drops=(
        Drop(
            "the neuron leaves class - before it is learnt (beside a neuron that learns it sooner instead)", _learnt_sooner
        ),
    ),
    figure=draw_waking,
)
def waking_hinge(rng: np.random.Generator, turn: int) -> Trials:
    """The exact hinge flow of networks of leavers, every second one with a neuron that learns class -; one trial is one
    neuron that has left class -. Without such a neuron all leavers leave: their margin is below 0 until they are gone."""
    cosine = _angle(rng, turn)
    geometry = two_rays(rng, cosine)
    network, alpha, beta, used = leavers(rng, geometry, cosine)
    network, used = _beside(rng, geometry, network, used, (1e-3, 0.5))
    run = train_exact(geometry.data, network, AT_LAST)
    final: Any = run.final
    plus, minus = _awake(final, geometry)
    dead = np.asarray(theory.dies_for_ever(alpha, np.where(used, beta, 1), cosine))
    alone = (np.arange(BATCH) % 2 == 0)[:, None]
    wrong = np.where(followed(run)[:, None], np.where(dead, plus, ~plus) | (minus & alone), True)
    mine = used & (alone | ~minus)
    points = np.stack([np.full(plus.shape, cosine), alpha / np.where(used, beta, 1), plus], axis=-1)[mine]
    numbers = _neurons(geometry, "hinge", network, mine, {"on_plus": plus, "dies_by_law": dead})
    return Trials(wrong[mine], numbers, group="hinge", extra={"points": points})
