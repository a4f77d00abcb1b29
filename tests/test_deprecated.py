"""Old orders and names of arguments: they work for one version, say what the new ones are, and give the same numbers."""

import warnings

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory
from gradstarve.ground import deprecated
from gradstarve.simulation import simulate

TYPES, SHARES = [[1, 0], [1, 1]], [0.6, 0.4]
DATA = gs.datasets.orthogonal()


def network():
    return gs.TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])


# Each: the old call, the new one, and words of the warning.
CALLS = {
    "time_to_confidence": (
        lambda: theory.time_to_confidence("hinge", 0.3, 0.5, 1.0, 0.01),
        lambda: theory.time_to_confidence(0.5, 1.0, 0.01, "hinge", 0.3),
        r"time_to_confidence\(frequency, norm, start, loss, error, \*, kappa\)",
    ),
    "time_to_confidence, by name": (
        lambda: theory.time_to_confidence("hinge", 0.3, frequency=0.5, norm=1.0, start=0.01, kappa=0.5),
        lambda: theory.time_to_confidence(0.5, 1.0, 0.01, "hinge", 0.3, kappa=0.5),
        "time_to_confidence",
    ),
    "error_tail": (
        lambda: theory.error_tail("cross-entropy", 1e6, 0.5, 1.0, layers=3),
        lambda: theory.error_tail(0.5, 1.0, "cross-entropy", 1e6, depth=3),
        r"use error_tail\(frequency, norm, loss, t, \*, depth, leading\)",
    ),
    "error_inflections": (
        lambda: theory.error_inflections("exponential", 0.1),
        lambda: theory.error_inflections(0.1, "exponential"),
        r"error_inflections\(kappa, loss\)",
    ),
    "plateau_length": (
        lambda: theory.plateau_length(gs.Hinge(), 1e-3, 0.5, 2.0),
        lambda: theory.plateau_length(0.5, 2.0, 1e-3, gs.Hinge()),
        r"plateau_length\(frequency, norm, start, loss\)",
    ),
    "generator_signal": (
        lambda: theory.generator_signal("minimax", 2.0, 1.5),
        lambda: theory.generator_signal(1.5, "minimax", 2.0),
        r"generator_signal\(norm, loss, margin\)",
    ),
    "generator_signal, by name": (
        lambda: theory.generator_signal(kind="hinge", margin=2.0, norm=1.5),
        lambda: theory.generator_signal(1.5, "hinge", 2.0),
        r"generator_signal\(\.\.\., loss\)",
    ),
    "minimax_tail": (
        lambda: theory.minimax_tail(1e6, 0.5, 1.0, 1),
        lambda: theory.minimax_tail(0.5, 1.0, t=1e6, depth=1),
        r"minimax_tail\(frequency, norm, \*, t, depth\)",
    ),
    "wrong_sign_fraction": (
        lambda: theory.wrong_sign_fraction(4.0, 0.5, 1.3),
        lambda: theory.wrong_sign_fraction(0.5, 1.3, t=4.0),
        r"wrong_sign_fraction\(frequency, norm, loss, \*, t, scale_a, scale_z\)",
    ),
    "wrong_sign_fraction, all": (
        lambda: theory.wrong_sign_fraction(4.0, 0.5, 1.3, "hinge", 0.5, 2.0),
        lambda: theory.wrong_sign_fraction(0.5, 1.3, "hinge", t=4.0, scale_a=0.5, scale_z=2.0),
        "wrong_sign_fraction",
    ),
    "wrong_sign_time": (
        lambda: theory.wrong_sign_time(0.05, 0.5, 1.3),
        lambda: theory.wrong_sign_time(0.5, 1.3, fraction=0.05),
        "wrong_sign_time",
    ),
    "feature_flow": (
        lambda: theory.feature_flow(TYPES, SHARES, "hinge", 2, None, [0.1, 0.2]).features(1.0),
        lambda: theory.feature_flow(TYPES, SHARES, "hinge", depth=2, init=[0.1, 0.2]).features(1.0),
        r"feature_flow\(types, probabilities, loss, \*, depth, scales, init\)",
    ),
    "shared_features": (
        lambda: theory.shared_features(TYPES, SHARES, "hinge", [[0.3, 0.1]], [0.2]).features(1.0),
        lambda: theory.shared_features(TYPES, SHARES, [[0.3, 0.1]], [0.2], "hinge").features(1.0),
        r"shared_features\(types, probabilities, w, z, loss, \*, scales\)",
    ),
    "shared_slope": (
        lambda: theory.shared_slope(0.75, 0.25, "cross-entropy", 1.0, 0.5),
        lambda: theory.shared_slope(0.75, 0.25, "cross-entropy", frequent=1.0, rare=0.5),
        "shared_slope",
    ),
    "starving_pair": (
        lambda: theory.starving_pair(0.5, 0.5, "hinge", 2, (0.1, 0.1)).freeze,
        lambda: theory.starving_pair(0.5, 0.5, "hinge", depth=2, init=(0.1, 0.1)).freeze,
        r"starving_pair\(p_frequent, p_both, loss, \*, depth, init\)",
    ),
    "fastest_weights": (
        lambda: theory.fastest_weights(TYPES, SHARES, "hinge", 1, (1.0, 2.0)).weights,
        lambda: theory.fastest_weights(TYPES, SHARES, "hinge", scales=(1.0, 2.0)).weights,
        "fastest_weights",
    ),
    "equal_time_weights": (
        lambda: theory.equal_time_weights(TYPES, SHARES, 0.5, "hinge").weights,
        lambda: theory.equal_time_weights(TYPES, SHARES, "hinge", logit=0.5).weights,
        "equal_time_weights",
    ),
    "depth_mode": (
        lambda: theory.depth_mode(0.5, 1.0, weights=[0.1, 0.2], loss="hinge").time_to_logit(1.0),
        lambda: theory.depth_mode(0.5, 1.0, [0.1, 0.2], "hinge").time_to_logit(1.0),
        r"use depth_mode\(\.\.\., layers\)",
    ),
    "softmax_mode": (
        lambda: theory.softmax_mode(3, 0.5, 1.0, [0.1], zeta=[0.2]).gap(1.0),
        lambda: theory.softmax_mode(0.5, 1.0, [0.1], [0.2], classes=3).gap(1.0),
        r"softmax_mode\(frequency, norm, a, z, \*, classes, start\)",
    ),
    "exclusive": (
        lambda: gs.exclusive(network(), DATA, jax.random.key(1)).w,
        lambda: gs.exclusive(DATA, network(), 1).w,
        r"exclusive\(data, network, key\)",
    ),
    "antipodal": (
        lambda: gs.datasets.antipodal(3, (1.0, 2.0), (0.3, 0.7)).points,
        lambda: gs.datasets.antipodal(3, frequencies=(0.3, 0.7), norms=(1.0, 2.0)).points,
        r"antipodal\(dim, \*, frequencies, norms, key\)",
    ),
    "orthogonal_classes": (
        lambda: gs.datasets.orthogonal_classes(2, 1.5, (0.3, 0.7)).weights,
        lambda: gs.datasets.orthogonal_classes(2, frequencies=(0.3, 0.7), norm=1.5).weights,
        "orthogonal_classes",
    ),
    "cones": (
        lambda: gs.datasets.cones(jax.random.key(2), 3, 5, 0.4).points,
        lambda: gs.datasets.cones(2, 3, points_per_class=5, opening=0.4).points,
        "cones",
    ),
    "digits": (
        lambda: gs.datasets.digits((3, 8), seed=4).train.points[:5],
        lambda: gs.datasets.digits((3, 8), key=4).train.points[:5],
        r"digits\(\.\.\., key\)",
    ),
    "simulate": (
        lambda: simulate(DATA, network(), "hinge", gs.GradientDescent(0.1), 20, 10).recorded,
        lambda: simulate(DATA, network(), "hinge", gs.GradientDescent(0.1), 20, record_every=10).recorded,
        r"simulate\(data, network, loss, dynamics, steps, \*, record_every, key",
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_old_call_works_and_names_the_new_one(name):
    old, new, words = CALLS[name]
    with pytest.warns(DeprecationWarning, match=words) as caught:
        found = old()
    assert {warning.filename for warning in caught} == {__file__}  # where the call stands, not inside the library
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wanted = new()
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_what_is_no_call_of_the_old_kind_is_an_error_of_the_function():
    for wrong in (
        lambda: theory.error_tail(1.0),
        lambda: theory.error_tail(0.5, 1.0, "hinge", 1e6, 2, True, 3),
        lambda: theory.depth_mode(0.5, 1.0, layers=[0.1], weights=[0.1]),
    ):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: theory.softmax_mode(0.8, 1.0, [0.1], [0.1]), "classes"),
        (lambda: theory.wrong_sign_fraction(0.5, 1.2, "hinge"), "t"),
        (lambda: theory.wrong_sign_time(0.5, 1.2, "hinge"), "fraction"),
        (lambda: theory.minimax_tail(0.5, 1.2), "t"),
    ],
)
def test_a_keyword_that_is_missing_is_not_an_old_call(call, missing):
    with pytest.raises(TypeError, match=rf"(missing|required).*{missing}"):
        call()


