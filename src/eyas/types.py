"""The shared data types: frozen dataclasses of arrays, and the input contract of a model.

Conventions that hold everywhere in Eyas: boxes are float32 xyxy in pixels of the image they belong to (x to the
right, y down, a box covers [x0, x1) by [y0, y1)); images are uint8 RGB, height x width x 3.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from eyas.checks import check_class_names, check_number, check_whole, shown
from eyas.errors import UserError, suggest

MAX_SIDE = 8192  # pixels of a network's input
MAX_CANDIDATES = 30_000  # pairs that enter non-maximum suppression: its time grows with their square

UInt8Array = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Id = int | str  # of an image, category or annotation in a COCO file: usually a number, but any size of it, or a text

PadMode = Literal["center", "bottom_right"]
Suppression = Literal["class_wise", "class_agnostic", "soft", "none"]


def plain_id(value: Any) -> Id | None:
    """Return the id that a JSON value stands for: an integer (1.0 is 1), or a text as it is; None if it is none."""
    if type(value) is int or isinstance(value, str):
        return value
    return int(value) if isinstance(value, float) and math.isfinite(value) and value == int(value) else None


@dataclass(frozen=True)
class Detections:
    """The detections in one image, best score first.

    Attributes:
        boxes: float32 [M, 4], xyxy pixels of the original image.
        scores: float32 [M], in 0..1, falling.
        labels: int64 [M], index into `classes`.
        classes: the class names of the model.
        height, width: size of the original image in pixels.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    classes: tuple[str, ...]
    height: int
    width: int

    def __len__(self) -> int:
        """Return how many objects were found."""
        return len(self.scores)

    def __getitem__(self, index: slice | IntArray | npt.NDArray[np.bool_]) -> Detections:
        """Return the detections that a slice, a mask or an index array picks."""
        return dataclasses.replace(self, boxes=self.boxes[index], scores=self.scores[index], labels=self.labels[index])

    def __iter__(self) -> Iterator[tuple[FloatArray, float, str]]:
        """Yield (box, score, class name) of each object."""
        for box, score, label in zip(self.boxes, self.scores, self.labels, strict=True):
            yield box, float(score), self.classes[int(label)]


@dataclass(frozen=True)
class Thresholds:
    """The thresholds that a raw prediction must pass to become a detection.

    Attributes:
        confidence: least score.
        iou: of two boxes of one class that overlap more than this, the one with the lower score is dropped.
        candidates: how many (box, class) pairs enter non-maximum suppression at most.
        max_detections: how many detections an image may have at most.
        suppression: which boxes a better one drops: overlapping ones of its class ("class_wise"), of any class
            ("class_agnostic"), or none: overlapping ones of its class lose score instead ("soft", `iou` is not used);
            "none" keeps all, for networks that give one box an object (`iou` is not used).
        soft_sigma: for "soft", a score is multiplied by exp(-IoU² / sigma) (Bodla et al., 2017).
    """

    confidence: float = 0.25
    iou: float = 0.7
    candidates: int = 1000
    max_detections: int = 300
    suppression: Suppression = "class_wise"
    soft_sigma: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.suppression not in get_args(Suppression):
            near = suggest(self.suppression, get_args(Suppression)) if isinstance(self.suppression, str) else ""
            raise UserError(
                f"Unknown suppression {shown(self.suppression)}{near}.",
                expected="one of " + ", ".join(get_args(Suppression)),
            )
        for name in ("candidates", "max_detections"):
            check_whole(name, getattr(self, name), 1, MAX_CANDIDATES)
        check_number("soft_sigma", self.soft_sigma, 1e-6, 1e6)
        for name in ("confidence", "iou"):
            check_number(f"The {name} threshold", getattr(self, name), 0.0, 1.0, name)


DETECT = Thresholds()
EVALUATE = Thresholds(confidence=0.01)  # low, so that the whole precision-recall curve is seen


