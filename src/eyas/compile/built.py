"""What building for a target gives back, whatever the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BuiltFiles:
    """The files of a finished build, all in the folder that the builder was given.

    Attributes:
        entry: name of the file that a session opens.
        files: names of all files, the entry among them.
        details: what the build found out, ready for JSON (layer precisions, profiles, versions, warnings).
    """

    entry: str
    files: tuple[str, ...]
    details: dict[str, Any]
