"""kappa in discrete time (19.1)-(19.5): large steps, label noise and weight decay lower it, and an edge of stability."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, FlippedLabels, GradientDescent, Loss, MarginShift, TwoLayerReLU, as_loss
from gradstarve.theorems._entry import COLOURS, EXCLUSIVE, ONE_RAY, SEPARABLE, Hypothesis, Outcome
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    PER_CLASS,
    WIDTH,
    ExclusiveInit,
    Geometry,
    log_uniform,
    record,
    train,
    two_rays,
)

_TOLERANCE = 1e-9
_LABELS = np.array([1.0, -1.0])
_STEPS = 60
_LONG = 1500  # steps after which an oscillation has died out
_SHOWN = 30  # steps in the figure
_NEAR = 0.01  # relative distance from the edge below which a deviation neither grows nor shrinks enough


# --- networks with a given logit and kappa, and these two numbers of any network ---------------------------------------


def _classes(rng: np.random.Generator, kind: str) -> Geometry:
    """Two classes with a p r of the second 0.5 to 1 times that of the first, so that one step size suits both."""
    first = two_rays(rng, {"antipodal": -1.0, "orthogonal": 0.0}[kind])
    norms = first.norms[0] * np.array([1, rng.uniform(0.5, 1) * np.divide(*first.frequencies)])
    points = np.repeat(norms[:, None] * first.axes, PER_CLASS, axis=0)
    return Geometry(Dataset(points, first.data.labels, first.data.weights), first.axes, norms, first.frequencies)


def _start(rng: np.random.Generator, geometry: Geometry, logit: np.ndarray, kappa: np.ndarray) -> ExclusiveInit:
    """Neurons with |z| <= a, at least one on each class, that give the classes these logits and kappas, [b, 2]."""
    home = np.where(np.arange(WIDTH) < rng.integers(1, WIDTH, (BATCH, 1)), 1.0, -1.0)
    size = np.hypot(logit, kappa)
    rise = (size + logit) / 2
    fall = kappa**2 / (4 * rise)
    p, q = log_uniform(rng, 0.3, 3, (2, *home.shape))
    for c, label in enumerate(_LABELS):
        mine = home == label
        for part, half in ((p, rise), (q, fall)):
            total = np.sum(np.where(mine, part**2, 0), axis=-1)
            part[:] = np.where(mine, part * np.sqrt(4 * half[:, c] / geometry.norms[c] / total)[:, None], part)
    # Neurons with q > p have a read-out of the wrong sign, and learn all the same.
    return ExclusiveInit(home, (p + q) / 2, (p - q) / 2)


def _two_numbers(geometry: Geometry, home: np.ndarray, w: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The logit and kappa of both classes, [b, 2 numbers, 2 classes, *records], of networks w [b, *records, h, d]."""
    found = []
    for axis, norm, label in zip(geometry.axes, geometry.norms, _LABELS, strict=True):
        a, zeta = w @ axis, label * z
        mine = (home == label).reshape(len(home), *(1,) * (w.ndim - 3), WIDTH) & (a > 0)
        rise, fall = (norm / 4 * np.sum(np.where(mine, (a + s * zeta) ** 2, 0), axis=-1) for s in (1, -1))
        found.append([norm * np.sum(np.where(mine, a * zeta, 0), axis=-1), 2 * np.sqrt(rise * fall)])
    return np.moveaxis(np.array(found), (0, 1), (2, 1))


def _gradient_norms(geometry: Geometry, network: TwoLayerReLU) -> np.ndarray:
    """The squared gradient of the output at a point of each class over all weights, by automatic differentiation: [b, 2]."""
    points = jnp.asarray(geometry.norms[:, None] * geometry.axes)

    def outputs(net):
        return net(points)

    slopes = jax.vmap(jax.jacrev(outputs))(network)
    return np.sum(np.asarray(slopes.w) ** 2, axis=(-1, -2)) + np.sum(np.asarray(slopes.z) ** 2, axis=-1)


# --- the rounds --------------------------------------------------------------------------------------------------------


