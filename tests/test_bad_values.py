"""Every public function with some seventy bad values in place of each argument: the right answer, or an error that names it.

The walk itself is `bad_values.py`, in a process of its own without the type checks of the tests. By default one pair in
131 is tried, and one at least of each function; `pytest -m slow` tries all.
"""

import inspect
import json
import os
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_calls import CHANGES, NOT_CALLED, VALUES, Frame, Tensor, public

import gradstarve as gs
from gradstarve import theory
from gradstarve.ground import _arrays as arrays
from gradstarve.ground import did_you_mean, shown

HERE = Path(__file__).parent


def walk(part, of):
    """What the walk says of every pair it tried, its tally, and the arguments of every function by name."""
    path = os.pathsep.join(map(str, (HERE, HERE.parent, *filter(None, [os.environ.get("PYTHONPATH")]))))
    settings = os.environ | {"PYTHONPATH": path, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(HERE / "bad_values.py"), ".", str(part), str(of)]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('["')]
    tally, arguments = (
        next(json.loads(line) for line in done.stderr.splitlines() if line.startswith(start))
        for start in ('{"refused"', '{"ClassDataset"')
    )
    return found, tally, arguments


def check(found, tally, arguments, least):
    assert len(found) == sum(tally.values())
    assert len(found) > least
    told = [(f"{function}({name}=<{value}>): {text}", kind) for kind, function, name, value, text in found]
    faults = [text for text, kind in told if kind == "fault"]
    assert not faults, f"{len(faults)} of {len(found)}:\n" + "\n".join(faults[:40])
    assert tally["refused"] > tally["taken"] > 0


@pytest.fixture(scope="module")
def some():
    """One pair in 131: no number of values has a factor in common with it, so that all of them get their turn."""
    return walk(45, 131)


def test_bad_values_are_refused_by_name(some):
    check(*some, 200)
    assert {function for _, function, *_ in some[0]} == set(some[2])


@pytest.mark.slow
def test_all_bad_values_are_refused_by_name():
    check(*walk(0, 1), 20_000)


def test_no_public_function_is_left_out(some):
    calls = some[2]
    missing = set(public()) - set(calls) - set(NOT_CALLED)
    assert not missing
    assert set(NOT_CALLED) <= set(public()) | {"EventKind"}
    assert len(VALUES) > 45
    assert len(CHANGES) > 15
    # Settings beyond these are those of a phase diagram's plane, or go on to a function that is here itself.
    open_ended = {"phase_diagram", "animate", "diagnose.from_jacobian", "diagnose.from_kernel"}
    of_places = {"memory", "batch_size", "devices", "directory", "keep", "engine", "threshold"}
    for name, function in public().items():
        if name in calls and name not in open_ended:
            wanted = set(inspect.signature(function).parameters)
            assert wanted - (of_places if name == "sweep" else set()) == set(calls[name]), name


@pytest.mark.parametrize(
    ("value", "is_like"),
    [
        (Fraction(1, 4), 0.25),
        (Decimal("0.25"), 0.25),
        ([Fraction(1, 4), 1], [0.25, 1.0]),
        (np.array([Decimal(2), 3], object), [2.0, 3.0]),
        (Tensor(np.array([1.0, 2.0], np.float32)), [1.0, 2.0]),
        (Frame([[1, 2.5]]), [[1.0, 2.5]]),
        (range(3), [0.0, 1.0, 2.0]),
        (2**70, 2.0**70),
        (np.ma.masked_array([1.0, 2.0], dtype=np.float32), [1.0, 2.0]),
        (np.float32(0.5), 0.5),
        ([jnp.float32(0.5), 2], [0.5, 2.0]),
    ],
)
def test_all_kinds_of_numbers_are_read(value, is_like):
    (array,) = arrays.real_arrays(x=value)
    np.testing.assert_array_equal(array, np.asarray(is_like, array.dtype))


def test_tensors_bring_their_precision_along():
    assert arrays.real_arrays(x=Tensor(np.ones(2, np.float32)))[0].dtype == jnp.float32


