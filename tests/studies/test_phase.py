"""Phase diagrams, pixel by pixel against the laws written out here, and chances within their intervals."""

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.studies.phase import angle as phase_angle
from gradstarve.studies.phase import failure as phase_failure
from gradstarve.studies.phase import neuron as phase_neuron
from gradstarve.studies.phase import plane as phase_fates
from gradstarve.studies.phase import time as phase_time
from gradstarve.studies.phase.plane import PLANES, phase_diagram

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(scope="module")
def plane():
    jax.config.update("jax_enable_x64", True)
    return phase_diagram("hinge", "neuron", pixels=20, frequencies=(0.25, 0.75), norms=(2.0, 0.5))


@pytest.fixture(scope="module")
def angles():
    jax.config.update("jax_enable_x64", True)
    return phase_diagram("hinge", "angle", pixels=60, cosines=(0.0, -0.6, -1.0), ratios=(1 / 9, 9.0))


class TestNeuron:
    def test_every_pixel_ends_where_the_line_says(self, plane):
        a, z = np.meshgrid(plane.axes["a"], plane.axes["z"])
        found = plane.maps["hinge"]
        assert (found["antipodal_end"] == np.sign(a + z)).all()
        assert (found["orthogonal_end"] == ((a > 0) & (z > -a))).all()

    def test_times_are_those_of_the_hyperbolic_clock(self, plane):
        """Hinge by events, against arsinh and artanh in NumPy: s runs at p r until r a z = 1, or until a = 0."""
        a, z = np.meshgrid(plane.axes["a"], plane.axes["z"])
        time, rate, norm = plane.maps["hinge"]["orthogonal_time"], 0.25 * 2.0, 2.0
        assert (np.isnan(time) == (a < 0)).all()
        learns, leaves = (a > 0) & (z > -a), (a > 0) & (z < -a)
        kappa, start = norm * np.abs(a * a - z * z) / 2, np.log(np.abs((a + z) / (a - z)))
        expected = np.maximum(np.arcsinh(1 / kappa) - start, 0) / (2 * rate)
        np.testing.assert_allclose(time[learns], expected[learns], rtol=0, atol=1e-11)
        np.testing.assert_allclose(time[leaves], np.arctanh((a / np.abs(z))[leaves]) / rate, rtol=1e-11)

    def test_closed_form_and_events_agree_where_neurons_are_taken_up(self, plane):
        a, z = (v.reshape(-1) for v in np.meshgrid(plane.axes["a"], plane.axes["z"]))
        given = {name: value for name, value in plane.settings.items() if name not in ("losses", "plane")}
        _, time = phase_neuron.by_law("antipodal", a, z, phase_neuron.Settings.of(**given), "hinge")
        np.testing.assert_allclose(plane.maps["hinge"]["antipodal_time"].reshape(-1), time, rtol=0, atol=1e-10)

    def test_settings_compute_it_again_and_it_is_drawn(self, plane, tmp_path):
        again = phase_diagram(**plane.settings)
        np.testing.assert_array_equal(again.maps["hinge"]["antipodal_time"], plane.maps["hinge"]["antipodal_time"])
        again.plot(tmp_path / "phase.png")
        assert (tmp_path / "phase.png").stat().st_size > 10_000
        assert "antipodal" in again.table()
        assert again.records()[0]["classes"] == "orthogonal"
        assert set(again.to_dict()) == {"plane", "axes", "maps"}


