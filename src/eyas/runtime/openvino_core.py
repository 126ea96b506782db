"""OpenVINO's one entry into this process."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import openvino

# Importing OpenVINO, and every conversion, is reported to Google Analytics, unasked, and from a fork of the process,
# which has threads. Without the package that does it (OpenVINO then has a stand-in of its own) neither happens.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


@cache
def openvino_core() -> openvino.Core:
    """Return the process' only `openvino.Core`, which lives as long as the process.

    A Core's CPU plugin gives the thread that makes it another stack for signals, and its end puts back the one before:
    of two Cores that end in another order than the reverse of their beginnings, the second leaves the thread with a
    stack that was unmapped, and the next signal (the end of a child is one) kills the process.

    Raises:
        ModuleNotFoundError: OpenVINO is not installed.
    """
    import openvino

    return openvino.Core()
