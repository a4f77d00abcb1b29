"""The contract of an engine: training laid out and compiled in one way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Array

from gradstarve.problem import Loss, Network


class Engine(ABC):
    """One way to train: w <- w + step_size sum_i q_i y_i g(m_i) df(x_i)/dw, `every` steps between two records.

    All engines do the same arithmetic, and tests compare the others with `reference`. A new engine is a module of this
    package with a subclass, and its name in `ENGINES`.
    """

    name: ClassVar[str]

    @staticmethod
    @abstractmethod
    def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
        """Why this engine cannot run the problem, in words; None if it can."""

    @staticmethod
    @abstractmethod
    def advance(
        state: Any, data: Any, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool
    ) -> tuple[Any, Array, Network | None]:
        """The state after `records` times `every` steps, the logits [records, b, n] after each `every`, and the networks."""
