"""Several classes (section 11): K orthogonal inputs under softmax cross-entropy, with one layer and with two.

By symmetry the outputs of the wrong classes stay equal, and one number is left, the gap u = f_c - f_k between the true class
and any other: 1 - P = (K - 1)/(e^u + K - 1). One layer from a gap u(0):

    e^u + (K - 1) u = K p r^2 t + e^u(0) + (K - 1) u(0)                                                        (11.1)

Two layers, neurons exclusive to the class with votes along c = (e_c - 1/K)/sqrt(1 - 1/K), zeta = z . c: the hyperbolic clock
of section 3 at the norm r / sqrt(1 - 1/K) with the residual 1/(1 + e^u/(K - 1)) (11.2); K = 2 is cross-entropy.
"""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    as_goal,
    check_normal,
    check_positive,
    deprecated,
    is_concrete,
    positive_int,
    real_arrays,
    together,
)
from gradstarve.problem import CrossEntropy, Loss, Mode, ModeCurve, given
from gradstarve.special import Softmax
from gradstarve.theory._depth import exponential_time, lambert_error, lambert_logit
from gradstarve.theory._mode import ModeSolution, flow_mode
from gradstarve.theory._piecewise import check_times, in_time


class SoftmaxCurve(ModeCurve):
    """The learning curve of one of K = `classes` classes by its gap; made by `softmax_mode`. t is time, of any shape."""

    classes: int = eqx.field(static=True)

    def gap(self, t) -> Float[Array, "..."]:
        """u(t) = f_c - f_k, [*batch, *t.shape]. `ValueError` for negative, NaN or infinite t."""
        raise NotImplementedError

    def time_to_gap(self, gap) -> Float[Array, "..."]:
        """The first time the gap is at least `gap`, [*batch, *gap.shape]; 0 if it starts there, inf if never."""
        raise NotImplementedError

    def logit(self, t) -> Float[Array, "..."]:
        """The margin of the true class against all others, u(t) - log(K - 1), [*batch, *t.shape]."""
        return self.gap(t) - np.log(self.classes - 1)

    def logits(self, t=None) -> Float[Array, "..."]:
        """The K outputs at t up to a common constant, the true class first: [*batch, *t.shape, 1, K]."""
        gap = self.gap(given(t))[..., None, None]
        return gap * (jnp.arange(self.classes) == 0) - gap / self.classes

    def margins(self, t=None) -> Float[Array, "..."]:
        """`logit` as the margin of the only point, [*batch, *t.shape, 1]."""
        return self.logit(given(t))[..., None]

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """1 where u(t) <= 0 and 0 where the true class leads, [*batch, *t.shape]."""
        gap = self.gap(given(t))
        return jnp.where(gap <= 0, jnp.ones_like(gap), 0)

    @property
    def loss_function(self) -> Loss:
        """Softmax cross-entropy, log(1 + e^-m) of the margin m of the true class against all others."""
        return CrossEntropy()

    @property
    def _dtype(self) -> Any:
        return jnp.result_type(float)

    @property
    def _unit(self) -> str:
        return "time"

    def _time_to_margin(self, margin, max_steps: int):
        return self.time_to_gap(margin + np.log(self.classes - 1))


class SoftmaxReadOut(SoftmaxCurve):
    """One layer (11.1): `start` is the gap at time 0; `frequency`, `norm`, `start` broadcast to [*batch]."""

    frequency: Float[Array, "*batch"]
    norm: Float[Array, "*batch"]
    start: Float[Array, "*batch"]

    def error(self, t=None) -> Float[Array, "..."]:
        """1 - P = (K - 1)/(e^u + K - 1), [*batch, *t.shape]."""
        return lambert_error(self.classes - 1.0, *self._start_and_clock(given(t)))

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.start.shape

    def gap(self, t) -> Float[Array, "..."]:
        """u = C - W(e^C/(K - 1)), C = (K p r^2 t + e^u(0))/(K - 1) + u(0), [*batch, *t.shape]."""
        return lambert_logit(self.classes - 1.0, *self._start_and_clock(t))

    def _start_and_clock(self, t):
        t = check_times(t, self.start.dtype)
        rate, start = (self._lanes(x, t) for x in (self.frequency * self.norm**2, self.start))
        return start, jnp.minimum(self.classes * rate * t, jnp.finfo(t.dtype).max)

    def time_to_gap(self, gap) -> Float[Array, "..."]:
        """[e^u - e^u(0) + (K - 1)(u - u(0))] / (K p r^2), [*batch, *gap.shape]."""
        gap = as_goal("gap", gap, self.start.dtype)
        rate, start = (self._lanes(x, gap) for x in (self.frequency * self.norm**2, self.start))
        rise = jnp.maximum(gap - start, 0)
        return in_time(exponential_time(start, rise) + (self.classes - 1) * rise, self.classes * rate)

    def _lanes(self, values, t):
        return values.reshape(*values.shape, *(1,) * t.ndim)


