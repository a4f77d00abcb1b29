"""A small convolutional network on the same digits, to see which effects persist where no theorem applies.

Two convolutions of 3 x 3 with stride 2 and a linear read-out, ReLU between them, no biases: positively homogeneous of degree
3 in its weights, as three layers of section 7, with weights shared over the image.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.problem import SIDE, Network
from gradstarve.studies.digits.claims import Claim, between
from gradstarve.studies.digits.patch import curves_of, starvation_claims
from gradstarve.studies.digits.speed import LOSSES, SIGMOIDAL, bend
from gradstarve.studies.digits.train import Tell, crossing, interval, problems, slopes, train

KERNEL = 3


class Convolutional(Network):
    """f(x) of 8 x 8 images in k colours: `first` [*batch, 9 k, a], `second` [*batch, 9 a, c], `read_out` [*batch, 4 c], with
    a and c channels.

    The kernels multiply patches of 3 x 3 pixels (and a channels), zeros around the image, which is what `equinox.nn.Conv2d`
    with stride 2 and padding 1 computes. Written as matrix products, because for a batch of networks XLA uses grouped
    convolutions, which are some ten times slower on CPUs.
    """

    first: Float[Array, "*batch near a"]
    second: Float[Array, "*batch seen c"]
    read_out: Float[Array, "*batch flat"]

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front: () for one network."""
        return self.read_out.shape[:-1]

    @property
    def dim(self) -> int:
        """The number of pixels, times the number of colours."""
        return SIDE * SIDE * (self.first.shape[-2] // KERNEL**2)

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n"]:
        """The logits, [*batch, n], of images as rows of 64 pixels, the colours of a pixel side by side."""
        return jnp.einsum("...nk,...k->...n", self.features(points), self.read_out)

    def features(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n flat"]:
        """What the read-out sees, [*batch, n, 4 c]."""
        points = self.check_dim(points)
        hidden = points.reshape(points.shape[0], SIDE, SIDE, -1)
        for kernels in (self.first, self.second):
            seen = _patches(hidden)
            *axes, n, height, width, size = seen.shape
            hidden = jax.nn.relu(seen.reshape(*axes, n * height * width, size) @ kernels)
            hidden = hidden.reshape(*hidden.shape[:-2], n, height, width, -1)
        return hidden.reshape(*hidden.shape[:-3], -1)


def _patches(images: Float[Array, "*axes height width c"]) -> Float[Array, "..."]:
    """The 3 x 3 neighbourhoods of every second pixel, zeros outside: [*axes, height/2, width/2, 9 c]."""
    height, width = images.shape[-3:-1]
    padded = jnp.pad(images, [(0, 0)] * (images.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    shifts = [(i, j) for i in range(KERNEL) for j in range(KERNEL)]
    return jnp.concatenate([padded[..., i : i + height - 1 : 2, j : j + width - 1 : 2, :] for i, j in shifts], axis=-1)


def convolutional(key: Any, batch: int, channels: int, scale: float, colours: int = 1) -> Convolutional:
    """`batch` random networks in float32 of `channels` in both layers: He's variances, all weights times `scale`."""
    keys = jax.random.split(key, 3)

    def draw(key, fan_in, *shape):
        return scale * (2 / fan_in) ** 0.5 * jax.random.normal(key, (batch, *shape), jnp.float32)

    wide = KERNEL**2 * channels
    return Convolutional(
        first=draw(keys[0], KERNEL**2 * colours, KERNEL**2 * colours, channels),
        second=draw(keys[1], wide, wide, channels),
        read_out=draw(keys[2], 2 * 4 * channels, 4 * channels),
    )


def convolution(settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Part (d): error curve, both losses, frequency, brightness and starvation with the convolutional network."""
    start = convolutional(
        jax.random.key(settings["seed"]), settings["seeds"], settings["channels"], settings["convolutional_scale"]
    )
    step, time = settings["convolutional_step_size"], settings["convolutional_time"]
    shapes: dict[str, Any] = {}
    for loss in LOSSES:
        tell(f"(d) convolutional, {loss}")
        run = train(problems(settings, centred=True), start, loss, step, time, 100)
        shapes[loss] = {
            "time": run.time,
            "error": run.error(),
            "accuracy": run.clean,
            "learnt": crossing(run.time, run.margin(), 1.0),
        }
    speeds: dict[str, Any] = {"frequency": [], "brightness": []}
    for p in settings["convolutional_frequencies"]:
        tell(f"(d) convolutional, p = {p}")
        data = problems(settings, centred=True, frequencies=(p, 1 - p))
        speeds["frequency"].append((p, _learnt(train(data, start, "cross-entropy", step, time / 2 / p, 100))))
    for factor in settings["brightness"]:
        tell(f"(d) convolutional, brightness x {factor}")
        data = problems(settings, centred=True, frequencies=(0.5, 0.5), brightness=(factor, 1.0))
        longest = time / min(1, min(settings["brightness"]))
        speeds["brightness"].append((factor, _learnt(train(data, start, "cross-entropy", step, longest, 100))))
    runs = {}
    for fraction in settings["convolutional_fractions"]:
        tell(f"(d) convolutional, patch on {fraction:.0%} of class +")
        data = problems(settings, patch=fraction)
        runs[fraction] = curves_of(train(data, start, "cross-entropy", step, time, 100))
    found = {"shapes": shapes, "speeds": speeds, "runs": runs}
    return found | {"claims": _claims(found)}


def _learnt(run: Any) -> np.ndarray:
    return crossing(run.time, run.margin(run.positive), 1.0)


def _claims(found: dict[str, Any]) -> list[Claim]:
    curve = found["shapes"]["cross-entropy"]
    start, bends, _ = bend(curve["time"], curve["error"])
    ratio = interval(curve["learnt"] / found["shapes"]["hinge"]["learnt"])
    claims = [
        Claim(
            "d",
            "convolutional: the error is sigmoidal",
            f"{(bends == 1).sum()} of {bends.size} seeds; starts with {start.max():.0e} of the steepest slope",
            SIGMOIDAL,
            bool((bends == 1).mean() >= 0.95 and start.max() < 0.1),
        ),
        Claim(
            "d",
            "convolutional: hinge reaches margin 1 first: cross-entropy / hinge",
            between(*ratio, ".2f"),
            "above 1 with its confidence interval",
            bool(ratio[1] > 1),
        ),
    ]
    for name, text in (("frequency", "p by weights"), ("brightness", "r by brightness")):
        values, times = zip(*found["speeds"][name], strict=True)
        slope = interval(slopes(values, np.array(times)))
        claims.append(
            Claim(
                "d",
                f"convolutional: time to margin 1 as 1/(p r), {text}: slope",
                between(*slope, ".3f") if np.isfinite(slope[0]) else "not learnt by every seed",
                "the confidence interval of the slope is within -1 ± 0.1",
                bool(slope[1] > -1.1 and slope[2] < -0.9),
            )
        )
    return claims + starvation_claims(found["runs"], "d", "convolutional")