def test_lists_of_traced_numbers_are_read():
    slope = jax.grad(lambda p: arrays.real_arrays(x=[p, 1 - p])[0][1] ** 2)(0.25)
    assert float(slope) == -1.5


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (10**400, "x = 1000.*0000 is too large for a float"),
        (1e300, "x = 1e\\+300 is beyond float32; use float64"),
        (jnp.ones(2, jnp.bfloat16), "x has dtype bfloat16; use float32 or float64"),
        (np.ones(2, np.longdouble), "use float32 or float64"),
        (np.ma.masked_array([1.0, 2.0], [0, 1]), "x has 1 masked entries"),
        ([[1.0], [1.0, 2.0]], "x has rows of different lengths"),
        (jax.random.key(0), "made of random keys"),
        ("x" * 10_000, "x must hold numbers, got 'xxx.* ... xxx"),
        ({1.0}, r"x must hold numbers, got \{1.0\}"),
        ([None, 1.0], r"x must hold numbers, got None in \[None, 1.0\]"),
        (1j, "x is complex, 1j"),
        (True, "x must be a number, got True"),
    ],
)
def test_what_is_no_number_is_named(value, message):
    with pytest.raises(ValueError, match=message) as error:
        arrays.real_arrays(x=value)
    assert len(str(error.value)) < 200


def test_a_truth_value_is_no_time():
    curve = gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), "hinge")
    for read, name in ((curve.logit, "t"), (curve.time_to_logit, "logit"), (curve.time_to_error, "error")):
        with pytest.raises(ValueError, match=rf"\b(times|{name}) must be a number, got True"):
            read(True)


def test_whole_numbers_of_any_type_are_counts():
    for value in (1000, 1e3, np.int8(100) * 1, np.float32(1000), Fraction(1000), jnp.asarray(1000), Decimal(1000)):
        assert arrays.positive_int("n", value) in (1000, 100)
    for value in (True, 1000.5, "1000", float("nan"), float("inf"), None, 0, 2**70, [3], 1 + 0j, jnp.asarray([1])):
        with pytest.raises(ValueError, match=r"n must be an integer .*, got "):
            arrays.positive_int("n", value)
    with pytest.raises(ValueError, match="must be an integer"):
        jax.jit(lambda n: arrays.positive_int("n", n))(3)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        *(("ce", "cross-entropy"), ("bce", "cross-entropy"), ("logistic", "cross-entropy")),
        ("cross_entropy", "cross-entropy"),
        *(("mse", "squared"), ("MSE", "squared"), ("square", "squared"), ("Hinge", "hinge"), ("exponentia", "exponential")),
    ],
)
def test_the_loss_that_may_be_meant_is_named(given, meant):
    with pytest.raises(ValueError, match=f"unknown loss '{given}'; use one of .*; did you mean '{meant}'"):
        theory.kappa_critical(given)
    assert did_you_mean("zzz", ["hinge"]) == ""


def test_keywords_of_other_libraries_are_recognised():
    with pytest.raises(TypeError, match=r"GradientDescent has no argument 'lr', it has step_size, momentum, .*'step_size'"):
        gs.GradientDescent(lr=0.1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="did you mean 'weight_decay'"):
        gs.GradientDescent(0.1, weight_deca=0.1)  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="step_size"):
        gs.GradientDescent()  # pyright: ignore[reportCallIssue]
    names = ["step_size", "momentum", "nesterov", "weight_decay", "read_out_step_size"]
    assert list(inspect.signature(gs.GradientDescent).parameters) == names


def test_a_loss_in_place_of_times():
    data, net = gs.datasets.antipodal(), gs.TwoLayerReLU([[0.3, 0.1]], [0.1])
    with pytest.raises(ValueError, match=r"got 'cross-entropy': the loss here is always the hinge loss; .*simulate_flow"):
        gs.simulate_hinge_exact(data, net, "cross-entropy")


def test_one_scale_alone_is_no_ratio():
    with pytest.raises(ValueError, match=r"only scale_a = 4 was given; give both, or neither"):
        theory.learning_probability(4)
    assert float(theory.learning_probability()) == float(theory.learning_probability(2.0, 2.0)) == 0.75


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("starv", "'starving-pair'"),
        ("4.2", r"equation \(4.2\) is that of 'learning-probability'"),
        ("sgn", "did you mean 'sign'"),
    ],
)
def test_the_theorem_that_may_be_meant_is_named(name, message):
    with pytest.raises(ValueError, match=message):
        gs.verify(name)


def test_what_is_shown_of_a_value_is_short():
    for make in VALUES.values():
        assert len(shown(make())) <= 80
    assert shown(10**10_000) == "an integer of about 10000 digits"
    assert shown([1, "a\nb"]) == r"[1, 'a\nb']"