def evaluation_thresholds(own: Thresholds) -> Thresholds:
    """Return the thresholds that mAP is measured at: `EVALUATE`, with the suppression of the model's own."""
    return dataclasses.replace(EVALUATE, suppression=own.suppression, soft_sigma=own.soft_sigma)


@dataclass(frozen=True)
class InputSpec:
    """The conversion of an image into the network's input, shared by training and inference.

    An image is resized so that it fits into `content` (aspect ratio kept, `content` <= the network's size), then
    padded with `pad_value` to `height` x `width`. YOLO-NAS: content 636 in 640, centred, 114.

    Attributes:
        height, width: the network's input size in pixels, multiples of 32.
        margin: pixels left free over both sides together on the limiting side (YOLO-NAS: 640 - 636 = 4).
        pad_mode: where the image lies in the padded frame.
        pad_value: grey level of the padding.
        scale: the factor from uint8 to the network's float input (it is applied inside the graph).
    """

    height: int = 640
    width: int = 640
    margin: int = 4
    pad_mode: PadMode = "center"
    pad_value: int = 114
    scale: float = 1.0 / 255.0

    def __post_init__(self) -> None:
        """Refuse sizes that no network of the family can take."""
        for name in ("height", "width"):
            size = getattr(self, name)
            check_whole(f"The input {name}", size, 1, MAX_SIDE, name)
            if size % 32:
                raise UserError(
                    f"The input {name} is {size}.",
                    expected="a multiple of 32, at least 32 (the network halves its input five times)",
                    fix=f"use {max(32, round(size / 32) * 32)}",
                )
        if self.pad_mode not in ("center", "bottom_right"):
            raise UserError(f"Unknown pad_mode {shown(self.pad_mode)}.", expected="center or bottom_right")
        check_whole("The margin", self.margin, 0, min(self.height, self.width) - 1, "margin")
        check_whole("The pad_value", self.pad_value, 0, 255, "pad_value")
        check_number("The scale", self.scale, 1e-6, 1.0, "scale")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> InputSpec:
        """Return the spec that `to_dict` wrote; an unknown field is refused."""
        return cls(**checked_fields(cls, fields, "input"))


def checked_fields(cls: type, fields: object, where: str) -> dict[str, Any]:
    """Return `fields` if each is a field of the dataclass `cls`.

    Raises:
        UserError: they are no mapping, or one is unknown; the nearest name is suggested.
    """
    known = [entry.name for entry in dataclasses.fields(cls)]
    if not isinstance(fields, Mapping):
        raise UserError(f"Fields are {shown(fields)}.", where=where, expected="a mapping of " + ", ".join(known))
    for name in fields:
        if name not in known:
            near = suggest(name, known) if isinstance(name, str) and len(name) < 100 else ""
            raise UserError(f"Unknown field {shown(name)}{near}.", where=where, expected="one of " + ", ".join(known))
    return dict(fields)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The classes of a model, in label order.

    Attributes:
        names: one a class.
        embeddings: float32 [C, D], what stands for each name in models that read words; None in all others.
    """

    names: tuple[str, ...]
    embeddings: FloatArray | None = None

    def __post_init__(self) -> None:
        """Refuse names that can't be told apart, and embeddings that are not one row of finite numbers a name."""
        check_class_names(self.names, "classes")
        if self.embeddings is None:
            return
        rows = self.embeddings
        if rows.ndim != 2 or rows.dtype != np.float32 or len(rows) != len(self.names) or not np.isfinite(rows).all():
            raise UserError(
                f"The embeddings of {len(self.names)} classes are {rows.dtype} {list(rows.shape)}.",
                where="classes",
                expected="float32, a row of finite numbers for each class",
            )

    def __len__(self) -> int:
        """Return how many classes there are."""
        return len(self.names)

    @classmethod
    def numbered(cls, count: int) -> Vocabulary:
        """Return so many classes that are named after their numbers, for networks whose classes have no names."""
        return cls(tuple(map(str, range(count))))
