"""What a directory remembers of a loss: every number and all code that decides a result, and nothing else."""

import functools
import json
import threading
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.problem import Loss, SpectralDecoupling, as_loss
from gradstarve.simulation.sweep._identity import identity

SHARPNESS = 2.0
FEW = np.arange(20, dtype=np.float32)


def slope(margin):
    return jax.nn.sigmoid(-SHARPNESS * margin)


class OfGlobal(Loss):
    name = "own"

    def value(self, margin):
        return -jnp.log(slope(margin))

    def residual(self, margin):
        return slope(margin)


class OfFields(Loss):
    name = "own"
    scale: float = 1.0
    shape: object = slope

    def residual(self, margin):
        return self.scale * self.shape(margin)


def penalised(penalty):
    return SpectralDecoupling("hinge", penalty)


class Box:
    def __init__(self, shape):
        self.shape = shape


def closing_over(scale, default=1.0, constant=None):
    class Closing(Loss):
        name = "own"

        def residual(self, margin, factor=default):
            if constant == "two":
                return 2 * scale * factor * margin
            return scale * factor * margin

    return Closing()


def written(factor):
    """A class whose code differs, and nothing else: one constant."""
    module = types.ModuleType("written")
    code = f"class Written(Loss):\n    name = 'own'\n    def residual(self, margin):\n        return {factor} * margin\n"
    exec(code, vars(module) | {"Loss": Loss}, found := {"__name__": "written", "Loss": Loss})
    return found["Written"]()


PAIRS = {
    "a number": (SpectralDecoupling("cross-entropy", 0.1), SpectralDecoupling("cross-entropy", 1.0)),
    "the last bit": (SpectralDecoupling("hinge", 0.1), SpectralDecoupling("hinge", np.nextafter(np.float32(0.1), 1))),
    "one of many": (
        SpectralDecoupling("hinge", FEW),
        SpectralDecoupling("hinge", np.where(FEW == 7, np.float32(7.5), FEW)),
    ),
    "a loss inside": (SpectralDecoupling("cross-entropy", 0.1), SpectralDecoupling("hinge", 0.1)),
    "a field": (OfFields(1.0), OfFields(2.0)),
    "int and float": (OfFields(2), OfFields(2.0)),
    "a function": (OfFields(1.0, jnp.tanh), OfFields(1.0, jnp.sin)),
    "a partial": (OfFields(1.0, functools.partial(jnp.power, 2)), OfFields(1.0, functools.partial(jnp.power, 3))),
    "a function compiled": (OfFields(1.0, jax.jit(lambda m: m)), OfFields(1.0, jax.jit(lambda m: 2 * m))),
    "a derivative": (OfFields(1.0, jax.grad(lambda m: m**2)), OfFields(1.0, jax.grad(lambda m: m**3))),
    "a closure": (closing_over(1.0), closing_over(2.0)),
    "an array closed over": (closing_over(jnp.ones(9)), closing_over(jnp.ones(9).at[3].set(2))),
    "a default": (closing_over(1.0), closing_over(1.0, default=2.0)),
    "code": (written(2), written(3)),
    "the type of a constant": (written(2), written(2.0)),
}


@pytest.mark.parametrize("what", PAIRS)
def test_what_differs_differs(what):
    one, other = map(identity, PAIRS[what])
    assert one == identity(PAIRS[what][0])
    assert json.dumps(one) != json.dumps(other)


def test_globals_that_code_reads_are_part_of_it(monkeypatch):
    before = identity(OfGlobal())
    monkeypatch.setitem(globals(), "SHARPNESS", 3.0)
    assert identity(OfGlobal()) != before
    monkeypatch.setitem(globals(), "SHARPNESS", 2.0)
    assert identity(OfGlobal()) == before
    monkeypatch.setitem(globals(), "slope", jnp.tanh)
    assert identity(OfGlobal()) != before


def test_the_same_loss_made_twice_is_the_same():
    for make in (lambda: closing_over(2.0), lambda: OfFields(2.0), lambda: written(5), lambda: penalised(0.3)):
        assert identity(make()) == identity(make())
    # Where code stands, how it is called and what it says of itself decides nothing.
    longer = written(5)
    type(longer).__doc__ = "words"
    type(longer).__module__ = "elsewhere"
    assert identity(longer) == identity(written(5))


def test_libraries_are_named_and_not_read():
    assert identity(as_loss("hinge")) == "Hinge()"
    assert identity([jnp.tanh, np.add, len]) == identity([jnp.tanh, np.add, len])
    assert identity(jax.nn.relu)["function"].endswith("relu")


def test_cycles_end():
    class Node:
        def __init__(self):
            self.me = self

        def again(self):
            return Node

    assert identity(Node()) == identity(Node())
    deep = []
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(ValueError, match="nested too deeply"):
        identity(deep, "loss")


@pytest.mark.parametrize(
    ("inside", "kind"),
    [
        ((i for i in [1]), "generator"),
        (threading.Lock(), "lock"),
        (np.random.default_rng(0), "Generator"),
        (iter([1, 2]), "list_iterator"),
    ],
)
def test_what_cannot_be_told_is_refused_by_name(inside, kind):
    with pytest.raises(ValueError, match=rf"cannot tell what loss\.shape is made of \({kind}\).*equinox module"):
        identity(Box(inside), "loss")
    with pytest.raises(ValueError, match=rf"the variable 'scale' that loss\.residual closes over is made of \({kind}\)"):
        identity(closing_over(inside), "loss")


def test_inside_jit_is_refused():
    with pytest.raises(ValueError, match="it is traced"):
        jax.jit(lambda c: identity(OfFields(c), "loss") and c)(1.0)


def test_modules_with_static_fields():
    class Static(eqx.Module):
        power: int = eqx.field(static=True)

        def __call__(self, margin):
            return margin**self.power

    assert identity(Static(2)) != identity(Static(3))
    assert identity(OfFields(1.0, eqx.filter_jit(Static(2)))) != identity(OfFields(1.0, eqx.filter_jit(Static(3))))


def test_where_this_library_keeps_a_class_is_not_remembered(monkeypatch):
    """So that directories stay readable when its files move."""
    before = identity(OfGlobal())
    assert issubclass(OfGlobal, Loss)
    monkeypatch.setattr(Loss, "__module__", "gradstarve.elsewhere")
    assert identity(OfGlobal()) == before
