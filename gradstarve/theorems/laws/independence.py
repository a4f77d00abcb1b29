"""Independent modes: on orthogonally separable data no push has the wrong sign (2.0) and classes do not interact (2.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import SHADE, style
from gradstarve.problem import Dataset, GradientDescent, Mode, TwoLayerReLU, as_loss
from gradstarve.theorems._entry import (
    EXCLUSIVE,
    PUSHING,
    RIGHT_SIGN,
    SEPARABLE,
    Problem,
)
from gradstarve.theorems._figure import LawFigure, Marks, diagonal
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    PER_CLASS,
    WIDTH,
    ExclusiveInit,
    Geometry,
    cone_data,
    descent_gradient,
    exclusive_start,
    log_uniform,
    networks,
    train_descent,
    two_rays,
)

SIGN_TOLERANCE = 1e-12
MODES_TOLERANCE = 1e-10
_STEPS = 300


def pushed_sign(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The sign of d(w_j.x_i)/dt, or 0: sign(z_j y_i) (2.0). z [*batch, h], labels [n] -> [*batch, h, n]."""
    return np.sign(z[..., None] * labels)


def _against(data: Dataset, network: TwoLayerReLU, loss: str, **more: Any) -> Trials:
    """The motion of each w_j.x_i against the law, over the sum of the sizes of the pushes of single points."""
    points, labels, weights = (np.asarray(v) for v in (data.points, data.labels, data.weights))
    z = np.asarray(network.z)
    motion = np.asarray(descent_gradient(data, network, loss).w) @ points.T
    against = np.maximum(-motion * pushed_sign(z, labels), 0)
    # The unit of rounding: the sum of the sizes of the terms, as if every point pushed with its full residual.
    residual = np.abs(np.asarray(as_loss(loss).residual(data.labels * network(data.points))))
    lengths = np.linalg.norm(points, axis=-1)
    pushes = np.abs(z)[..., None] * ((weights * lengths * residual) @ np.ones(labels.size))[:, None, None] * lengths
    against = against / np.where(pushes > 0, pushes, 1)

    def quantity(i: int, j: int, point: int) -> str:
        where = f"of neuron {j} (z = {float(z[i, j]):.3g}) along point {point} (y = {float(labels[point]):+.0f})"
        return f"the motion {where} against sign(z y), over all pushes,"

    numbers = recorded(data, loss, network)
    texts: dict[str, Any] = {"quantity": quantity, "when": "at the start", "axes": ("neuron", "point"), "group": loss}
    texts["extra"] = {"sides": z[..., None] * labels, "motion": motion}
    return compared(against, 0.0, 1.0, numbers, **texts, **more)


def _acute(rng: np.random.Generator) -> Trials:
    """Axes at an acute angle."""
    data = cone_data(rng, opening=0.1, angle=np.pi / 4)
    network = TwoLayerReLU(*networks(rng))
    breach = data.separability().breaches["orthogonally_separable"]
    assert breach is not None  # the axes are at 45 degrees and the cones narrow
    found = f"points {breach.first} and {breach.second} have y_i y_k cos(x_i, x_k) = {breach.signed_cosine:.3g}"
    return _against(data, network, "cross-entropy", setting=found)


def _pulled_back(rng: np.random.Generator) -> Trials:
    """Squared loss, which pulls margins above 1 back."""
    data = cone_data(rng)
    network = TwoLayerReLU(*networks(rng, low=2.0, high=5.0))
    margins = np.asarray(data.labels) * np.asarray(network(data.points))
    return _against(data, network, "squared", setting=lambda i: f"the largest margin is {float(np.max(margins[i])):.3g}")


def _motions(trial: dict[str, Any]) -> Marks:
    """z_j y_i and d(w_j.x_i)/dt of all neurons and points, each over its largest."""
    return tuple(np.ravel(trial[name] / np.maximum(np.abs(trial[name]).max(), 1e-300)) for name in ("sides", "motion"))  # pyright: ignore[reportReturnType]


