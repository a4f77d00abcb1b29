"""The learning curve: the type of result that theory and simulation share.

`LearningCurve` is the contract; `NetworkCurve` is the curve of a network on data, `ModeCurve` that of one class alone. The
figure and the tables of a curve are in `_views`. Also here: the mode, one class along one direction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    as_goal,
    check_fits,
    check_normal,
    check_normal_product,
    check_positive,
    fields_html,
    is_concrete,
    positive_int,
    readable,
    real_arrays,
    short_repr,
    shown,
)
from gradstarve.problem._data import ClassDataset, Dataset
from gradstarve.problem._losses import Loss


class LearningCurve(eqx.Module):
    """The contract of every curve, of theory and of training: logits, error and loss at t, and the t at which they are low.

    t is time for flows and the step number for descent, a scalar or an array of any shape. Without an argument a recorded
    curve gives its whole grid; a curve of theory has no grid and needs a t.
    """

    # One line, or a table in a notebook, instead of all arrays of all fields.
    __repr__ = short_repr
    _repr_html_ = fields_html

    if TYPE_CHECKING:  # a field of some curves, which a property of the base class would hide

        @property
        def loss_function(self) -> Loss:
            """l(m)."""
            ...

    def logits(self, t=None) -> Float[Array, "..."]:
        """f(x_i) at t: [*batch, *t.shape, n], with one more axis of K classes for a softmax network."""
        raise NotImplementedError

    def margins(self, t=None) -> Float[Array, "..."]:
        """m_i at t: [*batch, *t.shape, n]. y_i f(x_i); for K classes, the margin of the true class against all others."""
        raise NotImplementedError

    def error(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i sigmoid(-m_i), the probability given to the wrong label: [*batch, *t.shape]."""
        raise NotImplementedError

    def loss(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i l(m_i): [*batch, *t.shape]."""
        raise NotImplementedError

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """The weight of the points whose true label does not lead (two classes: m_i <= 0): [*batch, *t.shape]."""
        raise NotImplementedError

    def time_to_error(self, error, max_steps: int = 1_000_000) -> Float[Array, "..."]:
        """The first t with an error of at most `error`, 0 < error < 1: [*batch, *error.shape]; inf if there is no such t.

        0 if the curve starts at or below `error`. Exact in theory; in a recorded run the first such record. `max_steps`: the
        number of steps after which a law of descent gives up. Hinge and squared loss stop at a margin of 1, an error of
        0.269: they may never reach a lower error.
        """
        level = jnp.asarray(error_level(error, self._dtype))
        return self._time_to("error", level, positive_int("max_steps", max_steps))

    def time_to_loss(self, loss, max_steps: int = 1_000_000) -> Float[Array, "..."]:
        """The first t with a loss of at most `loss`: [*batch, *loss.shape]; otherwise as `time_to_error`.

        `ValueError` for a `loss` below `loss_function.least`.
        """
        level = as_goal("loss", loss, self._dtype)
        least = self.loss_function.least
        if least is not None and is_concrete(level) and bool((np.asarray(level) < least).any()):
            name = self.loss_function.name
            raise ValueError(f"loss must be >= {least:g}, got {shown(loss)}: the {name} loss is never below {least:g}")
        return self._time_to("loss", level, positive_int("max_steps", max_steps))

    def plot(
        self,
        path: Any = None,
        what: str = "error",
        *,
        t: Any = None,
        ax: Any = None,
        title: str | None = None,
        figsize: Any = None,
        label: str | None = None,
        scale: str = "linear",
        networks: int = 6,
    ) -> Any:
        """The curve as a matplotlib `Figure`, saved to `path` (.png, .svg, .pdf) if given.

        - `what`: "error", "loss", "mistakes", or "margins" (the mean of each class);
        - `t`: times or steps; by default the grid of a recorded run, and for theory until most of the loss is gone;
        - `ax`: axes to draw into; by default a new figure of `figsize` inches (6.4 x 4), which needs no display;
        - `title`: above the axes; `label`: the curve's name in the legend; `scale`: of the t axis, "linear" or "log";
        - `networks`: how many networks of a batch are drawn as thin lines, at most. The median of a batch is a thick line,
          and the 10 to 90 % quantiles are a band.

        Sizes, fonts and colours that you have set in Matplotlib stay yours. `ValueError` names an unknown option.
        """
        from gradstarve.problem._views import draw

        return draw(self, path, what, t=t, ax=ax, title=title, figsize=figsize, label=label, scale=scale, networks=networks)

    def to_pandas(self, t: Any = None, what: str = "curve") -> Any:
        """A `pandas.DataFrame` with the index levels "network" (one for each batch axis), "time" or "step", and "point".

        `what`: "curve" for error, loss and mistakes, a row for each network and t; "points" for label, weight, logit and
        margin, a row for each point too; "events" for the events of exact hinge training. `t` as in `logits`.
        Needs pandas: pip install 'gradstarve[sweep]'.
        """
        from gradstarve.problem._views import frame

        return frame(self, t, what)

    def to_xarray(self, t: Any = None) -> Any:
        """An `xarray.Dataset` of logits, margins, error, loss and mistakes, its axes named as in `to_pandas`.

        Labels and weights are coordinates of "point"; events, where there are any, have an axis "event". `t` as in
        `logits`. Needs xarray: pip install 'gradstarve[sweep]'.
        """
        from gradstarve.problem._views import labelled

        return labelled(self, t)

    # Defined by each kind of curve.

    @property
    def _batch(self) -> tuple[int, ...]:
        """The batch axes."""
        raise NotImplementedError

    @property
    def _dtype(self) -> Any:
        raise NotImplementedError

    @property
    def _unit(self) -> str:
        """What t counts: "time" or "step"."""
        raise NotImplementedError

    def _time_to(self, what: str, level: Float[Array, "..."], max_steps: int) -> Float[Array, "..."]:
        """The first t at which the error or the loss (`what`) is at most `level`: [*batch, *level.shape]."""
        raise NotImplementedError


class NetworkCurve(LearningCurve):
    """The contract of a `Solution` and a `Trajectory`: everything follows from `.logits(t)` and the data."""

    data: eqx.AbstractVar[Dataset | ClassDataset]
    loss_function: eqx.AbstractVar[Loss]  # pyright: ignore[reportIncompatibleVariableOverride, reportIncompatibleMethodOverride]

    def margins(self, t=None) -> Float[Array, "..."]:
        """m_i at t: [*batch, *t.shape, n]. y_i f(x_i); for K classes, the margin of the true class against all others."""
        return self.data.margins(self.logits(t))

    def error(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i sigmoid(-m_i), the probability given to the wrong label: [*batch, *t.shape]."""
        return self._measured("error", self.margins(t))

    def loss(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i l(m_i): [*batch, *t.shape]."""
        return self._measured("loss", self.margins(t))

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """The weight of the points whose true label does not lead (two classes: m_i <= 0): [*batch, *t.shape]."""
        return jnp.sum(self.data.weights * (self.data.leads(self.logits(t)) <= 0), axis=-1)

    def _measured(self, what: str, margins, weights=None):
        """Error or loss at margins [..., n] of points with these `weights`, by default those of the data."""
        each = jax.nn.sigmoid(-margins) if what == "error" else self.loss_function.value(margins)
        return jnp.sum((self.data.weights if weights is None else weights) * each, axis=-1)


class ModeCurve(LearningCurve):
    """The contract of the curve of one class alone, of weight 1: everything follows from `.logit(t)`, the margin.

    `.logits(t)` and `.margins(t)` are [*batch, *t.shape, 1], `.error(t)`, `.loss(t)`, `.mistakes(t)` [*batch, *t.shape].
    """

    def logit(self, t) -> Float[Array, "..."]:
        """u(t), the logit in favour of the class, [*batch, *t.shape]."""
        raise NotImplementedError

    def logits(self, t=None) -> Float[Array, "..."]:
        """u(t) as the logit of the only point, [*batch, *t.shape, 1]."""
        return self.logit(given(t))[..., None]

    def margins(self, t=None) -> Float[Array, "..."]:
        """u(t) as the margin of the only point, [*batch, *t.shape, 1]."""
        return self.logits(t)

    def error(self, t=None) -> Float[Array, "..."]:
        """sigmoid(-u(t)), the probability given to the wrong label, [*batch, *t.shape]."""
        return jax.nn.sigmoid(-self.logit(given(t)))

    def loss(self, t=None) -> Float[Array, "..."]:
        """l(u(t)), [*batch, *t.shape]."""
        return self.loss_function.value(self.margins(t)[..., 0])

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """1 where u(t) <= 0 and 0 where the class leads, [*batch, *t.shape]."""
        found = self.logit(given(t))
        return jnp.where(found <= 0, jnp.ones_like(found), 0)

    def time_to_error(self, error, max_steps: int = 1_000_000) -> Float[Array, "..."]:
        """The first t with an error e of at most `error`, 0 < error < 1: at the logit log((1 - e)/e) (6.1).

        [*batch, *error.shape]; 0 if the curve starts at or below `error`, inf if it never reaches it (in descent: not within
        `max_steps`). Hinge loss stops once u >= 1, and squared loss tends to u = 1, an error of 0.269: lower errors may be
        out of reach.
        """
        return self._time_to_margin(error_to_logit(error, self._dtype), max_steps)

    def _time_to(self, what: str, level, max_steps: int):
        return self._time_to_margin(self.loss_function.margin_at(level), max_steps)

    def _time_to_margin(self, margin, max_steps: int):
        """The first t with a margin of at least `margin`, [*batch, *margin.shape]."""
        raise NotImplementedError


def given(t: Any) -> Any:
    """`t` unchanged; `ValueError` for None, for a curve that has no grid."""
    if t is None:
        raise ValueError("theory holds at every t and records none: give t, for example trajectory.grid")
    return t


def error_level(error: Any, dtype: Any) -> Any:
    """`error` as an array of `dtype`, of NumPy if it is known and of JAX if it is traced; `ValueError` unless 0 < e < 1."""
    level = readable("error", error)
    if not is_concrete(level):
        return jnp.asarray(level, dtype)
    values = np.asarray(level, dtype)
    if not bool(((values > 0) & (values < 1)).all()):
        raise ValueError(f"error must be in (0, 1), got {shown(error)}")
    return values


def error_to_logit(error: Any, dtype: Any) -> Array:
    """log((1 - e)/e), after checking 0 < e < 1."""
    level = error_level(error, dtype)
    if not isinstance(level, np.ndarray):
        return jnp.log1p(-level) - jnp.log(level)
    # Known inputs are small: NumPy is faster than a JAX dispatch.
    return jnp.asarray(np.log1p(-level) - np.log(level))


# One mode: one class whose points share a direction, with the neurons that see it.


class Mode(eqx.Module):
    """A class of total weight p = `frequency` at norm r = `norm` along a unit vector xh, with signs that favour the class.

    Neuron j enters through a_j = w_j . xh and z_j (-z_j for the class y = -1), so that the logit in favour
    of the class is u = r sum_j (a_j)_+ z_j. Shapes: `a` and `z` [*batch, h], `frequency` and `norm` [] or [*batch]; one
    float dtype. A neuron with a_j <= 0 is inactive on the class and does not move. Each class of orthogonal data is
    a mode. `ValueError` for shapes that do not fit, h = 0, p <= 0, p > 1, r <= 0, and for entries or a product p r that are
    not finite or are subnormal (compiled code flushes subnormal numbers to 0).

    >>> mode = Mode(frequency=0.5, norm=1.0, a=[0.1, 0.2], z=[0.1, -0.1])
    >>> round(float(mode.logit), 6)
    -0.01
    """

    __repr__ = short_repr

    frequency: Float[Array, "..."]
    norm: Float[Array, "..."]
    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]

    def __init__(self, frequency, norm, a, z) -> None:
        frequency, norm, a, z = real_arrays(frequency=frequency, norm=norm, a=a, z=z)
        if a.ndim < 1 or a.shape != z.shape:
            raise ValueError(f"a and z must both be [*batch, h], got shapes {a.shape} and {z.shape}")
        if a.shape[-1] == 0:
            raise ValueError(f"a mode needs h >= 1 neurons, got a of shape {a.shape}")
        for name, value in (("frequency", frequency), ("norm", norm)):
            check_positive(name, value)
            check_fits(name, value, a.shape[:-1], f"a {a.shape}")
        check_normal("a", a)
        check_normal("z", z)
        check_normal_product(a.dtype, frequency=frequency, norm=norm)
        if is_concrete(frequency):
            shares = np.asarray(frequency)
            # Sums of weights may exceed 1 by their rounding.
            above = shares > 1 + 64 * np.finfo(shares.dtype).eps
            if above.any():
                raise HypothesisError(
                    "frequency p is the weight of the class among all samples, at most 1 (section 3)",
                    f"frequency = {shares[above].flat[0]:.6g}",
                    "count / total for samples that are counted, or longer times for a faster clock",
                )
        self.frequency, self.norm, self.a, self.z = frequency, norm, a, z

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes, in front of the axis of neurons."""
        return self.a.shape[:-1]

    @property
    def logit(self) -> Float[Array, "*batch"]:
        """u at the start: r sum_j (a_j)_+ z_j, [*batch]."""
        return self.norm * jnp.sum(jnp.maximum(self.a, 0) * self.z, axis=-1)
