"""What a build is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eyas.compile.graph import CANDIDATES
from eyas.compile.options import builder_options
from eyas.compile.target import Range, Sides, target_info
from eyas.errors import UserError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to compile for, and how to judge it.

    Attributes:
        target: a key of `eyas.compile.target.TARGETS`.
        precision: "fp32", "fp16", "bf16" or "int8".
        size: side of a square in pixels, `Sides`, (least, greatest), or None for the run's own.
        batch: (least, greatest) number of pictures at once.
        nms: "host", or "graph" for suppression inside.
        candidates: boxes that the graph gives a picture.
        data: the data set to judge and calibrate on; None for the run's own.
        split: the split to judge on; None for the run's own.
        compared: how many pictures the outputs are compared on.
        calibrated: how many pictures the ranges of INT8 are taken from.
        measured: how many pictures mAP is measured on at most; 0 for none, None for all.
        options: for the target's builder, see `eyas.compile.options`.
    """

    target: str = "onnx"
    precision: str = "fp32"
    size: int | Sides | Range | None = None
    batch: Range = (1, 1)
    nms: str = "host"
    candidates: int = CANDIDATES
    data: str | Path | None = None
    split: str | None = None
    compared: int = 8
    calibrated: int = 64
    measured: int | None = 500
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what can't be built, before anything expensive."""
        target_info(self.target, self.precision)
        builder_options(self.target, self.options)
        if self.nms not in ("host", "graph"):
            raise UserError(f"nms is '{self.nms}'.", where="nms", expected="host or graph")
        if not 1 <= self.batch[0] <= self.batch[1]:
            raise UserError(f"The batch is {self.batch[0]} to {self.batch[1]}.", where="batch", expected="1, or 1-16")
        for name, least in (("candidates", 1), ("compared", 1), ("calibrated", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}.", where=name, expected=f"at least {least}")
