"""What a result depends on besides its settings."""

from __future__ import annotations

import platform
from typing import Any


def version() -> str:
    """The installed version of gradstarve."""
    from importlib import metadata

    return metadata.version("gradstarve")


def environment() -> dict[str, Any]:
    """What a result depends on besides its settings: versions, device and precision. No paths and no host names.

    >>> environment()["precision"] in ("float32", "float64")
    True
    """
    import equinox
    import jax
    import jaxlib
    import numpy as np

    device = jax.devices()[0]
    return {
        "gradstarve": version(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "equinox": equinox.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "backend": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "precision": np.dtype(jax.numpy.result_type(float)).name,
    }