def _pushed(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The motions of a counterexample, differentiated again."""
    problem = Problem.read({**numbers, "w": numbers["w"][None], "z": numbers["z"][None]})
    assert problem is not None
    assert isinstance(problem.data, Dataset)
    assert isinstance(problem.network, TwoLayerReLU)
    motion = np.asarray(descent_gradient(problem.data, problem.network, problem.loss).w) @ np.asarray(problem.data.points).T
    sides = np.asarray(problem.network.z)[..., None] * np.asarray(problem.data.labels)
    return *_motions({"sides": sides, "motion": motion}), [], []


def _forbidden(ax: Any) -> None:
    """The two quadrants in which a neuron would be pushed the wrong way."""
    for low, high, y in ((-1.05, 0, (0, 1.05)), (0, 1.05, (-1.05, 0))):
        ax.fill_between([low, high], *y, color=SHADE, alpha=0.35, linewidth=0, zorder=0)
    ax.text(-0.98, 0.9, "the wrong way: nothing here", fontsize=style.text_size(8.5), va="top")


@register(
    name="sign",
    equation="2.0",
    title="No point pushes a neuron the wrong way",
    meaning="On orthogonally separable data samples never work against each other inside a neuron; this is why classes "
    "learn independently.",
    claim="d(w_j.x_i)/dt has the sign of z_j y_i, or is 0, for every neuron and every point",
    formula=r"z_j\, y_i\, \frac{d(w_j \cdot x_i)}{dt} \ge 0 \quad \text{for all } i, j",
    hypotheses=(SEPARABLE, PUSHING),
    tolerance=SIGN_TOLERANCE,
    why_tolerance="one gradient: rounding of a few sums of 4 products, relative to the sum of their sizes",
    checked_with="automatic differentiation of the loss of all weights",
    default_trials=480,
    dynamics=("flow", "descent"),
    rounds=EACH_LOSS,
    drops=(
        Drop("orthogonally separable data (classes at an angle of 45 degrees instead)", _acute),
        Drop("residuals g(m) >= 0 (squared loss with a margin above 1 instead)", _pulled_back),
    ),
    figure=LawFigure(
        _motions,
        lambda trial, x: np.zeros_like(x),
        "read-out times label, z y, of a neuron and a point (largest of the network: 1)",
        "motion of the neuron\nalong the point",
        one_line=True,
        label=lambda trial: "",
        span=(-1.0, 1.0),
        behind=_forbidden,
        gap="motion against sign(z y), over all pushes",
        without=_pushed,
    ),
)
def sign(rng: np.random.Generator, loss: str) -> Trials:
    """The flow's direction at random networks of any activity pattern, any signs; one trial is one network."""
    data = cone_data(rng)
    w, z = networks(rng, low=1e-3, high=3.0)
    if as_loss(loss).pulls_back:  # its residual turns negative above a margin of 1: shrink those networks to 1 or below
        margins = np.asarray(TwoLayerReLU(w, z)(data.points)) * np.asarray(data.labels)
        shrink = 1 / np.sqrt(np.maximum(margins.max(-1, initial=0), 1) * (1 + 1e-12))
        w, z = w * shrink[:, None, None], z * shrink[:, None]
    return _against(data, TwoLayerReLU(w, z), loss)


def alone(data: Dataset, network: TwoLayerReLU, label: int) -> tuple[Dataset, TwoLayerReLU, float]:
    """One class by itself (2.1): its points with weights that sum to 1, its neurons, and its weight p in the whole.

    Training it with step_size * p is what the law says the class does inside the whole problem.
    """
    mine = np.flatnonzero(np.asarray(data.labels) == label)
    points, weights = np.asarray(data.points)[mine], np.asarray(data.weights)[mine]
    sees = np.any(np.asarray(network.w) @ points.T > 0, axis=-1)
    small = TwoLayerReLU(np.asarray(network.w) * sees[..., None], np.asarray(network.z) * sees)
    total = float(weights.sum())
    return Dataset(points, np.full(len(points), float(label)), weights / total), small, total


def exclusive_networks(rng: np.random.Generator, data: Dataset, wrong_signs: float = 0.0, high: float = 1.5) -> TwoLayerReLU:
    """Neurons active on every point of one class and on none of the other: w = own cone - the other class's cone."""
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    unit = points / np.linalg.norm(points, axis=-1, keepdims=True)
    home = rng.choice([-1.0, 1.0], (BATCH, WIDTH))
    mine = labels == home[..., None]
    coefficients = rng.uniform(0.05, 1, mine.shape) * np.where(mine, 1, -1 * (rng.uniform(size=mine.shape) < 0.7))
    scale = log_uniform(rng, 1e-3, high, (BATCH, 1)) * log_uniform(rng, 0.3, 3, (BATCH, WIDTH))
    scale = scale * (np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (BATCH, 1)))
    w = (coefficients @ unit) * scale[..., None]
    w = w + np.where(scale > 0, 1, 0)[..., None] * _off_span(rng, unit) * scale[..., None]
    right = np.where(rng.uniform(size=home.shape) < wrong_signs, -1, 1)
    return TwoLayerReLU(w, home * right * scale * log_uniform(rng, 0.1, 3, home.shape))


