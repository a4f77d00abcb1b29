"""The events of a hinge flow on orthogonally separable data, counted, and where it comes to rest (12.1).

Write p_i = y_i w_j.x_i. By (2.0) all p_i of a neuron rise while z_j > 0 and fall while z_j < 0, and dz_j/dt = A - B with A
the pull of the points of class + it is active on and B that of class -.

*Neurons.* With z_j > 0 and no point of class - active, B = 0: z_j and all p_i rise, so for ever after the neuron wakes on
points of class + and passes no other edge; it is at home. With z_j < 0 and class + alone active z_j rises and the p_i fall:
points of class + fall asleep, each once, until the neuron is dead, or has z_j > 0 and is at home (and may wake on them
again), or wakes on class - and is *shared*. A shared neuron that leaves one class does so with the sign of the other: it is
at home there. So a neuron is shared during one span of time at most, and passes no edge more than twice outside of it.

*Margins.* dm_i/dt has a term y_i (dz_j/dt) w_j.x_i that is negative for shared neurons alone: without them a margin never
falls, and reaches 1 once.

*Shared neurons.* Let G = |grad L|^2 = sum_ik u_i u_k K_ik, where K_ik = grad m_i . grad m_k and u_i = q_i g_i. A margin that
passes 1 upwards without being held has dm_i/dt = (K u)_i >= 0 also with u_i = 0, one that passes downwards <= 0 also with
u_i = q_i: either way G falls by q_i^2 K_ii or more. And where m_i = 1, K_ii = sum_j (z_j^2 |x_i|^2 + (w_j.x_i)^2), the sum
over the neurons active on x_i, is >= 2 |x_i| sum_j |z_j| w_j.x_i >= 2 |x_i|. Between events dG/dt <= 2 R G with
R = sum_i q_i |x_i|; an edge passed to sleep lowers G, one to wake raises it by at most R^2 z_j^2. Were there infinitely many
passages of margins before a time t*, then z_j would change sign infinitely often for some j (else edges are passed
finitely often, and G cannot keep falling), so z_j = O(t* - t) and the z_j^2 at its wakings sum to O((t* - t)^2), which can
not make up for the falls. So passages of margins are finitely many in finite time; and from one to the next z_j is convex
where positive and concave where negative, so it changes sign at most once and no edge is passed more than twice. (Margins
that are held, whose u_i changes continuously, are outside of this argument: for them the count is a measurement.)

*Rest.* While a neuron at home with z_j is active on a point below 1, G >= (z_j q_i |x_i|)^2, and the integral of G over all
times is at most L(0): all points that neurons at home see are learnt in finite time.

Above them: the path from event to event; below: where it ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import GUIDE
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind
from gradstarve.theorems._entry import (
    COLOURS,
    OFF_MANIFOLD,
    SEPARABLE,
    Outcome,
    Problem,
    TrialLog,
    of_losses,
)
from gradstarve.theorems._figure import LawFigure, Marks
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    DIM,
    PER_CLASS,
    RECORDS,
    WIDTH,
    cone_data,
    descent_gradient,
    generators,
    networks,
    record,
    train_descent,
    train_exact,
    train_flow,
)
from gradstarve.theorems.laws.independence import exclusive_networks

# The path of a hinge flow from event to event, retraced in plain NumPy from the list of its events (12.1).
#
# `retraced` takes the recorded events, moves the weights from one to the next by matrix exponentials, and measures by how
# much any product or margin is on the wrong side of its edge or of 1: this exposes a missing event or a wrong time.

_LOOKS = 4  # times per segment, its end included, at which activities and margins are compared with the list


class Moment(NamedTuple):
    """One event: its `time`, `kind`, `neuron` and `point`; the weights `w` [h, d] and `z` [h] then, and on either side of
    it which neurons are active on which points [h, n] and by how much each point pulls, u_i = q_i g_i [n]."""

    time: float
    kind: Kind
    neuron: int
    point: int
    w: np.ndarray
    z: np.ndarray
    active: tuple[np.ndarray, np.ndarray]
    pulls: tuple[np.ndarray, np.ndarray]
    held: bool  # whether margins are held at 1 before or after


class Path(NamedTuple):
    """A network on its way: the `moments` of its events, the weights at the last of them, and the `strain`: how far
    anything was on the wrong side of its edge (beside |w| |x| + |z| |x|) or margin, or off it at its own event."""

    moments: list[Moment]
    w: np.ndarray
    z: np.ndarray
    strain: float


class _State(NamedTuple):
    w: np.ndarray
    z: np.ndarray
    active: np.ndarray
    live: np.ndarray
    held: np.ndarray
    glides: np.ndarray  # whether each neuron is held on the edge of each point, [h, n]


def _numbers(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.asarray(data.points, float), np.asarray(data.labels, float), np.asarray(data.weights, float)


def margins(state: Any, data: Dataset) -> np.ndarray:
    """m_i by the recorded activities, [n]."""
    x, y, _ = _numbers(data)
    return y * (state.z @ np.where(state.active, state.w @ x.T, 0))


def forces(active: np.ndarray, pulls: np.ndarray, data: Dataset) -> np.ndarray:
    """c_j = sum_i u_i y_i x_i over the points that neuron j is active on, [h, d]."""
    x, y, _ = _numbers(data)
    return (active * (pulls * y)) @ x


def slopes(w: np.ndarray, z: np.ndarray, active: np.ndarray, data: Dataset) -> np.ndarray:
    """The gradient of every margin in all weights, [n, h (d + 1)]."""
    x, y, _ = _numbers(data)
    seen = active.T * y[:, None]
    return np.concatenate([(z * seen)[..., None] * x[:, None], (seen * (x @ w.T))[..., None]], -1).reshape(len(y), -1)


def _along_edges(motion: np.ndarray, state: _State, data: Dataset) -> np.ndarray:
    """A motion of w, projected along the edges on which neurons are held, [..., h, d] (16.3)."""
    left = motion.copy()
    for j in np.flatnonzero(state.glides.any(1)):
        across = _numbers(data)[0][state.glides[j]]
        left[..., j, :] -= motion[..., j, :] @ np.linalg.pinv(across) @ across
    return left


def _held_slopes(state: _State, data: Dataset) -> np.ndarray:
    """`slopes` of a network whose edges hold neurons."""
    each = slopes(state.w, state.z, state.active, data).reshape(data.size, *state.w.shape[:1], -1)
    each[..., :-1] = _along_edges(each[..., :-1], state, data)
    return each.reshape(data.size, -1)


def shares(state: _State, pulls: np.ndarray, data: Dataset) -> np.ndarray:
    """The share of its pull with which the point of a held edge keeps its neuron there, [h, n]; 0 for other pairs."""
    x, y, _ = _numbers(data)
    found, force = np.zeros(state.glides.shape), forces(state.active, pulls, data)
    for j in np.flatnonzero(state.glides.any(1)):
        mine = state.glides[j]
        found[j, mine] = -np.linalg.pinv(x[mine]).T @ force[j] * y[mine]
    return found / np.where(pulls > 0, pulls, 1)


def _pulls(state: _State, data: Dataset) -> np.ndarray:
    """u_i = q_i below a margin of 1, and for held margins the pull that keeps them at 1."""
    u = np.where(state.live, _numbers(data)[2], 0)
    if state.held.any():
        each = _held_slopes(state, data)
        mine = each[state.held]
        u[state.held] = np.linalg.lstsq(mine @ mine.T, -mine @ (u @ each), rcond=None)[0]
    return u


def _strain(state: _State, data: Dataset) -> float:
    x = _numbers(data)[0]
    edge = state.w @ x.T
    reach = np.linalg.norm(x, axis=-1) * (np.linalg.norm(state.w, axis=-1) + np.abs(state.z))[:, None]
    over = np.where(state.active, -edge, edge) / np.where(reach > 0, reach, 1)
    m = margins(state, data)
    beyond = np.where(state.held, np.abs(m - 1), np.where(state.live, m - 1, 1 - m))
    over = np.where(state.glides, np.abs(over), over)
    return float(max(over.max(), beyond.max(), 0))


def _beyond_shares(state: _State, data: Dataset) -> float:
    """The largest distance of a share on a held edge from [0, 1]."""
    part = shares(state, _pulls(state, data), data) if state.glides.any() else np.zeros(1)
    return float(max(-part.min(), part.max() - 1, 0))


def _moved(state: _State, data: Dataset, span: float) -> tuple[_State, float]:
    """The state after `span` without an event, and its strain on the way."""
    if state.held.any():
        return _slid(state, data, span)
    from scipy.linalg import expm

    c = _along_edges(forces(state.active, _pulls(state, data), data), state, data)
    h, d = c.shape
    generator = np.zeros((h, d + 1, d + 1))
    generator[:, :d, d] = generator[:, d, :d] = c
    part = expm(generator * (span / _LOOKS))
    joined, strain = np.concatenate([state.w, state.z[:, None]], axis=-1), _beyond_shares(state, data)
    for _ in range(_LOOKS):
        joined = np.einsum("hde,he->hd", part, joined)
        state = state._replace(w=joined[:, :d], z=joined[:, d])
        strain = max(strain, _strain(state, data))
    return state, strain


def _slid(state: _State, data: Dataset, span: float) -> tuple[_State, float]:
    """The same where margins are held: no closed form, so SciPy's integrator."""
    from scipy.integrate import solve_ivp

    h, d = state.w.shape

    def parted(joined):
        return state._replace(w=joined[: h * d].reshape(h, d), z=joined[h * d :])

    def field(_, joined):
        now = parted(joined)
        moved = (_pulls(now, data) @ _held_slopes(now, data)).reshape(h, d + 1)
        return np.concatenate([moved[:, :d].reshape(-1), moved[:, d]])

    start, looks = np.concatenate([state.w.reshape(-1), state.z]), np.linspace(0, span, _LOOKS + 1)[1:]
    found = solve_ivp(field, (0, span), start, "DOP853", looks, rtol=1e-12, atol=1e-13).y.T
    states = [parted(joined) for joined in found]
    return states[-1], max(max(_strain(each, data), _beyond_shares(each, data)) for each in states)