def _against_the_path(
    geometry: Geometry,
    start: ExclusiveInit,
    network: TwoLayerReLU,
    trained: np.ndarray,
    final: TwoLayerReLU,
    loss: Loss | str,
    step_size: np.ndarray,
    group: str,
    decay: np.ndarray | None = None,
    targets: np.ndarray | None = None,
) -> Trials:
    """`trained` [b, 2, 2, steps + 1] and the last networks against the law from the two numbers of the first ones."""
    steps = trained.shape[-1] - 1
    logit, kappa = np.moveaxis(trained[..., 0], 1, 0)
    more: dict[str, Any] = {} if targets is None else {"targets": targets.T}
    if decay is not None:
        more["weight_decay"] = decay[:, None]
    path = theory.kappa_path(
        geometry.frequencies, geometry.norms, kappa, logit, loss, step_size[:, None], steps=steps, **more
    )
    law = np.stack([np.asarray(value) for value in path], axis=1)
    unit = (np.hypot(logit, kappa)[..., None] + np.hypot(law[:, 0], law[:, 1]))[:, None]
    each = {"step_size": step_size, "law": law[..., -1], "trained": trained[..., -1]}
    each |= {} if decay is None else {"weight_decay": decay}
    numbers = recorded(geometry.data, loss, network, each, steps=steps, **({} if targets is None else {"targets": targets}))
    found = compared(
        trained,
        law,
        unit,
        numbers,
        group=group,
        quantity=lambda i, n, c, k: f"{('the logit', 'kappa')[n]} of class {'+-'[c]}",
        when=lambda i, n, c, k: f"at step {k}",
        setting=lambda i: f"{(start.home[i] == 1).sum()} neurons of class +, step_size = {step_size[i]:.4g}",
        axes=("number", "class_index", "step"),
    )
    norms = _gradient_norms(geometry, final)
    size = np.asarray(theory.squared_gradient_norm(geometry.norms, law[:, 1, :, -1], law[:, 0, :, -1]))
    return found.raised(np.max(np.abs(norms - size) / norms, axis=-1))


def _trained(
    geometry: Geometry, start: ExclusiveInit, network: TwoLayerReLU, loss: Any, dynamics: GradientDescent, steps: int
) -> tuple[np.ndarray, TwoLayerReLU]:
    """The two numbers of the trained networks after every step, and the last networks."""
    run = train(geometry.data, network, loss, dynamics, steps, 1, record_networks=True)
    nets: Any = run.networks
    return _two_numbers(geometry, start.home, np.asarray(nets.w), np.asarray(nets.z)), run.final


def _steps(rng: np.random.Generator, loss: str, kind: str, decays: bool) -> Trials:
    """Any loss, x g of up to 0.8, with or without weight decay."""
    geometry = _classes(rng, kind)
    x = log_uniform(rng, 0.1, 0.8, BATCH)
    if as_loss(loss).pulls_back:
        x = x / 2
    kappa = log_uniform(rng, 0.1, 3, (BATCH, 2))
    if as_loss(loss).pulls_back:
        kappa = np.minimum(kappa, 0.8 / x[:, None])
    kappa[0] = 0
    logit = rng.uniform(0.02, 0.8, kappa.shape)
    start = _start(rng, geometry, logit, kappa)
    network = start.network(rng, geometry)
    step_size = x / (geometry.rates.max() / 2)
    decay = log_uniform(rng, 1e-3, 0.05, BATCH) / step_size if decays else None
    dynamics = GradientDescent(step_size, weight_decay=0.0 if decay is None else decay)
    trained, final = _trained(geometry, start, network, loss, dynamics, _STEPS)
    group = f"{loss}, decay" if decays else loss
    return _against_the_path(geometry, start, network, trained, final, loss, step_size, group, decay)


def _noise(rng: np.random.Generator, kind: str) -> Trials:
    """Squared loss with targets drawn anew in each step, the same for all networks of the batch."""
    geometry = _classes(rng, kind)
    x = log_uniform(rng, 0.05, 0.3, BATCH)
    kappa = rng.uniform(0.1, 0.6, (BATCH, 2)) / x[:, None]
    start = _start(rng, geometry, rng.uniform(0.02, 0.8, kappa.shape), kappa)
    network = start.network(rng, geometry)
    step_size = x / (geometry.rates.max() / 2)
    targets = 1 + rng.uniform(-0.6, 0.6, (24, 2))
    nets: Any = network
    trained = [_two_numbers(geometry, start.home, np.asarray(nets.w), np.asarray(nets.z))]
    for target in targets:
        noisy = MarginShift("squared", jnp.asarray(np.repeat(target - 1, PER_CLASS)))
        nets = train(geometry.data, nets, noisy, GradientDescent(step_size), 1, 1).final
        trained.append(_two_numbers(geometry, start.home, np.asarray(nets.w), np.asarray(nets.z)))
    found = np.stack(trained, axis=-1)
    return _against_the_path(
        geometry, start, network, found, nets, "squared", step_size, "squared, label noise", targets=targets
    )


