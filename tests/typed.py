"""A program of a user who wants types: `mypy --strict tests/typed.py`, with gradstarve installed, finds no fault in it."""

from typing import assert_type

from jax import Array

import gradstarve as gs

data = gs.datasets.antipodal(frequencies=(0.8, 0.2))
network = gs.TwoLayerReLU(w=[[[0.3, 0.1], [-0.2, 0.4]]], z=[[0.2, -0.1]])
descent = gs.GradientDescent(step_size=0.1)
solution = assert_type(gs.solve(data, network, "hinge", descent), gs.theory.Solution)
trajectory = assert_type(gs.simulate(data, network, "hinge", descent, steps=10), gs.Trajectory)
assert_type(gs.compare(solution, trajectory).gap, float)
assert_type(solution.margins(10), Array)
assert_type(network[0], gs.TwoLayerReLU)
assert_type(gs.theory.ntk.logistic_flow([[1.0]], [0.0, 1.0]), Array)
assert_type(gs.verify("sign", trials=2).ok, bool)
assert_type(gs.derive("mode", "hinge"), gs.Derivation)
assert_type(gs.__version__, str)