def retraced(data: Dataset, network: TwoLayerReLU, events: Any, b: int, until: float | None = None) -> Path:
    """Network `b` of a batch along its `events`, and on to the time `until`."""
    w, z = np.asarray(network.w[b], float), np.asarray(network.z[b], float)
    active = w @ _numbers(data)[0].T > 0
    state = _State(w, z, active, np.ones(data.size, bool), np.zeros(data.size, bool), np.zeros_like(active))
    state = state._replace(live=margins(state, data) < 1)
    rows = zip(*(leaf[b][: int(events.count[b])].tolist() for leaf in events[:4]), strict=True)
    moments, clock, strain = [], 0.0, 0.0
    for time, kind, j, i in rows:
        if time > clock:
            state, found = _moved(state, data, time - clock)
            strain = max(strain, found)
        clock = max(time, clock)
        active, live, held, glides = (leaf.copy() for leaf in state[2:])
        if j >= 0:
            active[j, i], glides[j, i] = kind == Kind.WAKES, kind == Kind.SLIDES
        else:
            live[i], held[i] = kind == Kind.FORGOTTEN, kind == Kind.HELD
        after = state._replace(active=active, live=live, held=held, glides=glides)
        # If the event has already passed, the distance from the edge or from the margin 1 counts as strain.
        strain = max(strain, _strain(after, data))
        pulls = _pulls(state, data), _pulls(after, data)
        slides = bool(state.held.any() or held.any())
        moments.append(Moment(time, Kind(kind), j, i, state.w, state.z, (state.active, active), pulls, slides))
        state = after
    if until is not None and until > clock:
        state, found = _moved(state, data, until - clock)
        strain = max(strain, found)
    return Path(moments, state.w, state.z, strain)


