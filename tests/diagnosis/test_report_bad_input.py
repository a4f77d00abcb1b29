"""Every wrong argument gets a ValueError that names what came and what to do."""

import jax.numpy as jnp
import numpy as np
import pytest
from public_calls import Broken

import gradstarve as gs

N = 16
X = np.random.default_rng(0).normal(size=(N, 3)).astype("float32")
Y = np.repeat([1.0, -1.0], N // 2)
W = np.zeros(3, "float32")
MODEL = lambda w, x: x @ w  # noqa: E731
HALF = np.arange(N) % 2
LOGITS = np.outer([0.1, 1.0, 3.0], Y)
UNEVEN = [0.3] + [0.7 / (N - 1)] * (N - 1)


def report(apply=MODEL, params=W, data=(X, Y), groups=None, **options):
    return gs.starvation_report(apply, params, data, groups, features=0, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"apply": lambda w, x: jnp.stack([x @ w] * 3, 1)}, r"labels are \+1 and -1, but the model has 3 outputs"),
        ({"apply": lambda w, x: jnp.sum(x @ w)}, r"one logit a sample"),
        ({"apply": 3}, "model must be a torch.nn.Module, an equinox or flax model, or \\(apply, params\\), got tuple"),
        ({"apply": MODEL, "params": None}, "the model holds no parameters itself; give \\(apply, params\\)"),
        ({"apply": lambda w, x: jnp.sqrt(x @ w)}, r"gradient of the margin of sample 0 is not finite"),
        ({"apply": lambda w, x: (x @ w) / 0.0}, r"the model gives nan for sample 0"),
        ({"apply": lambda w, x: 0.0 * (x @ w)}, "Jacobian is 0 on all samples"),
        ({"data": (1e25 * X, Y)}, "products of rows of the Jacobian are beyond the floats"),
        ({"apply": lambda w, x: x @ w + jnp.arange(len(x)) * len(x)}, "alone and .* in a batch"),
        ({"data": (X, np.ones(N))}, r"all 16 labels are \+1: a single class"),
        ({"data": (X, Y > 0)}, r"got booleans; turn them into \+1 and -1 by 2 \* y - 1"),
        ({"data": (X, np.arange(N))}, r"labels must be \+1 or -1 \(or 0 and 1\) .* got 2 at sample 2; for K classes"),
        ({"data": (X, np.array(["a"] * N))}, "labels must be the numbers"),
        ({"data": (X, Y[::4])}, "x has 16 samples and y 4 labels"),
        ({"data": (X, np.stack([Y, Y], 1))}, r"labels must be \[n\], got shape \(16, 2\)"),
        ({"data": X}, r"pair \(x, y\) .* got ndarray"),
        ({"data": (X, Y, Y, Y)}, "got tuple of 4"),
        ({"data": (np.full_like(X, np.nan), Y)}, r"x\[0, 0\] = nan is not finite"),
        ({"data": (np.array(["a"] * N), Y)}, "x must be an array of numbers"),
        ({"data": gs.Dataset(X.tolist(), Y.tolist(), UNEVEN)}, "every sample counts once here"),
        ({"memory": 100}, "memory = 100 bytes is too little"),
        ({"until_error": 0.6}, "until_error must be a number between 0 and 0.5, got 0.6"),
        ({"penalty": -1.0}, r"penalty must be a number > 0, got -1.0"),
        ({"permutations": 5}, "permutations must be an integer >= 99, got 5"),
        ({"times": [-1.0, 2.0]}, "times must be >= 0"),
        ({"times": [np.inf]}, r"times\[0\] = inf"),
        ({"data": (X.astype(np.float16), Y)}, r"x has dtype float16; use float32 or float64"),
        ({"data": (jnp.asarray(X, jnp.bfloat16), Y)}, r"x has dtype bfloat16; use float32 or float64"),
        ({"data": (X, jnp.asarray(Y, jnp.bfloat16))}, r"labels has dtype bfloat16; use float32"),
        ({"params": jnp.asarray(W, jnp.bfloat16)}, r"bfloat16; use float32"),
        ({"groups": HALF[:7]}, "groups must name 16 samples, one each, got 7"),
        ({"groups": {"a": HALF[:7]}}, r"group 'a' must say for each of the 16 samples .* \(7,\)"),
        ({"groups": {"a": HALF + 1}}, "group 'a' must hold 0 and 1 .* got 2"),
        ({"groups": {"a": np.zeros(N)}}, "group 'a' has no sample"),
        ({"groups": {"a": np.arange(N) == 3}}, "group 'a' has 1 sample, of which no mean can be told from chance"),
        ({"groups": {}}, "groups is empty"),
        ({"groups": np.zeros((N, 0))}, r"groups is \[n, 0\]"),
        ({"groups": np.zeros((N, 2, 2))}, r"groups must be \[n\] types .* \(16, 2, 2\)"),
        ({"groups": ["same"] * N}, "all samples are of one type, 'same'"),
        ({"groups": np.arange(N)}, "group '0' has 1 sample"),
        ({"groups": np.where(HALF, 1.0, np.nan)}, r"groups\[0\] = nan is no sample type"),
        ({"groups": [None, *["a"] * (N - 1)]}, r"groups\[0\] = None is no sample type"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_report_refuses(options, words):
    with pytest.raises(ValueError, match=words):
        report(**options)


def test_parameters_that_have_learnt_the_data():
    x = Y[:, None].astype("float32")
    with pytest.raises(ValueError, match=r"mean error is .* below until_error = 0.05: the network has learnt"):
        report(params=np.array([9.0], "float32"), data=(x, Y))


def test_the_attribute_is_one_value_each():
    for attribute, words in (
        ({"a": HALF}, "attribute must be one value a sample"),
        (np.zeros((N, 2)), r"attribute must be one value a sample, \[n\], got shape \(16, 2\)"),
        ("a", "names an array of an .npz file"),
    ):
        with pytest.raises(ValueError, match=words):
            report(attribute=attribute)
    with pytest.raises(ValueError, match="groups and attribute are both given"):
        report(groups=HALF, attribute=HALF)
    assert [law.name for law in report(attribute=HALF > 0, permutations=99).groups] == ["attribute"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"jacobian": X[:, 0]}, r"jacobian must be numbers \[n, P\]"),
        ({"jacobian": jnp.asarray(X, jnp.bfloat16)}, "jacobian has dtype bfloat16; use float32"),
        ({"jacobian": np.full_like(X, np.inf)}, r"jacobian\[0, 0\] = inf"),
        ({"jacobian": 1e200 * X.astype(float)}, r"jacobian has entries up to .*e\+200, whose squares are no floats"),
        ({"labels": Y[:3]}, r"labels must be \[n\] = \[16\]"),
        ({"logits": np.zeros(3)}, r"logits must be \[n\] = \[16\]"),
        ({"logits": np.full(N, np.nan)}, r"logits\[0\] = nan"),
    ],
)
def test_jacobians_are_checked(change, words):
    with pytest.raises(ValueError, match=words):
        gs.starvation_report.from_jacobian(**({"jacobian": X, "labels": Y} | change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"margins": np.zeros(5)}, r"margins must be \[T, n\]"),
        ({"margins": np.full((3, N), np.nan)}, r"margins\[0, 0\] = nan"),
        ({"times": [0, 1]}, "times must rise, one for each of the T = 3"),
        ({"times": [0, 2, 1]}, "times must rise"),
        ({"alone": np.zeros((2, N))}, r"alone must be the same samples .* \(3, 16\), got \(2, 16\)"),
        ({"groups": HALF[:4]}, "groups must name 16 samples"),
        ({"labels": np.zeros(N)}, r"labels must be \+1 or -1"),
        ({"until_error": 0}, "until_error must be"),
        ({"labels": None}, r"labels are needed, ±1 \[n\]: .*labels=np.ones\(n\)"),
        ({"margins": LOGITS, "labels": Y}, r"margins look like logits f .* 100 % of class -1 end.* labels \* margins"),
        ({"margins": 1 / (1 + np.exp(-LOGITS))}, r"margins lie between .* as probabilities do; .* log\(p / \(1 - p\)\)"),
        ({"alone": LOGITS, "labels": Y}, "alone look like logits"),
        ({"margins": np.zeros((3, N), np.float16)}, "margins has dtype float16; use float32"),
    ],
)
def test_margins_are_checked(change, words):
    good = {"margins": np.zeros((3, N)), "times": [0, 1, 2], "groups": HALF, "labels": np.ones(N)}
    with pytest.raises(ValueError, match=words):
        gs.starvation_report.from_margins(**(good | change))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "trained", [iter([0.5]), Broken(), {"w": W}, np.zeros(5)], ids=["generator", "broken", "dict", "array"]
)
def test_what_is_neither_parameters_nor_margins_is_refused(trained):
    with pytest.raises(ValueError, match=r"trained must be parameters like those .*, or margins y f of shape \(16,\), got"):
        report(groups={"half": HALF}, permutations=99).after_training(trained)
