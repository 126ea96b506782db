"""Detections to and from other forms: plain dicts, COCO results, YOLO txt, supervision. Free functions, both ways."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from eyas.boxes import cxcywh_to_xyxy, xywh_to_xyxy, xyxy_to_cxcywh, xyxy_to_xywh
from eyas.errors import UserError
from eyas.text import json_text
from eyas.types import Detections, FloatArray, Id

if TYPE_CHECKING:
    import supervision  # type: ignore[import-not-found, unused-ignore]  # optional


def make_detections(
    boxes: Any, scores: Any, labels: Any, classes: Sequence[str], height: int, width: int
) -> Detections:
    """Return Detections of anything array-like, best score first.

    Args:
        boxes: [M, 4], xyxy pixels.
        scores: [M].
        labels: [M], index into `classes`.
        classes: class names.
        height, width: the image's size in pixels.
    """
    scores = np.asarray(scores, np.float32).reshape(-1)
    order = np.argsort(-scores, kind="stable")
    return Detections(
        np.asarray(boxes, np.float32).reshape(-1, 4)[order],
        scores[order],
        np.asarray(labels, np.int64).reshape(-1)[order],
        tuple(classes),
        height,
        width,
    )


def to_dict(detections: Detections) -> dict[str, Any]:
    """Return plain lists and numbers, ready for JSON."""
    return {
        "height": detections.height,
        "width": detections.width,
        "classes": list(detections.classes),
        "detections": [
            {"box": box, "score": score, "class": detections.classes[label]}
            for box, score, label in zip(
                decimals(detections.boxes), decimals(detections.scores), detections.labels.tolist(), strict=True
            )
        ],
    }


def from_dict(fields: Mapping[str, Any]) -> Detections:
    """Read the output of `to_dict`.

    Raises:
        UserError: a field is missing, or a class is not among the classes.
    """
    try:
        found = fields["detections"]
        classes = tuple(fields["classes"])
        labels = [_label(one["class"], classes) for one in found]
        boxes, scores = [one["box"] for one in found], [one["score"] for one in found]
        return make_detections(boxes, scores, labels, classes, int(fields["height"]), int(fields["width"]))
    except KeyError as error:
        raise UserError(f"The detections lack the field {error}.", expected="the output of to_dict") from None


def to_json(detections: Detections) -> str:
    """Return `to_dict` as JSON text."""
    return json_text(to_dict(detections))


def from_json(text: str) -> Detections:
    """Return the detections that `to_json` wrote."""
    try:
        return from_dict(json.loads(text))
    except json.JSONDecodeError as error:
        raise UserError(f"The detections are not valid JSON: {error}.") from None


def to_coco(detections: Detections, image_id: Id, category_ids: Sequence[Id] | None = None) -> list[dict[str, Any]]:
    """Return entries of a COCO results file.

    Args:
        detections: what was found in one image.
        image_id: the image's id in the annotation file.
        category_ids: the id of each class there; None counts from 1.
    """
    ids: Sequence[Id] = range(1, len(detections.classes) + 1) if category_ids is None else category_ids
    boxes, scores = decimals(xyxy_to_xywh(detections.boxes)), decimals(detections.scores)
    return [
        {"image_id": image_id, "category_id": ids[label], "bbox": box, "score": score}
        for box, score, label in zip(boxes, scores, detections.labels.tolist(), strict=True)
    ]


def decimals(values: FloatArray) -> list[Any]:
    """Return (nested) lists of the shortest decimals that are the same float32: 0.9, not 0.8999999761581421."""
    return np.asarray(values.astype(str).astype(np.float64)).tolist()  # type: ignore[no-any-return]


def from_coco(
    entries: Iterable[Mapping[str, Any]],
    classes: Sequence[str],
    height: int,
    width: int,
    category_ids: Sequence[int] | None = None,
) -> Detections:
    """Return the detections of one image from its entries of a COCO results file; see `to_coco`.

    Raises:
        UserError: an entry's category is not among `category_ids`.
    """
    ids = range(1, len(classes) + 1) if category_ids is None else category_ids
    label_of = {category: label for label, category in enumerate(ids)}
    given = list(entries)
    for entry in given:
        if entry["category_id"] not in label_of:
            raise UserError(f"Unknown category_id {entry['category_id']}.", expected=f"one of {sorted(label_of)}")
    boxes = np.array([entry["bbox"] for entry in given], np.float32).reshape(-1, 4)
    labels = [label_of[entry["category_id"]] for entry in given]
    return make_detections(xywh_to_xyxy(boxes), [e["score"] for e in given], labels, classes, height, width)


def to_yolo_txt(detections: Detections, *, scores: bool = True) -> str:
    """Return YOLO's lines: label, centre x, centre y, width, height (all as shares of the image), and the score."""
    size = np.array([detections.width, detections.height] * 2, np.float32)
    lines = []
    boxes = xyxy_to_cxcywh(detections.boxes) / size
    for box, score, label in zip(boxes, detections.scores, detections.labels, strict=True):
        sides = " ".join(f"{side:.6f}" for side in box)
        lines.append(f"{int(label)} {sides}" + (f" {score:.6f}" if scores else ""))
    return "".join(line + "\n" for line in lines)


def from_yolo_txt(text: str, classes: Sequence[str], height: int, width: int) -> Detections:
    """Return the detections that YOLO's lines hold; a line without a score has score 1.

    Raises:
        UserError: a line is not five or six numbers, or its label is out of range; says which.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            values = [float(word) for word in line.split()]
        except ValueError:
            values = []
        if len(values) not in (5, 6) or values[0] not in range(len(classes)):
            raise UserError(
                f"Line {number} is '{line.strip()[:80]}'.",
                expected=f"label (0 to {len(classes) - 1}), centre x, centre y, width, height, and optionally a score",
            )
        rows.append(values if len(values) == 6 else [*values, 1.0])
    table = np.array(rows, np.float32).reshape(-1, 6)
    boxes = cxcywh_to_xyxy(table[:, 1:5]) * np.array([width, height] * 2, np.float32)
    return make_detections(boxes, table[:, 5], table[:, 0].astype(np.int64), classes, height, width)


def to_supervision(detections: Detections) -> supervision.Detections:
    """Return `supervision.Detections`, with the class names in `data["class_name"]`.

    Raises:
        UserError: the package supervision is not installed.
    """
    names = np.array([detections.classes[label] for label in detections.labels], dtype=str)
    return _supervision().Detections(
        xyxy=detections.boxes,
        confidence=detections.scores,
        class_id=detections.labels.astype(int),
        data={"class_name": names},
    )


def from_supervision(found: supervision.Detections, classes: Sequence[str], height: int, width: int) -> Detections:
    """Return the boxes of `supervision.Detections`; without confidences every score is 1.

    Raises:
        UserError: they carry no class ids.
    """
    if found.class_id is None:
        raise UserError("These supervision.Detections have no class_id.", expected="a class id for each box")
    scores = np.ones(len(found.xyxy), np.float32) if found.confidence is None else found.confidence
    return make_detections(found.xyxy, scores, found.class_id, classes, height, width)


def _supervision() -> ModuleType:
    """Return the optional package."""
    try:
        import supervision
    except ModuleNotFoundError:
        raise UserError(
            "This needs the package 'supervision', which is not installed.", fix="pip install supervision"
        ) from None
    module: ModuleType = supervision
    return module


def _label(name: str, classes: tuple[str, ...]) -> int:
    if name not in classes:
        raise UserError(f"The detections contain the class '{name}'.", expected="one of " + ", ".join(classes))
    return classes.index(name)