# Hinge flow from event to event is the flow (12.1).

HINGE_LOSS = of_losses("hinge loss", "hinge")
# The records of a run that is long enough for every network that comes to rest.
AT_LAST = 1e9 * np.arange(1, RECORDS + 1)
_TOLERANCE = 1e-9


def exact_records(data: Dataset, network: TwoLayerReLU, times: Any) -> Any:
    """The law of (12.1): the flow from event to event, recorded at `times`."""
    return train_exact(data, network, times)


def followed(run: Any) -> np.ndarray:
    """Which networks of a run reached its last time, [b]."""
    return np.all(np.isfinite(np.asarray(run.recorded)), axis=(-1, -2))


def off_the_path(data: Dataset, run: Any, which: Any, until: float | None = None) -> np.ndarray:
    """The distance of the events of networks `which` from a retraced path, and of its end from that of the run, [b]."""
    gaps = np.zeros(len(run.events.count))
    for b in map(int, which):
        path = retraced(data, run.initial, run.events, b, until)
        size = max(np.abs(path.w).max(), np.abs(path.z).max(), 1e-300)
        moved = max(np.abs(path.w - np.asarray(run.final.w[b])).max(), np.abs(path.z - np.asarray(run.final.z[b])).max())
        gaps[b] = max(path.strain, moved / size)
    return gaps


def draw_problem(rng: np.random.Generator) -> tuple[Dataset, TwoLayerReLU, float]:
    """Cone data, networks of any activity and signs, and the mean norm of the points, the unit of 1/time."""
    data = cone_data(rng)
    return data, TwoLayerReLU(*networks(rng)), float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())


def _by_steps(rng: np.random.Generator) -> Trials:
    data, _, r = draw_problem(rng)
    return by_steps(data, exclusive_networks(rng, data), r, 0.3, 80)