class _Gap(Loss):
    """Softmax cross-entropy by the gap u: log(1 + (K - 1) e^-u), K - 1 = `others`, with the residual of (11.2)."""

    others: float = eqx.field(static=True)
    rest: ClassVar[Any] = np.inf
    least: ClassVar[float | None] = 0.0

    @property
    def clock(self) -> Softmax:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The hyperbolic clock of the gap."""
        return Softmax(self.others)

    def value(self, margin):
        """log(1 + (K - 1) e^-u)."""
        return jax.nn.softplus(np.log(self.others) - margin)

    def residual(self, margin):
        """1/(1 + e^u/(K - 1))."""
        return jax.nn.sigmoid(np.log(self.others) - margin)


class SoftmaxMode(SoftmaxCurve):
    """Two layers (11.2): the gap as the logit of a hyperbolic clock, deaths of neurons included."""

    inner: ModeSolution

    def error(self, t=None) -> Float[Array, "..."]:
        """1 - P = (K - 1)/(e^u + K - 1), [*batch, *t.shape]."""
        return self.inner.clock.error(given(t), float(np.log(self.classes - 1)))

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.inner._batch

    def gap(self, t) -> Float[Array, "..."]:
        """u(t), [*batch, *t.shape]."""
        return self.inner.logit(t)

    def time_to_gap(self, gap) -> Float[Array, "..."]:
        """The first time the gap is at least `gap`, [*batch, *gap.shape]."""
        return self.inner.time_to_logit(gap)

    def weights(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, zeta_j) at t, each [*batch, *t.shape, h]: w_j . e_c and z_j . c."""
        return self.inner.weights(t)

    @property
    def events(self) -> Float[Array, "*batch h"]:
        """The time at which each neuron leaves the class, inf if never."""
        return self.inner.events


@deprecated("classes", "frequency", "norm", "a", "z", "start", zeta="z")
def softmax_mode(frequency, norm, a=None, z=None, *, classes, start=0.0) -> SoftmaxReadOut | SoftmaxMode:
    """The gap of one class among K = `classes` >= 2 with orthogonal inputs, softmax cross-entropy, gradient flow.

    - one layer, without `a` and `z`: from the gap `start`, the same to every other class (zero weights: 0) (11.1);
    - two layers: neurons exclusive to the class, a_j = w_j . e_c > 0, whose votes lie along c, z_j its vote along c; `a` and
      `z` [*batch, h] (11.2).

    p = `frequency` is the weight of the class, r = `norm` of its input, each [] or [*batch]. The accuracy is that of
    `solve_mode`, for one layer 1e-13 relative in float64 (1e-5 in float32) for t from 0 to 1e300 (1e36). `ValueError`
    for K < 2, p <= 0, r <= 0, shapes that do not fit, and `start` beside neurons.

    >>> round(float(softmax_mode(0.1, 1.0, classes=10).gap(100.0)), 4)     # e^u + 9 u = 10 * 0.1 * 100 + 1
    4.153
    """
    classes = positive_int("classes", classes, minimum=2)
    if (a is None) != (z is None):
        raise ValueError("a and z belong together: give both for two layers, neither for one")
    if a is not None:
        real_arrays(start=start)
        if not is_concrete(start) or np.any(np.asarray(start) != 0):
            raise ValueError("start is the first gap of one layer; with neurons it follows from a and z, so leave it out")
        frequency, norm, a, z = real_arrays(frequency=frequency, norm=norm, a=a, z=z)
        check_normal("a", a)
        check_normal("z", z)
        wide = norm / jnp.sqrt(jnp.asarray(1 - 1 / classes, a.dtype))
        return SoftmaxMode(classes, flow_mode(Mode(frequency, wide, a, z), _Gap(classes - 1.0)))
    frequency, norm, start = together(frequency=frequency, norm=norm, start=start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    frequency, norm, start = jnp.broadcast_arrays(frequency, norm, start)
    return SoftmaxReadOut(classes, frequency, norm, start)
