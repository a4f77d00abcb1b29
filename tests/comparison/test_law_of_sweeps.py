"""The law beside a sweep, against the networks of the sweep trained again."""

import numpy as np

import gradstarve as gs
from gradstarve.comparison import law_of_sweep


def test_the_law_is_what_the_same_networks_learn(x64):
    data = gs.datasets.antipodal(dim=3, frequencies=(0.7, 0.3), key=0)
    over = {"loss": ["cross-entropy", "hinge"]}
    result = gs.sweep(data, 6, steps=40, record_every=10, width=2, over=over, key=1, progress=False)
    law = law_of_sweep(result, [0, 1], networks=4)
    for place, loss in enumerate(("cross-entropy", "hinge")):
        run = result.trajectory([0, 1, 2, 3], loss=loss)
        margins = np.asarray(run.recorded) * np.asarray(data.labels)
        trained = (1 / (1 + np.exp(margins))) @ np.asarray(data.weights)
        np.testing.assert_allclose(law[place], trained, atol=1e-12)
    left, right = result.plot(configurations=[0, 1], law=law).axes
    marks = [line for line in left.lines if line.get_marker() == "o"]
    assert len(marks) == len([line for line in right.lines if line.get_marker() == "o"]) == 2
    np.testing.assert_allclose(marks[0].get_ydata(), np.median(law[0], axis=0), rtol=1e-12)


def test_where_theory_has_no_law_there_is_none(x64):
    data = gs.datasets.orthogonal(dim=3, key=0)  # neurons of both classes
    result = gs.sweep(data, 4, steps=4, record_every=2, width=3, key=1, progress=False)
    assert np.isnan(law_of_sweep(result, [0])).all()
    left = result.plot(law=law_of_sweep(result, [0])).axes[0]
    assert not [line for line in left.lines if line.get_marker() == "o"]
