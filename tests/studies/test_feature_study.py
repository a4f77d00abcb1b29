"""Laws of features that share samples, curves and starvation index, against training of whole networks on random tables."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gradstarve.problem import Dataset, DeepReLU
from gradstarve.simulation import simulate_flow
from gradstarve.theorems import LOSS_NAMES, AnyLoss
from gradstarve.theory import feature_flow

LOSSES = ("cross-entropy", "hinge", "exponential")
RECORDS = np.array([0.3, 1.0, 3.0, 10.0, 30.0, 100.0])


def random_table(rng, features, types):
    """Types [S, K] of any density, probabilities, scales from 0.3 to 3."""
    table = (rng.random((types, features)) < rng.uniform(0.2, 0.8)).astype(float)
    for s in np.flatnonzero(table.sum(1) == 0):
        table[s, rng.integers(features)] = 1
    for k in np.flatnonzero(table.sum(0) == 0):
        table[rng.integers(types), k] = 1
    return table, rng.dirichlet(np.ones(types)) * 0.9 + 0.1 / types, np.exp(rng.uniform(np.log(0.3), np.log(3), features))


def random_start(rng, features, depth):
    """v_k(0): one layer from zero or, every other time, up to 0.2; paths log-uniform from 0.02 to 0.3."""
    if depth == 1:
        return rng.random(features) * 0.2 * rng.integers(2)
    return np.exp(rng.uniform(np.log(0.02), np.log(0.3), features))


def gaps(trained, trained_alone, law, law_alone):
    """Of the curves, over the largest logit; of the index, over the largest of 1 and itself."""
    curves = max(np.abs(trained - law).max(), np.abs(trained_alone - law_alone).max()) / np.abs(law_alone).max()
    index, by_law = 1 - trained / trained_alone, 1 - law / law_alone
    return curves, (np.abs(index - by_law) / np.maximum(1, np.abs(by_law))).max()


# --- a handful, in NumPy and SciPy, on all weights -------------------------------------------------------------------

RESIDUALS = {"cross-entropy": lambda m: 1 / (1 + np.exp(m)), "exponential": lambda m: np.exp(-m)}


def plain_training(points, probabilities, shown, loss, layers):
    """v_k at RECORDS [R, K] by the chain rule written out: a read-out `layers` [1, d], or paths b [N, K] along the axes."""
    if loss == "hinge":
        return np.array([shown @ w for w in hinge_read_outs(points, probabilities, layers[0])])
    depth = len(layers)

    def slope(_, state):
        b = state.reshape(layers.shape)
        product = b.prod(0)  # of each path, or the read-out itself
        push = (probabilities * RESIDUALS[loss](points @ product)) @ points
        return (push * np.array([np.delete(b, n, axis=0).prod(0) for n in range(depth)])).ravel()

    run = solve_ivp(slope, (0, RECORDS[-1]), layers.ravel(), "DOP853", t_eval=RECORDS, rtol=1e-12, atol=1e-14)
    return np.array([shown @ state.reshape(layers.shape).prod(0) for state in run.y.T])


def hinge_read_outs(points, probabilities, w):
    """The weights of one layer at RECORDS: straight lines from one margin that is reached to the next."""
    now, kept = 0.0, []
    for record in RECORDS:
        while now < record:
            margins = points @ w
            push = (probabilities * (margins < 1 - 1e-12)) @ points
            rates = points @ push
            reaches = (margins < 1 - 1e-12) & (rates > 0)
            step = min([record - now, *((1 - margins) / np.where(reaches, rates, 1))[reaches]])
            now, w = (record if step == record - now else now + step), w + step * push
        kept.append(w)
    return kept


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("depth", "loss"), [(1, "exponential"), (2, "cross-entropy"), (3, "cross-entropy"), (1, "hinge")])
def test_random_tables_follow_their_laws(depth, loss):
    rng = np.random.default_rng(depth)
    for _ in range(5):
        types, probabilities, scales = random_table(rng, 3, 4)
        start = random_start(rng, 3, depth)
        if depth == 1:  # a read-out of all coordinates, in a random frame
            shown = scales[:, None] * np.linalg.qr(rng.normal(size=(3, 3)))[0]
            layers = ((start / scales**2) @ shown)[None]
        else:
            shown = np.diag(scales)
            layers = np.tile((start / scales) ** (1 / depth), (depth, 1))
        train = partial(plain_training, probabilities=probabilities, shown=shown, loss=loss, layers=layers)
        trained = train(types @ shown)
        alone = np.stack([train(np.outer(types[:, k], shown[k]))[:, k] for k in range(3)], axis=-1)
        flow = feature_flow(types, probabilities, loss, depth=depth, scales=scales, init=start)
        law, law_alone = np.asarray(flow.features(RECORDS)), np.asarray(flow.alone(RECORDS))
        curves, index = gaps(trained, alone, law, law_alone)
        assert curves < 1e-10
        assert index < 1e-9
        np.testing.assert_allclose(flow.index(RECORDS), 1 - law / law_alone, atol=1e-13)


# --- five hundred, by the simulator ----------------------------------------------------------------------------------


@jax.jit
def _train(points, probabilities, which, network, shown):
    def one(points, probabilities, which, network, shown):
        data = Dataset(points, np.ones(points.shape[0]), probabilities)
        options = {"rtol": 1e-12, "max_steps": 50_000, "progress": False, "throw": False, "record_networks": True}
        return simulate_flow(data, network, AnyLoss(which), RECORDS, **options).networks(shown)

    return jax.vmap(one)(points, probabilities, which, network, shown)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_five_hundred_random_tables(capsys):
    """K from 1 to 6, S from 1 to 8, three losses, one to three layers: 504 tables, the worst and the median gap printed."""
    rng = np.random.default_rng(0)
    found = {loss: [] for loss in LOSSES}
    for features, kinds in ((1, 1), (2, 2), (3, 6), (4, 8), (5, 4), (6, 7)):
        for depth in (1, 2, 3):
            tables = [(*random_table(rng, features, kinds), random_start(rng, features, depth)) for _ in range(28)]
            losses = [LOSSES[i % 3] for i in range(28)]
            points, weights, which, layers, probes = [], [], [], [], []
            for (types, probabilities, scales, start), loss in zip(tables, losses, strict=True):
                frame = np.linalg.qr(rng.normal(size=(features, features)))[0] if depth == 1 else np.eye(features)
                shown = scales[:, None] * frame
                own = (start / scales) @ frame if depth == 1 else np.tile((start / scales) ** (1 / depth), (depth, 1))
                for only in (None, *range(features)):
                    kept = types if only is None else types * np.eye(features)[only]
                    points.append(kept @ shown)
                    weights.append(probabilities)
                    which.append(LOSS_NAMES.index(loss))
                    layers.append(own.reshape(depth, -1))
                    probes.append(shown)
            network = DeepReLU.paths(np.array(layers), list(range(features)), features)
            arrays = (jnp.asarray(np.array(value)) for value in (points, weights, which))
            trained = np.asarray(_train(*arrays, network, jnp.asarray(np.array(probes))))
            trained = trained.reshape(28, 1 + features, len(RECORDS), features)
            assert np.isfinite(trained).all()
            for (types, probabilities, scales, start), loss, logits in zip(tables, losses, trained, strict=True):
                flow = feature_flow(types, probabilities, loss, depth=depth, scales=scales, init=start)
                alone = np.stack([logits[1 + k, :, k] for k in range(features)], axis=-1)
                law, law_alone = np.asarray(flow.features(RECORDS)), np.asarray(flow.alone(RECORDS))
                found[loss].append(gaps(logits[0], alone, law, law_alone))
    assert sum(map(len, found.values())) == 504
    with capsys.disabled():
        for loss, values in found.items():
            worst, middle = np.max(values, axis=0), np.median(values, axis=0)
            print(f"\n{loss}, {len(values)} tables, worst and median gap: curves {worst[0]:.1e}, {middle[0]:.1e};", end="")
            print(f" index {worst[1]:.1e}, {middle[1]:.1e}", end="")
    for loss, values in found.items():
        assert np.max(values) < (1e-9 if loss == "hinge" else 1e-11), loss