def test_a_function_with_old_names_shows_its_new_signature():
    import inspect

    assert list(inspect.signature(theory.error_tail).parameters) == ["frequency", "norm", "loss", "t", "depth", "leading"]

    @deprecated("loss", "t")
    def law(t, loss):
        return t, loss

    with pytest.warns(DeprecationWarning, match=r"law\(loss, t\) is deprecated .* use law\(t, loss\)"):
        assert law("hinge", 2.0) == (2.0, "hinge")
    assert law(2.0, "hinge") == (2.0, "hinge")


def test_randomness_takes_a_key_or_an_integer():
    for make in (
        lambda key: gs.init_two_layer(key, 2, 3, 2).w,
        lambda key: gs.init_deep(key, 2, (3,), 2).layers,
        lambda key: gs.init_softmax(key, 2, 3, 2, 2).w,
        lambda key: gs.datasets.cones(key).points,
        lambda key: gs.datasets.orthogonal(3, key=key).points,
        lambda key: gs.datasets.features(TYPES, SHARES, dim=3, key=key).points,
        lambda key: gs.exclusive(DATA, network(), key).w,
        lambda key: (
            simulate(DATA, network(), "hinge", gs.StochasticGradientDescent(0.1), 20, record_every=10, key=key).recorded
        ),
    ):
        jax.tree.map(np.testing.assert_array_equal, make(7), make(jax.random.key(7)))
    first, second = (gs.datasets.digits(key=key).train.points for key in (jax.random.key(7), jax.random.PRNGKey(7)))
    np.testing.assert_array_equal(first, second)


def test_old_names_of_the_catalogue():
    from gradstarve import problem, theorems
    from gradstarve.theorems import Row

    for old, new in (("Tally", "TrialLog"), ("Start", "ExclusiveInit")):
        with pytest.warns(DeprecationWarning, match=f"use gradstarve.theorems.{new}"):
            assert getattr(theorems, old) is getattr(theorems, new)
    with pytest.raises(AttributeError, match="no attribute 'Telly'"):
        _ = theorems.Telly
    row = Row.__new__(Row)
    object.__setattr__(row, "hypothesis_violations", ("a hypothesis",))
    with pytest.warns(DeprecationWarning, match="hypothesis_violations"):
        assert row.strays == ("a hypothesis",)
    with pytest.warns(DeprecationWarning, match=r"use loss\.clock"):
        assert problem.closed_form_of(gs.Hinge()) == "hinge"