def _thrown(rng: np.random.Generator, kind: str, stays: bool = True) -> Trials:
    """Squared loss, kappa from half the largest stable value to a third above it: the path, and its end.

    Without `stays`, logits start above their rest, and one neuron of class + has a read-out much larger than its a.
    """
    geometry = _classes(rng, kind)
    x = log_uniform(rng, 0.12, 0.45, BATCH)
    above = (rng.uniform(size=(BATCH, 2)) < 0.5) & stays
    kappa = np.where(above, rng.uniform(1.05, 1.3, above.shape), rng.uniform(0.5, 0.9, above.shape))
    kappa = kappa * np.sqrt(1 / x[:, None] ** 2 - 1)
    start = _start(rng, geometry, rng.uniform(0.05, 0.9, kappa.shape) + (not stays), kappa)
    if not stays:
        start.a[:, 0], start.zeta[:, 0] = np.array([0.02, 0.5]) / np.sqrt(geometry.norms[0])
    network = start.network(rng, geometry)
    step_size = x / (geometry.rates.max() / 2)
    trained, final = _trained(
        geometry, start, network, "squared", GradientDescent(step_size), _LONG if stays else _STEPS // 3
    )
    found = _against_the_path(geometry, start, network, trained, final, "squared", step_size, "squared, catapult")
    if not stays:
        return found
    edge = np.asarray(theory.edge_of_stability(geometry.frequencies, geometry.norms, "squared", step_size[:, None]))
    logit, kappa = np.moveaxis(trained[..., 0], 1, 0)
    # The law is asked where training has come to hold.
    held = np.abs(trained[:, 0, :, -1] - 1) < 1e-9
    ends = np.stack(
        [
            np.asarray(value)
            for value in theory.catapult(
                geometry.frequencies, geometry.norms, np.where(held, kappa, 0.1), np.where(held, logit, 0.5), "squared",
                step_size[:, None],
            )
        ],
        axis=1,
    )  # fmt: skip
    off = np.abs(trained[..., -1] - ends) / np.hypot(logit, kappa)[:, None]
    off = np.where(trained[:, 1:, :, -1] < edge[:, None], off, np.inf)
    found = found.raised(np.max(np.where(held[:, None], off, 0), axis=(-1, -2)))
    ratio = trained[:, 1, 0] / (np.sqrt(1 / (step_size * geometry.rates[0] / 2) ** 2 - 1))[:, None]
    law = theory.kappa_path(
        geometry.frequencies[0], geometry.norms[0], kappa[:, 0], logit[:, 0], "squared", step_size, steps=_SHOWN
    )
    found.extra.update(trained=ratio[:, : _SHOWN + 1], law=np.asarray(law[1]) / edge[:, :1])
    return found


def _at_the_edge(rng: np.random.Generator, of: str, kind: str) -> Trials:
    """Starts 1e-4 from the rest: the deviation grows above the edge and never does below it."""
    geometry = _classes(rng, kind)
    share = rng.uniform(0.3, 0.4)
    loss: Any = as_loss(of) if of == "squared" else FlippedLabels(of, jnp.asarray(share))
    rest, slope = (1.0, 1.0) if of == "squared" else (np.log(1 / share - 1), share * (1 - share))
    x = rng.uniform(0.15, 0.5, BATCH) if of == "squared" else rng.uniform(0.8, 1.3, BATCH)
    own = x[:, None] * geometry.rates / geometry.rates.max()
    size = log_uniform(rng, 0.75, 1.3, own.shape) / (own * slope)
    logit = rest + 1e-4 * rng.choice([-1, 1], own.shape)
    start = _start(rng, geometry, logit, np.sqrt(size**2 - rest**2))
    network = start.network(rng, geometry)
    step_size = x / (geometry.rates.max() / 2)
    trained, final = _trained(geometry, start, network, loss, GradientDescent(step_size), 250)
    found = _against_the_path(geometry, start, network, trained, final, loss, step_size, f"{loss.name}, edge")
    kappa = trained[:, 1, :, 0]
    grown = np.max(np.abs(trained[:, 0] - rest), axis=-1) > 4e-4
    edge = np.asarray(theory.edge_of_stability(geometry.frequencies, geometry.norms, loss, step_size[:, None]))
    clear = np.abs(np.hypot(kappa, rest) * own * slope - 1) > _NEAR
    return found.raised(np.max(np.where(clear & (grown != (kappa > edge)), np.inf, 0), axis=-1))


