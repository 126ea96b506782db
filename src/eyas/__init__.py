"""Eyas: real-time object detectors made for the device they run on.

The public verbs are reached as attributes and imported on first use, so that `import eyas` stays a matter of
milliseconds and the light core never sees torch:

    import eyas

    detector = eyas.load("runs/quickstart")
    detections = detector("street.jpg")
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyas.benchmark.models import bench as bench
    from eyas.evaluation import evaluate as evaluate
    from eyas.export import compile as compile  # noqa: A004
    from eyas.models.importing import import_checkpoint as import_checkpoint
    from eyas.runtime.detect import detect as detect
    from eyas.runtime.detector import Detector as Detector
    from eyas.runtime.loading import load as load
    from eyas.training import train as train

    __version__: str

__all__ = [
    "Detections",
    "Detector",
    "UserError",
    "__version__",
    "bench",
    "compile",
    "detect",
    "evaluate",
    "import_checkpoint",
    "load",
    "train",
]

# Public name -> the module that defines it. A row is all that a new verb needs.
PUBLIC: Mapping[str, str] = MappingProxyType(
    {
        "Detections": "eyas.types",
        "Detector": "eyas.runtime.detector",
        "UserError": "eyas.errors",
        "bench": "eyas.benchmark.models",
        "compile": "eyas.export",
        "detect": "eyas.runtime.detect",
        "evaluate": "eyas.evaluation",
        "import_checkpoint": "eyas.models.importing",
        "load": "eyas.runtime.loading",
        "train": "eyas.training",
    }
)


def __getattr__(name: str) -> Any:
    """Import and return a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("eyas")
    if name not in PUBLIC:
        raise AttributeError(f"module 'eyas' has no attribute '{name}'")
    return vars(import_module(PUBLIC[name]))[name]


def __dir__() -> list[str]:
    """Return the public names and what is already imported."""
    return sorted({*globals(), *__all__})


def _bound_opencv() -> None:
    """Set OpenCV's own limit here, before any part of Eyas can load it: later it would be too late."""
    from eyas.opencv_limits import bound_opencv

    bound_opencv()


_bound_opencv()
