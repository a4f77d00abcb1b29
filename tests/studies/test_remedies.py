"""Remedies side by side: against training and testing in plain NumPy, and what the study says of its default tables."""

import json

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import gradstarve as gs
from gradstarve.cli import main as cli
from gradstarve.cli import studies as cli_studies
from gradstarve.ground import files
from gradstarve.studies.remedies import Remedy, list_remedies, remedy_study

TYPES, P = np.array([[1.0, 0], [1, 1], [0, 1]]), np.array([0.75, 0.2, 0.05])
PAIR, OFTEN = TYPES[:2], (0.8, 0.2)


def by_hand(start, shown, weights, penalties, steps, eta):
    """Descent of one network on the samples `shown` [S, K], label 1, and their opposites: v_k, and the network."""
    x, y = np.concatenate([shown, -shown]), np.repeat([1.0, -1.0], len(shown))
    q, k = np.tile(weights, 2) / 2, np.tile(penalties, 2)
    w, z = (np.array(leaf, np.float64) for leaf in (start.w, start.z))
    for _ in range(steps):
        pre = x @ w.T
        hidden = np.maximum(pre, 0)
        margin = y * (hidden @ z)
        push = q * y * (1 / (1 + np.exp(margin)) - k * margin)
        w, z = w + eta * ((push[:, None] * (pre > 0) * z).T @ x), z + eta * (push @ hidden)
    eye = np.eye(shown.shape[1])
    return (np.maximum(eye @ w.T, 0) @ z - np.maximum(-eye @ w.T, 0) @ z) / 2, (w, z)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_is_measured_is_what_training_by_hand_gives():
    rest = Remedy("held back, the rest even", penalty=0.3, types=(0,), factors=(0.5, 1.0, 0.0))
    settings = {"remedies": [rest], "networks": 3, "width": 4, "steps": 100, "step_size": 0.5, "init": 0.3, "key": 5}
    study = remedy_study(TYPES, P, **settings)
    outcome = study.outcomes[0]
    weights = P * rest.factors / (P @ rest.factors)
    starts = gs.init_two_layer(jax.random.key(5), 3, 4, 2, 0.3, 0.3)
    draws = 0.5 * np.asarray(jax.random.normal(jax.random.fold_in(jax.random.key(5), 1), (1000, 2)))
    logits, alone, right, costs = [], [], [], []
    for b in range(3):
        arguments = (starts[b], TYPES, weights, [0.3, 0, 0])
        v, (w, z) = by_hand(*arguments, 100, 0.5)
        logits.append(v)
        alone.append([by_hand(starts[b], TYPES * np.eye(2)[k], *arguments[2:], 100, 0.5)[0][k] for k in range(2)])
        right.append([])
        for point in (*np.eye(2), *TYPES):
            noisy = np.concatenate([point + draws, -point - draws])
            right[-1].append(np.mean(np.maximum(noisy @ w.T, 0) @ z * np.repeat([1, -1], 1000) > 0))
        losses = []
        for step in range(60):
            w, z = by_hand(*arguments, step, 0.5)[1]
            margins = np.concatenate([s * (np.maximum(s * TYPES @ w.T, 0) @ z) for s in (1, -1)])
            losses.append(np.logaddexp(0, -margins) @ np.tile(P, 2) / 2)
        costs.append(np.argmax(np.array(losses) <= 0.6) if min(losses) <= 0.6 else np.inf)
    index, right = 1 - np.array(logits) / alone, np.array(right)
    for found, values in (
        (outcome.logits, logits),
        (outcome.index, index),
        (outcome.accuracy, right[:, :2]),
        (outcome.overall, right[:, 2:] @ P),
    ):
        np.testing.assert_allclose(np.stack(found), np.quantile(values, (0.1, 0.5, 0.9), axis=0), rtol=1e-9, atol=1e-12)
    assert outcome.cost[0] == np.median(costs)
    assert outcome.steps == 100
    # The law beside it: one layer, which a read-out follows up to its steps.
    assert outcome.law_gap < 0.02
    # What was stored is computed again, and the table and figure are made of it.
    again = json.loads(json.dumps(files.to_jsonable(study.settings)))
    assert Remedy.of(again["remedies"][0]) == rest
    assert "held back" in study.table()
    assert len(study.plot().axes) == 3
    assert json.dumps(files.to_jsonable(study.to_dict()))


@pytest.mark.usefixtures("x64")
def test_the_list_follows_the_table():
    names = [remedy.name for remedy in list_remedies(TYPES, P)]
    assert names[0] == "nothing"
    assert {"weights: equal speeds", "weights: fastest", "penalty 0.1 on samples without 2"} <= set(names)
    assert len(set(names)) == len(names)
    held = next(r for r in list_remedies(TYPES, P) if r.types)
    assert held.types == (0,)
    assert held.loss_for([2, 0, 1]).penalty.tolist() == [0, 0.01, 0]
    # Feature 2 is never faster than 1: no weights make them equal. Where every sample shows it there is no "without".
    weak = [remedy.name for remedy in list_remedies(PAIR, OFTEN, scales=(1, 0.5))]
    assert [name for name in weak if "weights" in name] == ["weights: fastest"]
    assert not any("without" in remedy.name for remedy in list_remedies([[1, 1]], [1.0], scales=(1, 0.5)))
    weighted = Remedy("some", factors=(1.0, 0.0, 2.0)).weights_for([0, 1, 2], P)
    np.testing.assert_allclose(weighted, [0.75 / 0.85, 0, 0.1 / 0.85])