class TestAngle:
    @pytest.mark.slow
    def test_events_never_contradict_the_laws(self, angles):
        found = angles.maps["hinge"]
        assert (found["wrong"] == 0).all()
        assert (found["fate"] != phase_angle.UNDECIDED).all()
        assert (found["by_law"][2] == 1).all()

    @pytest.mark.slow
    def test_boundaries_of_neurons_that_see_one_class_are_sharp(self, angles):
        """From column to column the fate changes within one pixel of z = -a, for all frequencies and norms."""
        x, y = np.radians(angles.axes["direction"]), angles.axes["height"]
        pixel = y[1] - y[0]
        for i, cosine in enumerate(angles.settings["cosines"]):
            along = np.cos(x), np.cos(x - np.arccos(cosine))
            for fate in angles.maps["hinge"]["fate"][i]:
                for k, sign in ((0, 1), (1, -1)):
                    a, b = along[k], along[1 - k]
                    # Those that leave must not see the other class before.
                    for j in np.flatnonzero((a > 0) & (b <= 0) & ((b - cosine * a <= 0) | (cosine == -1))):
                        line = -sign * a[j] / np.sqrt(1 + a[j] ** 2)
                        learns = fate[:, j] == sign
                        clear = np.abs(y - line) > pixel
                        assert (learns[clear] == (sign * (y - line) > 0)[clear]).all()

    @pytest.mark.slow
    def test_only_neurons_that_see_both_feel_frequency_and_norm(self, angles):
        x = np.radians(angles.axes["direction"])
        for i, cosine in enumerate(angles.settings["cosines"]):
            slow, fast = angles.maps["hinge"]["fate"][i]
            moved = slow != fast
            if cosine == -1:
                assert not moved.any()
                continue
            both = (np.cos(x) > 0) & (np.cos(x - np.arccos(cosine)) > 0)
            assert moved[:, both].mean() > 0.1
            # Beside them only neurons that come to see both on their way (with z of the wrong sign).
            data = [phase_angle._data(cosine, ratio) for ratio in (1 / 9, 9.0)]
            w, z = phase_angle.neurons(60, 0.02)
            known = [(phase_fates.proven(one, w, z, True) != phase_fates.OPEN).all(1) for one in data]
            assert not moved.reshape(-1)[known[0]].any()
            assert (known[0] == known[1]).all()

    @pytest.mark.slow
    def test_the_dead_are_those_of_the_law(self, angles):
        law = phase_angle.dead_share(angles.axes["more_cosines"])
        np.testing.assert_allclose(angles.maps["hinge"]["dead"], law, atol=2 / 60)
        for i, cosine in enumerate(angles.settings["cosines"]):
            dead = (angles.maps["hinge"]["fate"][i] == 0).mean(axis=(1, 2))
            np.testing.assert_allclose(dead, float(phase_angle.dead_share(cosine)), atol=2 / 60)
            assert dead[0] == dead[1]

    @pytest.mark.slow
    def test_the_part_that_dies_by_quadrature(self):
        """Directions on the sphere, drawn: who sees nothing, and who leaves with b + |c| a <= 0."""
        rng = np.random.default_rng(0)
        for ratio in (0.5, 2.0):
            w, z = rng.normal(size=(200_000, 2)), ratio * rng.normal(size=200_000)
            for cosine in (0.0, -0.4, -0.99):
                plus, minus = w[:, 0], w @ [cosine, np.sqrt(1 - cosine**2)]
                dead = (plus <= 0) & (minus <= 0)
                for a, b, own in ((plus, minus, z), (minus, plus, -z)):
                    dead |= (a > 0) & (b <= 0) & (own < -a) & (b - cosine * a <= 0)
                expected = float(phase_angle.dead_share(cosine, 1.0, ratio))
                assert abs(dead.mean() - expected) < 4 * np.sqrt(expected / 200_000)


class TestFailure:
    @pytest.mark.parametrize("loss", ["hinge", pytest.param("cross-entropy", marks=pytest.mark.slow)])
    def test_networks_trained_on_opposite_classes(self, loss):
        """Cross-entropy: exactly who has no neuron with a + z < 0 fails (4.3). Hinge: these, and more."""
        rng = np.random.default_rng(1)
        w, z = rng.normal(size=(600, 3, 2)), rng.normal(size=(600, 3))
        data = phase_fates.two_classes(-1.0, (0.5, 0.5), (1.0, 1.0))
        law = np.stack([(w[..., 0] + z > 0).any(1), (w[..., 0] + z < 0).any(1)], axis=-1)
        found = phase_fates.class_fates(data, w, z, loss, trust=False)
        if loss == "cross-entropy":
            decided = found != phase_fates.OPEN
            assert decided.mean() > 0.97
            assert ((found == phase_fates.LEARNT) == law)[decided].all()
            return
        assert (found != phase_fates.OPEN).all()
        assert not (found[~law] == phase_fates.LEARNT).any()
        assert (found == phase_fates.LOST).sum() - (~law).sum() > 20  # of 600 networks with sigma = 1

    def test_intervals_hold_the_laws(self):
        diagram = phase_diagram(
            ("cross-entropy", "hinge"),
            "failure",
            width=3,
            cosines=-1.0,
            ratios=(0.25, 4),
            shares=(0.2, 0.8),
            scales=1,
            networks=300,
        )
        smooth, hinge = diagram.maps["cross-entropy"], diagram.maps["hinge"]
        for panel in phase_failure.PANELS:
            assert (smooth[f"{panel}_failed"] <= hinge[f"{panel}_failed"] + hinge[f"{panel}_open"]).all()
            for found in (smooth, hinge):
                law = found[f"{panel}_law"]
                known = np.isfinite(law)
                assert (found[f"{panel}_low"] <= law)[known].all()
                assert (law <= found[f"{panel}_high"])[known].all()
        np.testing.assert_array_equal(smooth["share_law"], [[0.5, 0.25, 0.125]] * 2)
        # Frequencies hardly matter to who is left behind.
        rare, often = hinge["share_failed"]
        assert (np.abs(rare - often) <= 0.1 * rare).all()
        assert hinge["scale_failed"][0, 2] > smooth["scale_failed"][0, 2]

    def test_what_weights_prove(self):
        """(4.4) on single neurons, in both orientations."""
        cosine = -0.5
        data = phase_fates.two_classes(cosine, (0.5, 0.5), (1.0, 1.0))
        axes = np.asarray(data.points)
        along = np.array([[1.0, -0.8], [1.0, -0.2], [1.0, -0.8], [-1.0, -1.0]])  # w.x_+, w.x_-
        w = (along @ np.linalg.inv(axes).T)[:, None]
        z = np.array([[-2.0], [-2.0], [-0.5], [1.0]])
        found = phase_fates.proven(data, w, z, True).tolist()
        lost, learnt, unknown = phase_fates.LOST, phase_fates.LEARNT, phase_fates.OPEN
        assert found == [[lost, lost], [unknown, unknown], [learnt, lost], [lost, lost]]
        mirrored = phase_fates.proven(gs.Dataset(axes[::-1], [1.0, -1.0], [0.5, 0.5]), w, -z, True)[:, ::-1].tolist()
        assert mirrored == found


