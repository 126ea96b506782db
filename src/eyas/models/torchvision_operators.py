"""torchvision beside a torch that it was not built for, as a CPU build of torch is for the packaged torchvision.

Its compiled half can't be loaded then, and importing it fails at two operators that it describes without having them.
Nothing here needs torchvision: timm imports it for its classes, and Lightning's metrics do wherever it is installed.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")  # what torchvision describes at its import, whether it could load them or not


@cache
def define_operators() -> None:
    """Declare the operators of an installed torchvision whose own can't be loaded, so that it can be imported.

    They are names without an implementation: calling one is an error. Without torch or torchvision nothing is done.
    """
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