@pytest.mark.usefixtures("x64")
def test_bad_input_names_what_came():
    for settings, message in (
        ({"networks": 1}, "networks must be an integer >= 2, got 1"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"noise": 0.0}, r"noise must be > 0, got 0\.0"),
        ({"loss_levels": 0.5}, r"loss_levels must be one number or more, got 0\.5"),
        ({"remedies": []}, "remedies must be at least one"),
        ({"remedies": [Remedy("a"), Remedy("a")]}, "each of its own name"),
        ({"types": [[1, 0]]}, "feature 1 is empty"),
        ({"probabilities": (0.5, 0.2, 0.2)}, "weights must sum to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            remedy_study(**({"remedies": [Remedy("nothing")]} | settings))


def test_the_command_adds_the_remedies_when_asked(monkeypatch, tmp_path):
    asked = []

    class Study:
        """Stands for either study."""

        def __init__(self, settings):
            self.settings = settings
            asked.append(settings)

        def plot(self, path):
            path.write_bytes(b"")

        def conclusion(self):
            return "A conclusion"

        def table(self):
            return "a table"

        def notes(self):
            return "notes"

        def to_dict(self):
            return {"outcomes": [1]}

    for name in ("run_starve", "run_remedies"):
        monkeypatch.setattr(cli_studies, name, Study)
    monkeypatch.setattr(cli_studies, "use_float64", lambda: None)
    arguments = ["starve", "--types", "1,0/1,1/0,1", "--probabilities", "0.5,0.3,0.2", "--networks", "7"]
    arguments += ["--out", str(tmp_path)]
    assert "remedies.png" not in CliRunner().invoke(cli.app, arguments).output
    result = CliRunner().invoke(cli.app, [*arguments, "--remedies", "--seed", "3"])
    assert result.exit_code == 0
    assert result.output.count("a table") == 2
    wanted = {"types": [[1, 0], [1, 1], [0, 1]], "probabilities": [0.5, 0.3, 0.2], "networks": 7, "width": 16, "key": 3}
    assert asked[-1] == wanted | {"scales": [1.0, 1.0]}
    stored = json.loads((tmp_path / "starve.json").read_text())["remedies"]
    assert stored["settings"] == asked[-1]
    assert stored["outcomes"] == [1]
    assert {path.name for path in tmp_path.iterdir()} == {"starve.png", "remedies.png", "starve.json"}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_the_study_says_of_its_tables():
    studies = {"pair": remedy_study(PAIR, OFTEN), "shortcut": remedy_study(TYPES, P)}
    right = {}
    for name, study in studies.items():
        print(f"\n{name}\n{study.table()}\n{study.notes()}")
        right[name] = {o.remedy.name: np.append(o.accuracy.median, o.overall.median) for o in study.outcomes}
        index = {o.remedy.name: o.index.median[1] for o in study.outcomes}
        for o in study.outcomes:
            # One layer's law tells how ordinary networks starve, within 0.2, but where the weights have hardly grown.
            if o.law_index is not None and o.remedy.stop_loss is None and o.remedy.scaling != "multiplied":
                assert np.abs(o.law_index - o.index.median).max() < 0.2
        # At the same time the step size makes no difference.
        assert abs(index["step size ÷ 4"] - index["step size × 4"]) < 0.01
        none = right[name]["nothing"]
        assert (right[name]["weights: equal speeds"][:2] > 0.9).all()
        assert right[name]["weights: equal speeds"][2] < none[2]
        assert right[name]["penalty 0.01 on samples without 2"][1] > none[1] + 0.08
        assert right[name]["penalty 0.1 on samples without 2"][0] < none[0] - 0.1
        for uniform in ("penalty 0.1 added", "penalty 2 added", "penalty 2 divided", "penalty 0.1 multiplied"):
            assert right[name][uniform][1] < none[1]
        for idle in ("weight decay 0.001", "weight decay 0.01", "weight decay 0.05", "early stopping"):
            assert right[name][idle][1] < none[1] + 0.04
        ends = [study.outcome(f"penalty 2 {how}").logits.median for how in ("added", "divided")]
        np.testing.assert_allclose(*ends, atol=1e-3)
        slower = study.outcome("penalty 2 divided").cost[0] / study.outcome("penalty 2 added").cost[0]
        assert slower == pytest.approx(2, abs=0.1)
    # On the ring, with a type for every feature, equal margins are equal logits, and the penalty does what it was made for.
    ring = [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    chosen = [Remedy("nothing"), Remedy("penalty", penalty=0.1), list_remedies(ring, (0.6, 0.3, 0.1))[-1]]
    found = [o.accuracy.median for o in remedy_study(ring, (0.6, 0.3, 0.1), remedies=chosen).outcomes]
    assert found[0].min() < 0.82
    assert found[1].min() > 0.86
    assert found[2].min() > 0.86
    assert right["shortcut"]["hinge loss"][1] > right["shortcut"]["nothing"][1] + 0.03
    assert abs(right["pair"]["hinge loss"][1] - right["pair"]["nothing"][1]) < 0.05
