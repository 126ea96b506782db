"""The settings of a build."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from eyas.artifacts.manifest import SuppressionPlace
from eyas.artifacts.quantization import LARGEST
from eyas.artifacts.run import RunConfig
from eyas.checks import shown
from eyas.errors import UserError
from eyas.export.graph import CANDIDATES, suppression_place
from eyas.export.options import builder_options
from eyas.export.target import Range, Sides, target_info

Tell = Callable[[str], None]

# Precision -> how far mAP (0..1) may fall below the trained network's. Float32 gives the same boxes but for rounding,
# and for what is cut off by fewer candidates; the others were measured, see docs/compile.md.
BUDGETS: Mapping[str, float] = MappingProxyType({"fp32": 0.001, "fp16": 0.003, "bf16": 0.005, "int8": 0.01})
# More where suppression is in the graph, of a fixed number of pairs in a fixed number of rounds.
BUDGET_OF_SUPPRESSION = 0.001


@dataclass(frozen=True)
class BuildSettings:
    """What to compile for, and how to validate it.

    Attributes:
        target: a key of `eyas.export.target.TARGETS`.
        precision: "fp32", "fp16", "bf16" or "int8".
        size: side of a square in pixels, `Sides`, (least, greatest), or None for the run's own.
        batch: (least, greatest) number of images at once.
        nms: where overlapping boxes are dropped: "host"; "graph" for suppression inside; "none" for nowhere, with
            networks that give one box an object. None for what the run's network needs: "none" or "host".
        candidates: boxes that the graph gives an image.
        data: the dataset to judge and calibrate on; None for the run's own.
        split: the split to judge on; None for the run's own.
        rows: what long rows of YOLO label files hold; None for what the run's recipe says of its own dataset.
        compared: how many images the outputs are compared on.
        calibrated: how many images the ranges of INT8 are taken from, if the run does not carry them.
        weight_bits: of a weight in INT8 at most, 7 or 8; None for what the engine can take on this machine.
        measured: how many images mAP is measured on at most; 0 for none, None for all.
        budget: how far mAP (0..1) may fall below the trained network's; None for `BUDGETS` of the precision.
        threads: of the engine while it is timed; None for its own choice.
        timed: whether to time the file.
        options: for the target's builder, see `eyas.export.options`.
    """

    target: str = "onnx"
    precision: str = "fp32"
    size: int | Sides | Range | None = None
    batch: Range = (1, 1)
    nms: SuppressionPlace | None = None
    candidates: int = CANDIDATES
    data: str | Path | None = None
    split: str | None = None
    rows: str | None = None
    compared: int = 8
    calibrated: int = 128
    weight_bits: int | None = None
    measured: int | None = 500
    budget: float | None = None
    threads: int | None = None
    timed: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def allowed(self) -> float:
        """Return how far mAP (0..1) may fall below the trained network's."""
        if self.budget is not None:
            return self.budget
        return BUDGETS[self.precision] + (BUDGET_OF_SUPPRESSION if self.nms == "graph" else 0.0)

    def for_run(self, config: RunConfig) -> BuildSettings:
        """Return the settings with `nms` as the run's network needs it.

        Raises:
            UserError: the network does not give the suppression that is asked for.
        """
        return replace(self, nms=suppression_place(self.nms, config.thresholds.suppression))

    def __post_init__(self) -> None:
        """Refuse what can't be built, before anything expensive."""
        target_info(self.target, self.precision)
        builder_options(self.target, self.options)
        if self.nms not in (None, *get_args(SuppressionPlace)):
            raise UserError(
                f"nms is {shown(self.nms)}.", where="nms", expected="one of " + ", ".join(get_args(SuppressionPlace))
            )
        if not 1 <= self.batch[0] <= self.batch[1]:
            raise UserError(
                f"The batch is {self.batch[0]} to {self.batch[1]}.",
                where="batch",
                expected="1, or a range such as 1-16",
            )
        if self.weight_bits not in (None, *LARGEST):
            raise UserError(f"weight_bits is {self.weight_bits}.", where="weight_bits", expected="7 or 8")
        for name, least in (("candidates", 1), ("compared", 1), ("calibrated", 1)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}.", where=name, expected=f"at least {least}")
