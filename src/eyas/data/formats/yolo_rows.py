"""Parsing the rows of YOLO label files, strictly."""

from __future__ import annotations

import math
from pathlib import Path

from eyas.data.formats.found import Problems

_TOLERANCE = 0.01  # rounding and boxes that a tool let stick out by a hair; more is a wrong unit or a wrong format
Row = tuple[int, tuple[float, float, float, float]]  # label, xyxy in fractions of the picture


def parse_rows(data: bytes, path: Path, num_classes: int, has_keypoints: bool, problems: Problems) -> list[Row]:
    """Return the objects of one label file; faults go to `problems` with file and line.

    Args:
        data: the file's bytes.
        path: the file, for messages.
        num_classes: labels must be below it.
        has_keypoints: numbers after the box are keypoints, not a polygon.
        problems: collects the faults.
    """
    try:
        lines = data.decode("ascii").splitlines()
    except UnicodeDecodeError:
        problems.add(f"{path}: is not text")
        return []
    rows: list[Row] = []
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        try:
            values = [float(field) for field in fields]
        except ValueError:
            problems.add(f"{path}:{number}: not numbers: {line[:60]!r}")
            continue
        fault = _fault(values, num_classes, has_keypoints)
        if fault:
            problems.add(f"{path}:{number}: {fault}: {line[:60]!r}")
        else:
            rows.append((int(values[0]), _box(values, has_keypoints)))
    return rows


def _fault(values: list[float], num_classes: int, has_keypoints: bool) -> str:
    """Return what is wrong with a row, "" if nothing."""
    count = len(values)
    if count == 6:
        return "six numbers, a detector's output with scores rather than a label"
    if count < 5 or (count > 5 and count % 2 == 0 and not has_keypoints):
        return f"{count} numbers instead of 5, or of a class and a polygon"
    if values[0] != values[0] or not 0 <= values[0] < num_classes or values[0] != int(values[0]):
        return f"the class {values[0]:g} is none of 0..{num_classes - 1}"
    checked = values[1:5] if has_keypoints else values[1:]
    if not all(math.isfinite(value) for value in checked):
        return "a coordinate is not finite"
    if min(checked) < -_TOLERANCE or max(checked) > 1 + _TOLERANCE:
        return "a coordinate is not a fraction from 0 to 1 of the picture's size"
    return ""


def _box(values: list[float], has_keypoints: bool) -> tuple[float, float, float, float]:
    """Return the xyxy fractions of a row: of its box, or around its polygon."""
    if len(values) == 5 or has_keypoints:
        x, y, half_width, half_height = values[1], values[2], values[3] / 2, values[4] / 2
        return x - half_width, y - half_height, x + half_width, y + half_height
    across, down = values[1::2], values[2::2]
    return min(across), min(down), max(across), max(down)