_LEVELS = 4
_COARSEST, _RECORDS = 250, 10


def _flow(rng: np.random.Generator, kind: str) -> Trials:
    """Cross-entropy with weight decay, kappa at ten times extrapolated to steps of zero; one trial is one network."""
    geometry = _classes(rng, kind)
    problems = BATCH // _LEVELS
    kappa = rng.uniform(1.5, 4, (BATCH, 2))
    start = _start(rng, geometry, rng.uniform(0.05, 1, kappa.shape), kappa)
    rows = np.repeat(np.arange(problems), _LEVELS)
    start = ExclusiveInit(start.home[rows], start.a[rows], start.zeta[rows])
    once = start.network(rng, geometry)
    network = TwoLayerReLU(np.asarray(once.w)[rows * _LEVELS], np.asarray(once.z)[rows * _LEVELS])
    # 2 lambda t = 2.5 to 3: kappa falls to a twelfth at least.
    time = rng.uniform(1, 3, problems) / (geometry.rates.max() / 2)
    decay = rng.uniform(2.5, 3, problems) / (2 * time)
    steps = _COARSEST * 2 ** np.arange(_LEVELS)
    dynamics = GradientDescent((time[:, None] / steps).reshape(-1), weight_decay=decay[rows])
    run = train(
        geometry.data, network, "cross-entropy", dynamics, int(steps[-1]), _COARSEST // _RECORDS, record_networks=True
    )
    nets: Any = run.networks
    numbers = _two_numbers(geometry, start.home, np.asarray(nets.w), np.asarray(nets.z))[:, 1]
    at = np.arange(_RECORDS + 1) * 2 ** np.arange(_LEVELS)[:, None]  # the record of each level at each time
    found = np.log(np.stack([numbers[k :: _LEVELS][..., at[k]] for k in range(_LEVELS)], axis=1))
    # The error of a step size is a power series in it; each round removes its lowest power.
    for power in range(1, _LEVELS):
        found = found[:, 1:] + (found[:, 1:] - found[:, :-1]) / (2**power - 1)
    logs = found[:, 0]
    times = time[:, None] * np.arange(_RECORDS + 1) / _RECORDS
    first = np.exp(logs[..., 0])
    law = np.asarray(theory.decayed_kappa(first[..., None], decay[:, None, None], times[:, None]))
    gaps = np.max(np.abs(np.exp(logs) - law) / first[..., None], axis=(-1, -2))
    # The time at which the extrapolated kappa is kappa_c, interpolated between records a tenth of the time apart.
    threshold = np.log(theory.kappa_critical("cross-entropy"))
    rich = np.array([[np.interp(-threshold, -log, own) for log in each] for each, own in zip(logs, times, strict=True)])
    when = np.asarray(theory.lazy_to_rich_time(first, decay[:, None]))
    gaps = np.maximum(gaps, np.max(np.abs(rich - when) * 2 * decay[:, None], axis=-1))
    more = {"weight_decay": decay, "times": times, "law": law, "trained": np.exp(logs)}

    def instance(i: int) -> dict[str, Any]:
        own = {name: value[i] for name, value in more.items()}
        return record(geometry.data, "cross-entropy", network, _LEVELS * i, **own)

    return Trials(gaps, instance, group="flow with decay")


# --- the entry ---------------------------------------------------------------------------------------------------------

_DRAWS = {"catapult": _thrown, "edge": _at_the_edge, "flow": _flow, "noise": _noise, "steps": _steps}
_ROUNDS = (
    {"what": "catapult", "kind": "orthogonal"},
    {"what": "edge", "kind": "antipodal", "of": "cross-entropy"},
    {"what": "flow", "kind": "orthogonal"},
    {"what": "noise", "kind": "antipodal"},
    {"what": "steps", "kind": "orthogonal", "loss": "cross-entropy", "decays": False},
    {"what": "steps", "kind": "antipodal", "loss": "squared", "decays": True},
    {"what": "edge", "kind": "orthogonal", "of": "squared"},
    {"what": "steps", "kind": "antipodal", "loss": "exponential", "decays": False},
    {"what": "steps", "kind": "orthogonal", "loss": "hinge", "decays": True},
)


