"""`phase_diagram`: where training fails and how long it takes, as maps: exact where there is a law, trained elsewhere.

Four planes, a module each: `neuron` (a, z) of one neuron, `angle` of w between two classes, `failure` of whole networks over
their width, and `time` to learn. Each has the losses side by side; hinge loss is followed from event to event (12.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import jax
import numpy as np

from gradstarve.ground import Progress, did_you_mean, html_table, short_repr, shown, table_text
from gradstarve.studies.phase import phase_settings

PLANES = ("neuron", "angle", "failure", "time")


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """What `phase_diagram` found. `phase_diagram(**diagram.settings)` computes it again.

    `axes`: name -> values; `maps`: loss -> name -> array, of which the module `studies.phase.PLANE` tells the meaning.
    """

    settings: dict[str, Any]
    axes: dict[str, Any]
    maps: dict[str, dict[str, Any]]

    @property
    def plane(self) -> str:
        """Which of the four."""
        return self.settings["plane"]

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses, side by side."""
        return tuple(self.maps)

    def table(self) -> str:
        """The numbers behind the maps in a few rows."""
        return table_text(_module(self.plane).rows(self))

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_table(_module(self.plane).rows(self), self.notes())

    def records(self) -> list[dict[str, str]]:
        """The rows of the table by the names of its columns."""
        head, *rest = _module(self.plane).rows(self)
        return [dict(zip(head, row, strict=True)) for row in rest]

    def notes(self) -> str:
        """In words, what the table is to be read with."""
        return _module(self.plane).NOTES

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {"plane": self.plane, "axes": self.axes, "maps": self.maps}

    def plot(self, path: Any = None) -> Any:
        """The maps as a matplotlib `Figure`, saved to `path` if there is one; see `studies.phase.phase_plot`."""
        from gradstarve.studies.phase.phase_plot import draw

        return draw(self, path)


def phase_diagram(loss: Any = "hinge", plane: str = "neuron", *, progress: Any = None, **settings: Any) -> PhaseDiagram:
    """The phase diagram of training two classes at an angle of cosine c in [-1, 0], for one loss or several side by side.

    `loss`: "cross-entropy", "hinge", "exponential" or a sequence of them. `plane` and its `settings`:

    - "neuron": the fate and time to learn of one neuron over a = w.xh_+ and z (4.1), (4.3), (3.6), (3.7): `frequencies` and
      `norms` of class + and -, `extent` of a and z, `pixels` a side;
    - "angle": the fate of one neuron over the direction of w in the plane of the classes and z/|w| (4.1)-(4.4): `cosines`,
      `ratios` p_- r_- / p_+ r_+, `scale` = |(w, z)|, `pixels`;
    - "failure": the chance that class - of a network is never learnt (4.2), (4.3), over the largest `width`: `cosines`,
      `ratios` sigma_z/sigma_w, `rates` p_- r_- / p_+ r_+, `scales` sigma, `networks` a point, `seed`;
    - "time": quantiles over networks of the time to a margin of 1 (3.6), (3.7): `width`, `scale`, `widths`, `scales`,
      `networks`, `pixels`, `seed`.

    Exact where there is a law, and for the hinge loss from event to event (`simulate_hinge_exact`); cross-entropy and
    exponential loss by the closed form or by `simulate_flow` until the weights prove the outcome. t = step size x step. Ask
    for float64. `ValueError` for settings that make no problem.

    >>> diagram = phase_diagram("hinge", "neuron", pixels=8)
    >>> diagram.maps["hinge"]["antipodal_end"][0].tolist()        # z = -1.625, all a: z < -a ends in class -
    [-1, -1, -1, -1, -1, -1, -1, 1]
    """
    names = phase_settings.losses(loss)
    if not isinstance(plane, str) or plane not in PLANES:
        raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {shown(plane)}{did_you_mean(plane, PLANES)}")
    module = _module(plane)
    unknown = sorted(set(settings) - set(module.DEFAULTS))
    if unknown:
        meant = did_you_mean(unknown[0], module.DEFAULTS)
        raise ValueError(f"{unknown[0]} is no setting of the plane {plane!r}; it has {', '.join(module.DEFAULTS)}{meant}")
    chosen = module.checked({**module.DEFAULTS, **settings})
    with Progress(progress, module.steps(names, chosen), f"phase diagram: {plane}") as bar:
        done = 0

        def advance():
            nonlocal done
            done += 1
            bar.update(done)

        axes, maps = module.compute(names, chosen, advance)
    return PhaseDiagram({"loss": names, "plane": plane, **chosen}, axes, jax.tree.map(_plain, maps))


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


def _module(plane: str) -> Any:
    return import_module(f"gradstarve.studies.phase.{plane}")
