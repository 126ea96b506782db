"""torchvision beside a torch that it was not built for, as a CPU build of torch is for the packaged torchvision.

Its compiled half can't be loaded then, and importing it fails at two operators that it describes without having them.
Nothing here needs torchvision: timm imports it for its classes, and Lightning's metrics do wherever it is installed.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")  # what torchvision describes at its import, whether it could load them or not


class _BeforeTorchvision(MetaPathFinder):
    """Declares the operators when torchvision is about to be imported, by whomever."""

    def find_spec(self, name: str, *_: object) -> None:
        """Find nothing: the others shall."""
        if name == "torchvision":
            sys.meta_path.remove(self)
            _define_operators()


def let_torchvision_load() -> None:
    """Have the operators of a torchvision that can't load its own declared before it is imported.

    They are names without an implementation: calling one is an error. Until then nothing is imported, torch least.
    """
    if "torchvision" not in sys.modules and not any(isinstance(one, _BeforeTorchvision) for one in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTorchvision())


def _define_operators() -> None:
    """Declare the operators, unless torchvision has its own, or there is none, or no torch."""
    found = importlib.util.find_spec("torchvision")
    if found is None or found.origin is None:
        return
    try:
        import torch
    except ImportError:
        return
    folder = Path(found.origin).parent
    library = next((path for end in EXTENSION_SUFFIXES if (path := folder / f"_C{end}").is_file()), folder / "_C.so")
    try:
        torch.ops.load_library(library)  # type: ignore[no-untyped-call]
    except OSError:
        for name in OPERATORS:
            torch.library.define(f"torchvision::{name}", SCHEMA)
