"""Parsing the rows of YOLO label files, strictly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from eyas.data.formats.base import Problems
from eyas.data.formats.text import decode, is_decoded, split_lines, without_widthless

_TOLERANCE = 0.01  # rounding and boxes that a tool let stick out by a hair; more is a wrong unit or a wrong format
Row = tuple[int, tuple[float, float, float, float]]  # label, xyxy in fractions of the image
Kind: TypeAlias = Literal["polygon", "keypoints", "oriented"]


@dataclass(frozen=True)
class RowLayout:
    """What rows of more than five numbers hold.

    Attributes:
        kind: a class and a polygon's points; a class, a box and keypoints; or a class and an oriented box's corners.
        kpt_shape: (keypoints of an object, numbers of a keypoint), if that is known.
    """

    kind: Kind
    kpt_shape: tuple[int, int] | None = None


def parse_rows(
    data: bytes, path: Path, num_classes: int, layout: Callable[[], RowLayout], problems: Problems
) -> list[Row]:
    """Return the objects of one label file; faults go to `problems` with file and line.

    Args:
        data: the file's bytes.
        path: the file, for messages.
        num_classes: labels must be below it.
        layout: asked for what long rows hold when there is one.
        problems: collects the faults.
    """
    rows: list[Row] = []
    for number, line, values in numbered_rows(data, path, problems):
        count = len(values)
        known = layout() if count > 6 else RowLayout("polygon")
        fault = _count_fault(count, known) or _value_fault(values, num_classes, known)
        if fault:
            problems.add(f"{path}:{number}: {fault}: {line[:60]!r}")
        else:
            rows.append((int(values[0]), _box(values, known)))
    return rows


def numbered_rows(data: bytes, path: Path, problems: Problems) -> list[tuple[int, str, list[float]]]:
    """Return (line number, line, its numbers) of the lines that are not blank; what is no number goes to `problems`."""
    text = without_widthless(decode(data))
    if not is_decoded(text):
        problems.add(f"{path}: is not text")
        return []
    rows = []
    for number, line in enumerate(split_lines(text), 1):
        fields = line.split()  # at any of Unicode's blanks
        if not fields:
            continue
        try:
            if "_" in line:  # Python's numbers may have it
                raise ValueError
            rows.append((number, line, [float(each) for each in fields]))
        except ValueError:
            problems.add(f"{path}:{number}: not numbers: {line[:60]!r}")
    return rows


def _count_fault(count: int, layout: RowLayout) -> str:
    """Return what is wrong with the number of numbers in a row, "" if nothing."""
    if count == 5:
        return ""
    if count == 6:
        return "six numbers: a detector's output with scores, not a label"
    if layout.kind == "polygon":
        return "" if count > 6 and count % 2 else f"{count} numbers instead of 5, or of a class and a polygon"
    if layout.kind == "oriented":
        return "" if count == 9 else f"{count} numbers instead of 9, a class and four corners"
    if layout.kpt_shape is not None:
        points, size = layout.kpt_shape
        wanted = 5 + points * size
        return "" if count == wanted else f"{count} numbers instead of {wanted}, as kpt_shape [{points}, {size}] says"
    return "" if (count - 5) % 2 == 0 or (count - 5) % 3 == 0 else f"{count} numbers instead of a box and keypoints"


def _value_fault(values: list[float], num_classes: int, layout: RowLayout) -> str:
    """Return what is wrong with the numbers of a row, "" if nothing."""
    if values[0] != values[0] or not 0 <= values[0] < num_classes or values[0] != int(values[0]):
        return f"the class {values[0]:g} is not in 0..{num_classes - 1}"
    checked = values[1:5] if layout.kind == "keypoints" else values[1:]
    if not all(math.isfinite(value) for value in checked):
        return "a coordinate is not finite"
    if min(checked) < -_TOLERANCE or max(checked) > 1 + _TOLERANCE:
        return "a coordinate is not a fraction of the image size, from 0 to 1"
    return ""


def _box(values: list[float], layout: RowLayout) -> tuple[float, float, float, float]:
    """Return the xyxy fractions of a row: of its box, or around its polygon or corners."""
    if len(values) == 5 or layout.kind == "keypoints":
        x, y, half_width, half_height = values[1], values[2], values[3] / 2, values[4] / 2
        return x - half_width, y - half_height, x + half_width, y + half_height
    across, down = values[1::2], values[2::2]
    return min(across), min(down), max(across), max(down)