def _draw(outcome: Outcome, ax: Any) -> None:
    """kappa against the steps: lines of the law, markers of trained networks, the edge of stability at 1."""
    trained, law = outcome.extra["trained"], outcome.extra["law"]
    order = np.argsort(law[:, 0])
    chosen = order[np.unique(np.linspace(0, len(order) - 1, 9).astype(int))]
    steps = np.arange(_SHOWN + 1)
    named = set()
    for i in chosen:
        name, colour = ("starts above the edge", COLOURS[1]) if law[i, 0] > 1 else ("starts below the edge", COLOURS[0])
        ax.plot(steps, law[i, steps], color=colour, linewidth=1.2)
        label = None if name in named else f"{name} (trained)"
        ax.plot(steps, trained[i, steps], "o", color=colour, markersize=3.5, label=label)
        named.add(name)
    ax.plot([], [], color="black", linewidth=1.2, label="lines: law (19.1)")
    ax.axhline(1, color="black", linestyle="--", linewidth=1.2, label="edge of stability (19.3)")
    ax.set_xlim(-0.5, _SHOWN + 0.5)
    ax.set_ylim(0, None)
    ax.set_xlabel("steps of gradient descent, squared loss")
    ax.set_ylabel("κ of a class / largest stable κ")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _within(p: Any) -> bool:
    _, along, zeta = p.neurons
    return bool(np.all(np.abs(zeta) <= along * (1 + 1e-9)))


@register(
    name="kappa-in-steps",
    equation="19.1-19.5",
    title="Large steps, label noise and weight decay lower kappa",
    meaning="Large steps, noisy labels and weight decay all push a network from lazy to rich learning, each at a known "
    "rate.",
    claim="a step multiplies kappa by |(1 - eta lambda)^2 - (x g)^2|, x = eta p r, for every loss and any number of "
    "neurons, also with noisy targets; |grad u|^2 = 2 r sqrt(kappa^2 + u^2); a rest u* is stable iff "
    "x |g'(u*)| sqrt(kappa^2 + u*^2) < 1, and an oscillation above that edge lowers kappa to below it; in the flow kappa "
    "decays like e^(-2 lambda t)",
    formula=(
        r"\begin{split} \kappa_{k+1} &= \left| (1 - \eta \lambda)^2 - x^2 g_k^2 \right| \kappa_k, \qquad x = \eta\, p\, r, "
        r"\qquad g_k = g(u_k) \text{ or, with label noise, } \xi_k - u_k, \\ "
        r"u_{k+1} &= \left( (1 - \eta \lambda)^2 + x^2 g_k^2 \right) u_k "
        r"+ 2\, (1 - \eta \lambda)\, x\, g_k \sqrt{\kappa_k^2 + u_k^2}, \\ "
        r"|\nabla u|^2 &= 2\, r \sqrt{\kappa^2 + u^2}, \\ "
        r"u_* \text{ is stable} &\Leftrightarrow x\, |g'(u_*)| \sqrt{\kappa^2 + u_*^2} < 1, \\ "
        r"\kappa(t) &= \kappa_0\, e^{-2 \lambda t} \text{ in the flow} \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "orthogonal or antipodal classes",
        Hypothesis("neurons that stay in every step: |z| <= a, and |x g| < 1 - eta lambda", _within),
        "not within 1 % of the edge, where it takes too long to tell on which side of it a start is",
    ),
    tolerance=_TOLERANCE,
    why_tolerance="rounding of up to 1500 steps, at most 3e-13, made larger by up to 100 by oscillations above the edge; in "
    "the flow step_size max(p r, lambda) is 0.012, 0.006, 0.003 and 0.0015 at most, and the four leave of the error of "
    "descent their product: 3e-10; the wrong side of the edge counts as infinite",
    checked_with="simulate: gradient descent on all weights by automatic differentiation, one step at a time with noise, "
    "and for the flow with four step sizes, extrapolated to steps of zero",
    default_trials=2 * BATCH * len(_ROUNDS),
    quick_trials=BATCH * 5,
    single_tolerance=None,
    dynamics=("flow", "descent"),
    rounds=_ROUNDS,
    drops=(
        Drop(
            "neurons that stay in every step (one of class + with z = 25 a instead, and margins that start above 1)",
            {"what": "catapult", "kind": "orthogonal", "stays": False},
        ),
    ),
    figure=_draw,
)
def kappa_in_steps(rng: np.random.Generator, what: str, **how: Any) -> Trials:
    """Orthogonal and antipodal classes; one trial is one network, both of its classes."""
    return _DRAWS[what](rng, **how)
