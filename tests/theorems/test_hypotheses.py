"""Predicates of hypotheses on hand-made problems, and instances read back."""

import dataclasses

import jax
import numpy as np
import pytest

from gradstarve.problem import DeepReLU, Hinge, SoftmaxTwoLayer, clock_of, datasets, init_softmax
from gradstarve.theorems import CATALOGUE, Problem, record, verify
from gradstarve.theorems import _entry as entry
from gradstarve.theorems._entry import plain
from gradstarve.theorems.laws.own_loss import SmoothHinge

ACROSS = {"points": [[2.0, 0.0], [0.0, 1.0]], "labels": [1, -1], "weights": [0.5, 0.5]}
OPPOSITE = {"points": [[2.0, 0.0], [-1.0, 0.0]], "labels": [1, -1], "weights": [0.5, 0.5]}
ACUTE = {"points": [[2.0, 0.0], [1.0, 1.0]], "labels": [1, -1], "weights": [0.5, 0.5]}
UNEVEN = {"points": [[2.0, 0.0], [1.0, 0.0]], "labels": [1, 1], "weights": [0.5, 0.5]}
HOME = {"w": [[1.0, -1.0], [-1.0, 0.5]], "z": [0.5, -0.5]}


def problem(data=ACROSS, weights=HOME, loss="hinge"):
    return Problem.read({"loss": loss, **data, **weights})


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("SEPARABLE", [problem(), problem(OPPOSITE)], [problem(ACUTE)]),
        ("ORTHOGONAL", [problem()], [problem(OPPOSITE), problem(ACUTE)]),
        ("ANTIPODAL", [problem(OPPOSITE)], [problem()]),
        ("ONE_RAY", [problem(), problem(OPPOSITE)], [problem(UNEVEN)]),
        ("EXCLUSIVE", [problem()], [problem(weights={"w": [[1.0, 1.0]], "z": [1.0]})]),
        ("STAYING", [problem()], [problem(weights={"w": [[1.0, -1.0]], "z": [-1.1]})]),
        ("RIGHT_SIGN", [problem()], [problem(weights={"w": [[1.0, -1.0]], "z": [-0.1]})]),
        ("BALANCED", [problem(weights={"w": [[1.0, -1.0], [-1.0, 0.5]], "z": [1.0, -0.5]})], [problem()]),
        ("OFF_MANIFOLD", [problem()], [problem(weights={"w": [[1.0, -1.0]], "z": [-1.0]})]),
        ("BELOW_ONE", [problem(), problem(loss="squared", weights={"w": [[0.5, 0.0]], "z": [1.0]})], [
            problem(loss="squared", weights={"w": [[0.6, 0.0]], "z": [1.0]})
        ]),
        ("NEVER_STOPS", [problem(loss="exponential")], [problem()]),
    ],
)  # fmt: skip
def test_predicates_tell_right_from_wrong(name, good, bad):
    hypothesis = getattr(entry, name)
    assert all(hypothesis.holds(p) for p in good)
    assert not any(hypothesis.holds(p) for p in bad)
    assert str(hypothesis) == hypothesis.statement


def test_instances_are_read_back_also_from_json():
    deep = DeepReLU.paths(np.ones((1, 3, 2), np.float32), [0, 1], 2)
    wide = init_softmax(jax.random.key(0), 1, 3, 2, 2)
    for data, network in ((datasets.orthogonal(), deep), (datasets.orthogonal_classes(2), wide)):
        back = Problem.read(plain(record(data, "cross-entropy", network, 0)))
        np.testing.assert_allclose(back.network(back.data.points), network(data.points)[0], rtol=1e-6)
        assert type(back.data) is type(data)
    assert isinstance(back.network, SoftmaxTwoLayer)
    assert Problem.read({"ratio": 3.0}) is None


def test_a_sampler_that_leaves_the_hypotheses_is_told(monkeypatch):
    theorem = CATALOGUE["sign"]
    changed = dataclasses.replace(theorem, hypotheses=(entry.ANTIPODAL, "and more"), necessity=())
    monkeypatch.setitem(CATALOGUE, "sign", changed)
    report = verify("sign", quick=True, progress=False)
    assert not report.ok
    assert report.rows[0].hypothesis_violations == ("antipodal classes",)
    assert "antipodal classes" in report.failures()


def test_every_entry_keeps_to_its_hypotheses():
    """Those that a problem can tell: half of the entries have some."""
    telling = [t for t in CATALOGUE.values() if any(isinstance(h, entry.Hypothesis) for h in t.hypotheses)]
    assert 2 * len(telling) >= len(CATALOGUE)


def test_a_loss_of_ones_own_is_held_in_memory_and_written_by_its_numbers():
    loss = SmoothHinge(0.5)
    instance = {"loss": loss, **ACROSS, **HOME}
    held = Problem.read(instance)
    assert held.loss is loss
    assert held.clock == clock_of(loss)
    assert entry.BELOW_ONE.holds(held)
    assert not entry.of_losses("hinge", "hinge").holds(held)
    assert plain(instance)["loss"] == {"name": "SmoothHinge", "width": 0.5}
    assert Problem.read(plain(instance)) is None
    assert entry.of_losses("hinge", "hinge").holds(problem(loss=Hinge()))