def _off_span(rng: np.random.Generator, unit: np.ndarray) -> np.ndarray:
    """Gaussian vectors orthogonal to the data, which no training moves: [BATCH, WIDTH, d]."""
    _, strengths, rows = np.linalg.svd(unit)
    span = rows[: int((strengths > 1e-9).sum())]
    noise = rng.normal(size=(BATCH, WIDTH, unit.shape[1]))
    return noise - (noise @ span.T) @ span


def _run(data: Dataset, network: TwoLayerReLU, loss: str, step_size: np.ndarray) -> np.ndarray:
    """The logits of a run of descent, [b, 5, n]."""
    return np.asarray(train_descent(data, network, loss, step_size, _STEPS, _STEPS // 4).recorded)


def _together(data: Dataset, network: TwoLayerReLU, loss: str, **more: Any) -> tuple[Trials, np.ndarray, np.ndarray]:
    """Each class trained together with the other one, and alone, by descent: the trials, the step sizes [b] and the logits
    with both classes [b, 5, n]."""
    step_size = _step_sizes(data, network)
    together = _run(data, network, loss, step_size)
    law, unit = np.zeros(together.shape), np.zeros(together.shape)
    for label in (1, -1):
        small, part, weight = alone(data, network, label)
        apart = _run(small, part, loss, step_size * weight)
        mine = np.asarray(data.labels) == label
        law[..., mine] = apart
        unit[..., mine] = np.abs(apart) + _largest_logit(network, data)[:, None, None]
    texts: dict[str, Any] = {"when": lambda i, k, point: f"after {k * _STEPS // 4} steps"}
    texts["quantity"] = lambda i, k, point: f"the logit of point {point}, trained beside the other class,"
    numbers = recorded(data, loss, network, {"step_size": step_size}, steps=_STEPS)
    sides = {"trained": together, "law": law}
    return compared(together, law, unit, numbers, **texts, **more, extra=sides), step_size, together


def _off_the_curves(
    geometry: Geometry, start: ExclusiveInit, network: TwoLayerReLU, loss: str, step_size: np.ndarray, together: np.ndarray
) -> np.ndarray:
    """The distance of each class, trained together with the other, from its curve by `theory`: [b]."""
    labels, gap = np.asarray(geometry.data.labels), np.zeros(len(together))
    steps = np.arange(0, _STEPS + 1, _STEPS // 4)
    for label, p, r in zip((1, -1), geometry.frequencies, geometry.norms, strict=True):
        curve: Any = theory.solve_mode(Mode(p, r, *start.mode(label)), loss, GradientDescent(step_size))
        law = label * np.asarray(curve.logit(steps))
        found = together[..., np.flatnonzero(labels == label)[0]]
        size = np.abs(law) + _largest_logit(network, geometry.data)[:, None]
        gap = np.maximum(gap, np.max(np.abs(found - law) / size, axis=-1))
    return gap


def _largest_logit(network: TwoLayerReLU, data: Dataset) -> np.ndarray:
    """sum_j |w_j| |z_j| times the largest norm, [b], the unit of rounding; 1 for networks of zeros."""
    size = np.sum(np.linalg.norm(np.asarray(network.w), axis=-1) * np.abs(np.asarray(network.z)), axis=-1)
    size = size * np.linalg.norm(np.asarray(data.points), axis=-1).max()
    return np.where(size > 0, size, 1)


def _step_sizes(data: Dataset, network: TwoLayerReLU) -> np.ndarray:
    """Steps that move every network well but do not make it unstable, [b]."""
    r = np.linalg.norm(np.asarray(data.points), axis=-1).max()
    size = np.sum(np.asarray(network.w) ** 2, axis=(-1, -2)) + np.sum(np.asarray(network.z) ** 2, axis=-1)
    return 0.3 / (r * (1 + r * size))


def _acute_classes(rng: np.random.Generator) -> Trials:
    """Axes at an acute angle, and neurons that stay on their own class all the same."""
    data = cone_data(rng, opening=0.0, angle=np.pi / 3)
    points = np.asarray(data.points)
    axes = points[::PER_CLASS] / np.linalg.norm(points[::PER_CLASS], axis=-1, keepdims=True)
    # The dual basis of the two axes gives neurons with any activity one likes.
    home = rng.choice([-1.0, 1.0], (BATCH, WIDTH))
    wanted = np.where(home[..., None] == [1.0, -1.0], 1.0, -0.1) * rng.uniform(0.1, 0.3, (BATCH, WIDTH, 1))
    network = TwoLayerReLU(wanted @ np.linalg.pinv(axes).T, home * rng.uniform(0.1, 0.3, home.shape))
    x, y = points[0], points[PER_CLASS]
    cosine = float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    setting = f"points 0 and {PER_CLASS} have cos(x_i, x_k) = {cosine:.3g}"
    return _together(data, network, "cross-entropy", setting=setting)[0]


def _exchanged(rng: np.random.Generator) -> Trials:
    """Antipodal classes, where a neuron that leaves one class joins the other."""
    data = cone_data(rng, opening=0.0, angle=np.pi)
    network = exclusive_networks(rng, data, wrong_signs=0.5)
    return _together(data, network, "cross-entropy", setting="classes are antipodal")[0]


def _not_alone(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """A counterexample, trained again: each class beside the other, and alone."""
    # As many networks as in a batch, for which descent is compiled already.
    problem = Problem.read({**numbers, **{name: np.stack([numbers[name]] * BATCH) for name in ("w", "z")}})
    assert problem is not None
    assert isinstance(problem.data, Dataset)
    assert isinstance(problem.network, TwoLayerReLU)
    sides = _together(problem.data, problem.network, str(problem.loss))[0].extra
    x, y = (np.ravel(sides[name][0]) for name in ("law", "trained"))
    return x, y, np.sort(x), np.sort(x)


@register(
    name="independent-modes",
    equation="2.1",
    title="The two classes learn as if alone",
    meaning="Each class learns as if the other were not there: its curve does not change when the other class does.",
    claim="each class's logits are those of its points and neurons trained alone, whatever the other class does",
    formula=(
        r"\begin{split} f(x_i, t) &= f_+(x_i, t) \quad \text{if } y_i = {+1}, \qquad f(x_i, t) = f_-(x_i, t) \quad "
        r"\text{if } y_i = {-1}, \\ "
        r"&\text{with } f_\pm \text{ trained on the points and neurons of that class alone} \end{split}"
    ),
    hypotheses=(SEPARABLE, EXCLUSIVE, RIGHT_SIGN, PUSHING),
    tolerance=MODES_TOLERANCE,
    why_tolerance="two runs of 300 steps that add in another order: accumulated rounding, with room for growth by 1e4",
    checked_with="simulate: gradient descent on all weights by automatic differentiation, once together and once alone",
    default_trials=144,
    dynamics=("flow", "descent"),
    batch=2 * BATCH,
    rounds=tuple({"loss": loss, "kind": k} for k, loss in enumerate(("cross-entropy", "hinge", "exponential"))),
    drops=(
        Drop("orthogonally separable data (classes at an angle of 60 degrees instead)", _acute_classes),
        Drop("neurons of the right sign (half of them wrong instead)", _exchanged),
    ),
    figure=diagonal(
        "logit of a point when its class is trained alone",
        "logit of the same point,\ntrained beside the other class",
        gap="logit together − logit alone, relative",
        without=_not_alone,
    ),
)
def independent_modes(rng: np.random.Generator, loss: str, kind: int) -> list[Trials]:
    """Each class of cone data, and of two rays, trained with the other one beside it, and alone; on rays the curves are
    those that `theory` has for one class too. One trial is one network, half of them on each kind of data."""
    cones = cone_data(rng)
    geometry = two_rays(rng, (-1.0, 0.0, rng.uniform(-0.95, -0.05))[kind])
    start = exclusive_start(rng)
    on_cones, _, _ = _together(cones, exclusive_networks(rng, cones), loss, group=f"{loss}, cones")
    network = start.network(rng, geometry)
    on_rays, step_size, together = _together(geometry.data, network, loss, group=f"{loss}, rays")
    return [on_cones, on_rays.raised(_off_the_curves(geometry, start, network, loss, step_size, together))]
