"""Measurements of a compiled file: parts of its manifest."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from eyas.errors import UserError
from eyas.renamed import with_new_keys

Range = tuple[int, int]


class ManifestPart(BaseModel):
    """What all parts of a manifest share: they don't change, and an unknown field or another type is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Counted(ManifestPart):
    """What was measured on some images."""

    @model_validator(mode="before")
    @classmethod
    def _of_any_release(cls, fields: Any) -> Any:
        return with_new_keys(fields)


class Parity(Counted):
    """How far the compiled file's outputs lie from the trained network's, on real images.

    Attributes:
        boxes_px: largest (or `quantile`) distance of a box's side, in network pixels.
        scores: largest (or `quantile`) difference of a score.
        quantile: which part of the candidates lies within these distances; 1 for all of them.
        images: how many images were compared.
    """

    boxes_px: float
    scores: float
    quantile: float = Field(gt=0, le=1)
    images: int = Field(ge=1)


class Accuracy(Counted):
    """COCO's mean average precision of this very file, or of what was judged in its place.

    Attributes:
        map: of the compiled file.
        map_fp32: of the trained network in float32, on the same images.
        data: the dataset's folder name.
        split: its split.
        images: how many images.
    """

    map: float
    map_fp32: float
    data: str
    split: str
    images: int

    @field_validator("map", "map_fp32")
    @classmethod
    def _is_defined(cls, value: float) -> float:
        if not math.isfinite(value):
            raise UserError(
                "mAP is undefined on these images: they contain no objects of the model's classes.",
                fix="evaluate on another dataset or split (--data, --split), or skip the measurement (--measure 0)",
            )
        return value


class Latency(ManifestPart):
    """Time of the network alone, on one machine.

    Attributes:
        device: the processor's name.
        threads: how many threads, 0 for the runtime's own choice.
        batch: images at once.
        size: height and width in pixels.
        median_ms, p90_ms: milliseconds a batch.
        versions: package -> version.
    """

    device: str
    threads: int
    batch: int
    size: Range
    median_ms: float
    p90_ms: float
    versions: dict[str, str]

    @property
    def threads_told(self) -> str:
        """The threads in words."""
        return f"{self.threads} threads" if self.threads else "the engine's own number of threads"