def by_steps(data: Dataset, network: TwoLayerReLU, r: float, step: float = 0.02, steps: int = 300) -> Trials:
    """Descent by steps of `step` / r, whose events are late or early by up to a step: the size of its error."""
    size, sides = step / r, []
    for part, row in ((1, 1), (4, 4)):
        run = train_descent(data, network, "hinge", np.full(BATCH, size / part), steps, steps // 4)
        law = exact_records(data, network, size * steps / 4 * np.arange(1, RECORDS + 1))
        sides.append((np.asarray(run.recorded)[:, row], np.asarray(law.recorded)[:, 0]))
    coarse, fine = (float(np.nanmax(np.abs(trained - law))) for trained, law in sides)
    numbers = recorded(data, "hinge", network, step_size=size, steps=steps // 4)
    texts: dict[str, Any] = {"quantity": lambda i, j: f"the logit of point {j}"}
    texts["when"] = f"after {steps // 4} steps of {size:.3g}"
    order = np.log(coarse / fine) / np.log(4)
    texts["rest"] = f"with a quarter of the step no logit is off by more than {fine:.3g}: order {order:.2f}"
    trained, law = sides[0]
    return compared(trained, law, 1.0, numbers, **texts)


def _moving(trial: dict[str, Any]) -> int:
    """The point whose logit moves most."""
    return int(np.argmax(np.ptp(np.asarray(trial["trained"]), axis=0)))


def _flow_marks(trial: dict[str, Any]) -> Marks | None:
    """The integrator's values of that point."""
    if "times" not in trial or not np.isfinite(trial["trained"]).all():
        return None
    point = _moving(trial)
    return trial["times"] / trial["times"][-1], trial["labels"][point] * trial["trained"][:, point]


def _stepped(numbers: dict[str, Any]) -> tuple[Any, ...] | None:
    """Descent of the counterexample on the point that moves most, and the path from event to event there."""
    problem, size, steps = Problem.read(numbers), float(numbers["step_size"]), int(numbers["steps"])
    assert problem is not None
    network: Any = jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf] * BATCH)), problem.network)
    every = max(1, steps // 10)
    run = train_descent(problem.data, network, "hinge", np.full(BATCH, size), steps - steps % every, every)  # pyright: ignore[reportArgumentType]
    times, logits = size * np.asarray(run.grid), np.asarray(run.recorded)[0]
    trial = {**numbers, "times": times, "trained": logits}
    x = np.linspace(0, 1, 64)
    law = _event_path(trial, x)
    point = _moving(trial)
    return times / times[-1], trial["labels"][point] * logits[:, point], x, law


def _event_path(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """The path from event to event of the same network."""
    problem, point = Problem.read(trial), _moving(trial)
    assert problem is not None
    # As many networks and times as in a batch, so that the compiled path is used again.
    network: Any = jax.tree.map(lambda leaf: jnp.asarray(np.stack([leaf] * BATCH)), problem.network)
    parts = np.maximum(x, 1e-9).reshape(-1, RECORDS) * trial["times"][-1]
    runs = [exact_records(problem.data, network, times) for times in parts]  # pyright: ignore[reportArgumentType]
    return trial["labels"][point] * np.concatenate([np.asarray(run.recorded)[0, :, point] for run in runs])


@register(
    name="hinge-exact",
    equation="12.1",
    title="From event to event the hinge flow is a closed form",
    meaning="With the hinge loss a network moves along simple curves between events, so that its whole training can be "
    "followed without a time step.",
    claim="with hinge loss a full network moves along a cosh and a sinh between events, edges passed and margins at 1, and "
    "the path from one to the next is the gradient flow",
    formula=(
        r"\begin{split} w_j(t + \tau) &= w_j + \left( \alpha_j\, (\cosh(k_j \tau) - 1) + z_j\, \sinh(k_j \tau) \right) "
        r"\frac{c_j}{k_j}, \\ "
        r"z_j(t + \tau) &= z_j\, \cosh(k_j \tau) + \alpha_j\, \sinh(k_j \tau), \\ "
        r"c_j &= \sum_{w_j \cdot x_i > 0,\; m_i < 1} q_i\, y_i\, x_i, \qquad k_j = \left| c_j \right|, \qquad "
        r"\alpha_j = w_j \cdot c_j / k_j \end{split}"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, "gradient flow"),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "logits beside the integrator's, whose local error is 1e-12 and 10 to 100 times that at each kink; events beside "
        "a path retraced by matrix exponentials, which agree to 1e-12"
    ),
    checked_with=f"{BY_FLOW}; matrix exponentials from event to event, and SciPy's DOP853 where margins slide",
    default_trials=4 * BATCH,
    losses=("hinge",),
    drops=(Drop("gradient flow (descent with a finite step instead)", _by_steps),),
    figure=LawFigure(
        _flow_marks,
        _event_path,
        "time, as a share of the run",
        "margin of a point",
        behind=lambda ax: ax.axhline(1, color=GUIDE, linewidth=0.8),
        gap="gap between the event path and the flow (logits, margins, edges)",
        dense=64,
        without=_stepped,
    ),
)
def hinge_exact(rng: np.random.Generator) -> Trials:
    """Networks of any activity and signs: their records beside the integrator's, their events beside a path retraced."""
    data, network, r = draw_problem(rng)
    times = np.array([0.5, 2, 6, 15]) / r
    run = exact_records(data, network, times)
    flow, lost = train_flow(data, network, "hinge", times)
    mine, theirs = np.asarray(run.recorded), np.asarray(flow.recorded)
    apart = np.max(np.abs(mine - theirs) / (1 + np.abs(theirs)), axis=(-1, -2))
    whole = exact_records(data, network, AT_LAST)
    # The integrator stalls where a margin slides; the retraced path does not.
    held = (whole.events.kind == Kind.HELD).any(-1)
    gaps = np.maximum(np.where(lost & held, 0, apart), off_the_path(data, whole, range(BATCH)))
    gaps = np.where(followed(whole), gaps, np.inf)
    group = np.where(held, "a margin slides", "no margin slides")
    extra = {"trained": theirs}
    return Trials(gaps, recorded(data, "hinge", network, times=times), lost & ~held, group, extra=extra)


# The events, counted.

_MARGINS = (Kind.LEARNT, Kind.FORGOTTEN)


def least_fall(weight: Any, norm: Any) -> Any:
    """2 q^2 |x|, the least fall of |grad L|^2 when the margin of a point passes 1 without being held."""
    return 2 * weight**2 * norm


def most_events(active: np.ndarray, z: np.ndarray, labels: np.ndarray, live: np.ndarray) -> int:
    """The largest number of events of a network without shared neurons: `active` [h, n], `z` [h] and `live` [n], which
    margins are below 1, at the start."""
    total = int(live.sum())
    for on, read_out in zip(active, z, strict=True):
        if on.any():
            mine = labels == labels[np.argmax(on)]
            asleep = int((mine & ~on).sum())
            total += asleep if read_out * labels[np.argmax(on)] >= 0 else asleep + 2 * int(on.sum())
    return total


def _classes(active: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which neurons are active on class + and which on class -, [h] each."""
    return np.any(active[:, labels > 0], axis=-1), np.any(active[:, labels < 0], axis=-1)


def _excess(path: Path, data: Dataset, network: TwoLayerReLU, b: int) -> int:
    """The number of events of a path that the theorem does not allow."""
    x, labels = np.asarray(data.points), np.asarray(data.labels)
    w, z = np.asarray(network.w[b]), np.asarray(network.z[b])
    first = w @ x.T > 0
    live = labels * (z @ np.where(first, w @ x.T, 0)) < 1
    spans = (plus_minus := np.logical_and(*_classes(first, labels))).astype(int)
    home, beyond, since = np.zeros(len(z)), 0, {}
    signs, changes, held = np.sign(z), np.zeros(len(z), int), False
    for moment in path.moments:
        j, i = moment.neuron, moment.point
        if j >= 0:
            # A neuron at home wakes for points of its own class, and has no other event.
            beyond += bool(home[j]) and not (moment.kind == Kind.WAKES and labels[i] == home[j])
        elif moment.kind in (Kind.FORGOTTEN, Kind.HELD):
            beyond += not plus_minus[moment.active[0][:, i]].any()
        now = np.sign(moment.z)
        changes += (now != signs) & (now != 0) & (signs != 0)
        signs = np.where(now != 0, now, signs)
        if j >= 0:
            since[j, i] = since.get((j, i), 0) + 1
        else:
            if not held:
                beyond += sum(max(count - 2, 0) for count in since.values()) + int(np.maximum(changes - 1, 0).sum())
            since, changes = {}, np.zeros(len(z), int)
        held = moment.held
        plus, minus = _classes(moment.active[1], labels)
        spans += (plus & minus) & ~plus_minus
        plus_minus = plus & minus
        home = np.where(plus & ~minus & (moment.z > 0), 1, np.where(minus & ~plus & (moment.z < 0), -1, home))
    beyond += int(np.maximum(spans - 1, 0).sum())
    if not spans.any():
        beyond += max(len(path.moments) - most_events(first, z, labels, live), 0)
    return beyond


def _falls(path: Path, data: Dataset) -> np.ndarray:
    """The least fall of |grad L|^2 at each margin passed without being held, and the fall found: [count, 2]."""
    norms, weights, found = np.linalg.norm(np.asarray(data.points), axis=-1), np.asarray(data.weights), []
    slides = {moment.time for moment in path.moments if moment.kind == Kind.HELD}
    for moment in path.moments:
        if moment.kind in _MARGINS and not moment.held and moment.time not in slides:
            each = slopes(moment.w, moment.z, moment.active[0], data)
            before, after = (float(np.sum((u @ each) ** 2)) for u in moment.pulls)
            found.append([least_fall(weights[moment.point], norms[moment.point]), before - after])
    return np.reshape(found, (-1, 2))


def axes_data(rng: np.random.Generator) -> tuple[Dataset, np.ndarray]:
    """Class + along e_1 and class - along e_2, one point twice as long as the other, and the shorter norms [2], class -
    four times as long. Norms and weights are powers of two, so that nothing is rounded."""
    norms = 2.0 ** rng.integers(-1, 2) * np.array([1.0, 4.0])
    points = np.repeat(norms[:, None] * np.eye(2, DIM), PER_CLASS, axis=0) * np.tile([1.0, 2.0], 2)[:, None]
    return Dataset(points, np.repeat([1.0, -1.0], PER_CLASS), np.full(2 * PER_CLASS, 0.25)), norms


def _on_the_manifold(rng: np.random.Generator) -> Trials:
    """Neurons with z = -a, which approach the origin for ever."""
    data, norms = axes_data(rng)
    a = 2.0 ** rng.integers(-3, 0, (BATCH, WIDTH))
    network = TwoLayerReLU(a[..., None] * np.eye(DIM)[0], -a)
    run = train_exact(data, network, np.arange(1, RECORDS + 1) / norms[0])
    margin = np.asarray(run.recorded)[0, :, 0]
    settled = int(np.asarray(run.settled).sum()) if run.events.count.max() == 0 else BATCH
    rest = (
        f"a margin goes from {float(network[0](data.points)[0]):.3g} to {margin[0]:.3g}, {margin[1]:.3g} and "
        f"{margin[3]:.3g} at t = {run.grid[0]:.3g}, {run.grid[1]:.3g} and {run.grid[3]:.3g}, towards 0 and for ever"
    )
    texts: dict[str, Any] = {"quantity": "the number of networks that come to rest", "when": "with no event to come"}
    texts["rest"] = rest
    return compared([settled], BATCH, 1.0, recorded(data, "hinge", network), **texts)


def _back_and_forth(rng: np.random.Generator) -> Trials:
    """Classes at 60 degrees, where descent crosses one edge back and forth with every step."""
    data = cone_data(rng, opening=0.1, angle=np.pi / 3)
    network = TwoLayerReLU(*networks(rng, low=0.1, high=0.3))
    span = 6 / float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())
    coarse, fine = (_passages(data, network, span / steps, steps) for steps in (500, 1000))

    def rest(b: int) -> str:
        count = coarse[b].flat[np.argmax(fine[b])]
        return f"by the law it is that at most; in 500 steps it is {count}: in the flow it has no end"

    texts: dict[str, Any] = {"when": f"within t = {span:.3g}, in 1000 steps of descent,", "rest": rest}
    texts["quantity"] = lambda b, j, i: f"the number of times that neuron {j} passes the edge of point {i}"
    texts["axes"] = ("neuron", "point")
    return compared(np.maximum(fine, 2), 2, 1.0, recorded(data, "hinge", network), **texts)


def _passages(data: Dataset, network: TwoLayerReLU, size: float, steps: int) -> np.ndarray:
    """The number of times that descent in plain NumPy crosses each edge, [b, h, n]."""
    x, y, q = (np.asarray(leaf) for leaf in (data.points, data.labels, data.weights))
    w, z = np.asarray(network.w), np.asarray(network.z)
    active = w @ x.T > 0
    count = np.zeros(active.shape, int)
    for _ in range(steps):
        edge = np.where(active, w @ x.T, 0)
        pull = q * y * (y * np.einsum("bh,bhn->bn", z, edge) < 1)
        force, speed = (active * pull[:, None]) @ x, np.einsum("bhn,bn->bh", edge, pull)
        w, z = w + size * z[..., None] * force, z + size * speed
        now = w @ x.T > 0
        count, active = count + (now != active), now
    return count


def _forgotten(rng: np.random.Generator) -> Trials:
    """A neuron on both classes: a learnt margin is pulled below 1 and has to be learnt again."""
    data, norms = axes_data(rng)
    # One neuron on both orthogonal classes, of the wrong sign for class -: z falls until it has left, and class + with it.
    z = rng.uniform(0.9, 1.1, BATCH) / np.sqrt(norms[0])
    w = np.zeros((BATCH, WIDTH, DIM))
    w[:, 0, 0] = rng.uniform(1.02, 1.1, BATCH) / (z * norms[0])
    w[:, 0, 1] = rng.uniform(0.5, 0.8, BATCH) * z
    network = TwoLayerReLU(w, z[:, None] * np.eye(1, WIDTH))
    run = train_exact(data, network, AT_LAST)
    first = w @ np.asarray(data.points).T > 0
    live = np.asarray(network(data.points)) * np.asarray(data.labels) < 1
    allowed = most_events(first[0], np.asarray(network.z[0]), np.asarray(data.labels), live[0])
    point = np.asarray(run.events.point[0])
    told = [line.split(": ")[1] for line, i in zip(run.events.of(0), point, strict=False) if i == 0]
    rest = f"by the law it is that at most; among them: {'; '.join(told)}"
    texts: dict[str, Any] = {"quantity": "the number of events", "when": "at the end", "rest": rest}
    return compared([max(int(run.events.count[0]), allowed)], allowed, 1.0, recorded(data, "hinge", network), **texts)


def draw_events(outcome: Outcome, ax: Any) -> None:
    """The fall of |grad L|^2 at every margin passed, and the least one."""
    least, found = outcome.extra["falls"].T
    ax.loglog(least, found, ".", markersize=3, color=COLOURS[0], label="margins that pass 1")
    line = np.array([least.min(), least.max()])
    ax.loglog(line, line, color="black", linestyle="--", linewidth=1.2, label="least fall: 2 q² |x|")
    ax.set_xlabel("2 q² |x|")
    ax.set_ylabel("fall of |∇L|²")
    ax.legend(frameon=False, fontsize=8, loc="upper left", markerscale=3)


@register(
    name="finite-events",
    equation="12.1",
    title="Hinge flow comes to rest after finitely many events",
    meaning="Training with the hinge loss ends: after finitely many events everything is at rest.",
    claim="a neuron that sees one class passes edges of that class alone, each once with the right sign and at most twice "
    "with the wrong one; a margin falls only while a neuron is shared, and reaches 1 once if none is; a neuron is shared "
    "during one span at most; |grad L|^2 falls by at least 2 q^2 |x| where a margin passes 1, and between two such passages "
    "no edge is passed more than twice; every network comes to rest",
    formula=(
        r"\begin{split} &\left| \nabla L \right|^2 \text{ falls by at least } 2\, q_i^2\, \left| x_i \right| "
        r"\text{ where } m_i \text{ passes } 1, \\ "
        r"&\text{number of events} < \infty, \quad \text{and if no neuron is ever shared} \;\le\; "
        r"n_{m < 1} + \sum_j n_j^{\text{off}} + 2 \sum_{z_j y_j < 0} n_j^{\text{on}}, \\ "
        r"&\text{at } t = 0\text{:} \quad "
        r"n_{m < 1} \text{ margins below 1, neuron } j \text{ active on } n_j^{\text{on}} \text{ points of its class } "
        r"y_j \text{ and not on } n_j^{\text{off}} \end{split}"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, OFF_MANIFOLD, "for the bound of their number: no neuron is ever shared"),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "numbers of events: 1 beyond the bound contradicts; falls of |grad L|^2 relative to the least one: rounding of a "
        "path of a dozen events"
    ),
    checked_with="simulate_hinge_exact, and the gradient in plain NumPy on weights moved there by matrix exponentials",
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    single_tolerance=None,  # in float32 a margin that leaves 1 slowly may seem to pass 1 again
    losses=("hinge",),
    drops=(
        Drop("no neuron on the stable manifold (all of them have z = -a instead)", _on_the_manifold),
        Drop("orthogonally separable data (classes at an angle of 60 degrees instead)", _back_and_forth),
        Drop("neurons that see one class (one of them is active on both instead)", _forgotten),
    ),
    figure=draw_events,
)
def check_events(key: Any, trials: int) -> Outcome:
    """Every event of networks of exclusive neurons of the right sign, and of any neurons; one trial is one network."""
    log = TrialLog(_TOLERANCE)
    falls, counts = [], {}
    for k, rng in enumerate(generators(key, trials)):
        data, network, _ = draw_problem(rng)
        group = "exclusive neurons of the right sign" if k % 2 == 0 else "any neurons"
        if k % 2 == 0:
            network = exclusive_networks(rng, data)
        run = train_exact(data, network, AT_LAST)
        gaps = np.zeros(BATCH)
        for b in range(BATCH):
            path = retraced(data, network, run.events, b)
            fall = _falls(path, data)
            falls.append(fall)
            gaps[b] = max(_excess(path, data, network, b), float(np.max(1 - fall[:, 1] / fall[:, 0], initial=0)))
        gaps = np.where(followed(run) & np.asarray(run.settled), gaps, np.inf)
        counts[group] = max(counts.get(group, 0), int(np.max(run.events.count)))
        log.add(gaps, group, lambda i, d=data, n=network, r=run: record(d, "hinge", n, i, events=int(r.events.count[i])))
    return log.outcome(falls=np.concatenate(falls), most=counts)


# The rest of a hinge flow on orthogonally separable data: every point is learnt, or no neuron is active on it (12.1).
#
# No motion is left only where every neuron has z_j c_j = 0 and w_j.c_j = 0. On orthogonally separable data |c_j|^2 is at
# least the sum of (q_i |x_i|)^2 over the points below a margin of 1 that neuron j is active on, since pulls never oppose
# each other (2.0). So c_j = 0 means that there is no such point; and c_j != 0 with z_j = 0 = w_j.c_j is the saddle, where
# neurons are shared by both classes, and which no generic start reaches. A point on which no neuron is active has f = 0 for
# ever.


def short_of_learnt(margins: np.ndarray) -> np.ndarray:
    """The distance of a margin below 1."""
    return np.maximum(1 - margins, 0)


def _seen(data: Dataset, network: TwoLayerReLU) -> np.ndarray:
    """The largest cosine between a point and a neuron that does not rest at w = 0, [b, n]; -1 without any."""
    x, w = np.asarray(data.points), np.asarray(network.w)
    size = np.linalg.norm(w, axis=-1)[..., None] * np.linalg.norm(x, axis=-1)
    return np.where(size > 0, w @ x.T / np.where(size > 0, size, 1), -1).max(axis=-2)


def unfinished(data: Dataset, network: TwoLayerReLU) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How short of learnt each point is that a neuron is active on, its margin, and how well it is seen: [b, n] each."""
    seen = _seen(data, network)
    margins = np.asarray(network(data.points)) * np.asarray(data.labels)
    # Less than this is a neuron that fell asleep there.
    return np.where(seen > np.sqrt(np.finfo(margins.dtype).eps), short_of_learnt(margins), 0), margins, seen


def _at_rest(data: Dataset, network: TwoLayerReLU, told: str) -> Trials:
    """A start from which nothing ever moves."""
    left, margins, _ = unfinished(data, network)
    pull = descent_gradient(data, network, "hinge")
    still = not any(np.any(np.asarray(leaf)) for leaf in (pull.w, pull.z))
    i = int(np.argmax(left[0]))
    texts: dict[str, Any] = {"quantity": f"the margin of point {i}", "when": "for ever"}
    texts["rest"] = "by the law it is that at least"
    texts["setting"] = f"{told}; its gradient is {'exactly 0' if still else 'not 0'}"
    # A start that moves is not at rest.
    return compared([margins[0, i] if still else 1], 1, 1.0, recorded(data, "hinge", network), **texts)


def _at_the_saddle(rng: np.random.Generator) -> Trials:
    """z = 0, and both classes pull equally hard."""
    data, norms = axes_data(rng)
    size = 2.0 ** rng.integers(-3, 0)
    w = np.zeros((BATCH, WIDTH, DIM))
    w[:, 0, :2] = size * np.array([norms[1], norms[0]])
    told = f"a neuron with w.x_+ = w.x_- = {size * norms[0] * norms[1]:.3g} and z = 0 is on both classes"
    return _at_rest(data, TwoLayerReLU(w, np.zeros((BATCH, WIDTH))), told)


def _opposite_labels(rng: np.random.Generator) -> Trials:
    """Points of both labels on one ray."""
    points = np.repeat(np.eye(1, DIM) * 2.0 ** rng.integers(-1, 2), 2 * PER_CLASS, axis=0)
    data = Dataset(points, np.repeat([1.0, -1.0], PER_CLASS), np.full(2 * PER_CLASS, 0.25))
    w = np.abs(rng.normal(size=(BATCH, WIDTH, DIM))) * 0.1
    network = TwoLayerReLU(w, 0.1 * rng.normal(size=(BATCH, WIDTH)))
    return _at_rest(data, network, "the pulls of points 0 and 2 on every neuron cancel")


def _stopped_early(rng: np.random.Generator) -> Trials:
    """A flow stopped at a finite time, with points below 1 on which neurons are active."""
    data, network, r = draw_problem(rng)
    run = train_exact(data, network, np.arange(1, RECORDS + 1) / (4 * r))
    final: Any = run.final
    left, margins, _ = unfinished(data, final)
    short = int((left > _TOLERANCE).any(-1).sum())
    texts: dict[str, Any] = {"quantity": lambda b, i: f"the margin of point {i}", "when": f"at t = {run.grid[-1]:.3g}"}
    texts["rest"] = f"by the law it is that at least, as a neuron is active on it; this is so in {short} of {BATCH} networks"
    return compared(np.where(left > 0, margins, 1), 1, 1.0, recorded(data, "hinge", network), judge=np.negative, **texts)


def draw_end(outcome: Outcome, ax: Any) -> None:
    """The last margin of every point over its largest cosine with a neuron."""
    margins, seen = outcome.extra["points"].T
    learnt = margins > 0.5
    ax.plot(seen[learnt], margins[learnt], ".", markersize=3, color=COLOURS[0], label="learnt")
    ax.plot(seen[~learnt], margins[~learnt], ".", markersize=3, color=COLOURS[1], label="seen by no neuron")
    ax.axhline(1, color="black", linestyle="--", linewidth=1, label="margin 1")
    ax.set_xlim(-1.05, 1.05)
    ax.set_yscale("symlog", linthresh=1)
    high = max(10.0, float(margins.max(initial=1)))
    ticks = [0, 1, *(10.0**k for k in range(1, int(np.ceil(np.log10(high)))))]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_ylim(min(-0.3, float(margins.min(initial=0))), None)
    ax.set_xlabel("largest cosine between the point and a neuron")
    ax.set_ylabel("margin at the end")
    ax.legend(frameon=False, fontsize=8, loc="upper left", markerscale=3)


@register(
    name="hinge-end",
    equation="12.1",
    title="At the end of a hinge flow every point is learnt or dead",
    meaning="At the end of training with the hinge loss each point is either learnt with full margin, or out of reach of "
    "every neuron.",
    claim="where a hinge flow comes to rest, every margin is at least 1, or no neuron is active on its point: then f = 0 "
    "there, and nothing is left that could wake one",
    formula=(
        r"\text{at the end, for every } i: \quad m_i \ge 1 \quad \text{or} \quad w_j \cdot x_i \le 0 \;\text{ for all } j"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, OFF_MANIFOLD, "no start at a saddle", "the end of the flow"),
    tolerance=_TOLERANCE,
    why_tolerance="a margin of the last weights in plain NumPy: rounding of a path of a dozen events",
    checked_with="plain NumPy on the last weights of simulate_hinge_exact",
    default_trials=8 * BATCH,
    losses=("hinge",),
    drops=(
        Drop("no start at a saddle (z = 0 and w.c = 0 instead)", _at_the_saddle),
        Drop("orthogonally separable data (the same point with both labels instead)", _opposite_labels),
        Drop("the end of the flow (stopped at a finite time instead)", _stopped_early),
    ),
    figure=draw_end,
)
def hinge_end(rng: np.random.Generator) -> Trials:
    """The last weights of networks of any activity and signs; one trial is one network."""
    data, network, _ = draw_problem(rng)
    run = train_exact(data, network, AT_LAST)
    final: Any = run.final
    left, margins, seen = unfinished(data, final)
    gaps = np.where(followed(run) & np.asarray(run.settled), left.max(-1), np.inf)
    points = np.stack([margins, seen], axis=-1)[followed(run)].reshape(-1, 2)
    return Trials(gaps, recorded(data, "hinge", network, {"margins": margins}), group="hinge", extra={"points": points})
