"""The two errors that are ours. Everything else that is wrong with an argument is a plain `ValueError`."""


class HypothesisError(ValueError):
    """A theorem was asked for outside its hypotheses.

    The message names the hypothesis, the point or neuron that breaks it, and what to use instead. The three parts
    are also kept apart, for programs that want to react:

    - `hypothesis`: the condition that fails, in words, with its equation number;
    - `where`: the point, pair or neuron that breaks it, with the numbers;
    - `instead`: what answers the question all the same.
    """

    def __init__(self, hypothesis: str, where: str, instead: str) -> None:
        self.hypothesis, self.where, self.instead = hypothesis, where, instead
        super().__init__(f"{hypothesis}: {where}. Use instead: {instead}.")

    def __reduce__(self):
        # An exception is made again from `args`, which holds the message and not the three parts.
        return type(self), (self.hypothesis, self.where, self.instead), self.__dict__


class ConvergenceError(RuntimeError):
    """An iteration ended without reaching its tolerance; the message gives the residual and what to try."""