@pytest.mark.parametrize("loss", ["hinge", pytest.param("cross-entropy", marks=pytest.mark.slow)])
def test_time_maps_against_the_law_of_one_neuron(loss):
    """The median of single neurons, learners and others, by the distribution of the time to learn."""
    settings = {"width": 1, "scale": 0.1, "widths": 1, "scales": (0.1, 0.5), "networks": 2000, "pixels": 3}
    diagram = phase_diagram(loss, "time", **settings)
    found = diagram.maps[loss]
    assert found["gap"] < 1e-12
    law = gs.theory.LearningTime(1.0, 1.0, 0.1, 0.1, loss, 1.0)
    share = float(gs.theory.learning_probability())
    assert float(law.cdf(found["scale_time"][1, 0, 0])) * share == pytest.approx(0.5, abs=0.05)
    # (3.11): at one norm, the time goes like 1/p.
    time = found["norm_time"][1]
    np.testing.assert_allclose(time[0] * diagram.axes["frequency"][0], time[-1], rtol=1e-12)
    assert (found["scale_time"][2] == np.inf).all()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"losses": "squared"}, "only tends to 1"),
        ({"losses": "hinges"}, "cross-entropy, hinge, exponential"),
        ({"losses": ()}, "one or several"),
        ({"plane": "phase"}, "neuron, angle, failure, time"),
        ({"plane": "neuron", "width": 3}, "width is no setting"),
        ({"plane": "neuron", "frequencies": (0.5, 0.6)}, "sum to 1"),
        ({"plane": "neuron", "norms": 1.0}, "pair"),
        ({"plane": "neuron", "pixels": 2.5}, "pixels must be an integer"),
        ({"plane": "angle", "cosines": (0.2,)}, r"\[-1, 0\]"),
        ({"plane": "angle", "scale": 0}, "scale must be a finite number above 0"),
        ({"plane": "failure", "shares": (0.5, 1.0)}, "below 1"),
        ({"plane": "failure", "ratios": (1.0, 1.0)}, "different"),
        ({"plane": "time", "scales": (1.0, 0.1)}, "least and the largest"),
        ({"plane": "time", "widths": (0,)}, "widths must be an integer"),
    ],
)
def test_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        phase_diagram(**arguments)


def test_planes_have_a_module_each():
    assert tuple(PLANES) == ("neuron", "angle", "failure", "time")
    assert gs.phase_diagram is phase_diagram


def test_quantiles_of_times_are_ranks_of_whole_numbers():
    for count in range(10, 401):
        found = phase_time._quantiles(np.arange(1.0, count + 1)[::-1])
        assert found.tolist() == [(count + 9) // 10, (count + 1) // 2, (9 * count + 9) // 10]
    assert phase_time._quantiles(np.array([[1.0, np.inf] * 5, [2.0] * 10])).tolist() == [[1, 2], [1, 2], [np.inf, 2]]
