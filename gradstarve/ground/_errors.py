"""The two exceptions of this library. Any other wrong argument raises a plain `ValueError`."""


class HypothesisError(ValueError):
    """A theorem was applied outside its hypotheses.

    The message names the hypothesis, the point or neuron that breaks it, and what to use instead. The three parts
    are also attributes, for programs that handle the error:

    - `hypothesis`: the condition that fails, in words, with its equation number;
    - `where`: the point, pair or neuron that breaks it, with the numbers;
    - `instead`: the functions that cover the case.
    """

    def __init__(self, hypothesis: str, where: str, instead: str) -> None:
        self.hypothesis, self.where, self.instead = hypothesis, where, instead
        super().__init__(f"{hypothesis}: {where}. Use instead: {instead}.")

    def __reduce__(self):
        # By default, unpickling rebuilds an exception from `args`, which holds the message and not the three parts.
        return type(self), (self.hypothesis, self.where, self.instead), self.__dict__


class ConvergenceError(RuntimeError):
    """An iteration ended without reaching its tolerance; the message gives the residual and what to try."""
