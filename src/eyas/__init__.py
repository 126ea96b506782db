"""Eyas: real-time object detectors made for the device they run on.

The public verbs are reached as attributes and imported on first use, so that `import eyas` stays a matter of
milliseconds and the light core never sees torch:

    import eyas

    detector = eyas.load("runs/quickstart")
    detections = detector("street.jpg")
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
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


class _VerbPackage(ModuleType):
    """A subpackage named like a public verb: calling it calls the function of the same name inside."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        verb: Callable[..., Any] = vars(self)[self.__name__.rpartition(".")[2]]
        return verb(*args, **kwargs)


class _Eyas(ModuleType):
    """The class of this module, which keeps `eyas.train(...)` working once the subpackage `eyas.train` is imported.

    Importing a subpackage binds it to the parent's attribute of that name, in place of the verb. The subpackage is
    therefore made callable at that very moment, and both `eyas.train(...)` and `import eyas.training.fit` are right.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and PUBLIC.get(name) == value.__name__:
            value.__class__ = _VerbPackage
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    """Import and return a public name on first use."""
    if name == "__version__":
        from importlib.metadata import version

        return version("eyas")
    if name not in PUBLIC:
        raise AttributeError(f"module 'eyas' has no attribute '{name}'")
    module = import_module(PUBLIC[name])
    return module if PUBLIC[name] == f"eyas.{name}" else vars(module)[name]


def __dir__() -> list[str]:
    """Return the public names and what is already imported."""
    return sorted({*globals(), *__all__})


def _bound_opencv() -> None:
    """Set OpenCV's own limit here, before any part of Eyas can load it: later it would be too late."""
    from eyas.opencv_limits import bound_opencv

    bound_opencv()


_bound_opencv()
sys.modules[__name__].__class__ = _Eyas
