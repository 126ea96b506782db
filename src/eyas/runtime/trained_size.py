"""The input size that a model was trained at: a line where it is used at another one, which costs accuracy."""

from __future__ import annotations

from pathlib import Path

from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest
from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.types import InputSpec

TRAINED_SIZE = "trained_size"  # among the manifest's details: [height, width]


def trained_size(folder: Path) -> tuple[int, int] | None:
    """Return (height, width) in pixels that the model in a run's or a bundle's folder was trained at.

    None where the bundle does not tell: those of older Eyas don't.
    """
    if not (folder / MANIFEST).is_file():
        config = Run.read(folder).config
        return config.input.height, config.input.width
    told = Manifest.read(folder, verify=False).details.get(TRAINED_SIZE)
    if told is None:
        return None
    if not (isinstance(told, list) and len(told) == 2 and all(isinstance(side, int) for side in told)):
        raise UserError(f"{MANIFEST} is not valid: {TRAINED_SIZE} is {told!r}.", where=str(folder / MANIFEST))
    return told[0], told[1]


def size_note(trained: tuple[int, int] | None, used: InputSpec, did: str = "measured") -> str:
    """Return one line if a model is used at another size than it was trained at, else ""."""
    if trained is None or trained == (used.height, used.width):
        return ""
    return f"trained at {_sides(trained)}, {did} at {_sides((used.height, used.width))}: another size costs accuracy"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
