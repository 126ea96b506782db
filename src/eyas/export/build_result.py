"""What building for a target gives back, whatever the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx


@dataclass(frozen=True)
class StandIn:
    """What is judged in the place of a file that this machine can build and can't run.

    Attributes:
        graph: what the compiled file was made of, to the last node.
        reason: why the compiled file can't be run here.
    """

    graph: onnx.ModelProto
    reason: str


@dataclass(frozen=True)
class BuiltFiles:
    """The files of a finished build, all in the folder that the builder was given.

    Attributes:
        entry: name of the file that a session opens.
        files: names of all files, the entry among them.
        details: what the build found out, ready for JSON (layer precisions, profiles, versions, warnings).
        compute_capabilities: GPUs that the file runs on, see `eyas.artifacts.bundle.Manifest`.
        stand_in: set where the entry can't be run on this machine.
    """

    entry: str
    files: tuple[str, ...]
    details: dict[str, Any]
    compute_capabilities: tuple[str, ...] = ()
    stand_in: StandIn | None = None
