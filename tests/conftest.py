"""Shared test settings: two host devices, shapes and types enforced, and a fixture that turns on 64 bits."""

import os

# Before JAX starts: two devices on the host, so that sharding is tested on any machine.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=2"
os.environ.setdefault("MPLBACKEND", "Agg")

import jax
import pytest
from jaxtyping import install_import_hook

# Every annotation of every module is checked at run time, here and nowhere else.
install_import_hook("gradstarve", "beartype.beartype")


def pytest_collection_modifyitems(items):
    """The slowest files first, so that no process is left alone with one of them at the end."""
    slowest = ("test_solve.py", "test_solve_mode.py", "test_catalogue.py", "test_flow.py", "test_simulate.py")
    items.sort(key=lambda item: item.path.name not in slowest)


@pytest.fixture
def x64():
    """64-bit JAX for one test."""
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(autouse=True)
def _close_figures():
    """Figures left open would pile up (and warn) over a run."""
    yield
    import sys

    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
