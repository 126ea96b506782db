"""What the long rows of a YOLO dataset hold: polygons, boxes with keypoints, or oriented boxes. The rows don't say.

A row of an odd number of numbers can be a class and a polygon's points or a class, a box and keypoints of two numbers;
one of nine an oriented box too. The rows of one dataset are all of one kind, so that is decided once for all of its
splits, and only on evidence:

- Polygons have any number of points, keypoints and corners always the same. So rows of several lengths are polygons.
- Read as a centre and sides, the first two points of a polygon are nonsense wherever it lies in the right or lower
  third of its image: the box sticks out. Where that is so for more than a tenth of the rows, they are polygons.
- Beside rows of a box alone, as segmentation sets have them and keypoints hardly ever do, it is enough that the points
  lie outside that box.
- An even number of numbers, or a 2 where a keypoint says how visible it is, can't be of a polygon.

Where that leaves a doubt, the user is asked.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from eyas.data.formats.base import Problems
from eyas.data.formats.yolo_rows import Kind, RowLayout, numbered_rows
from eyas.errors import UserError
from eyas.files import read_regular

KINDS: tuple[Kind, ...] = get_args(Kind)
_FILES = 1000  # label files that are looked at first, spread evenly
_ENOUGH = 100  # long rows among them; where there are fewer, all files are looked at
_USUAL = 0.9  # part of the rows that a rule must hold for; the rest may be slips of those who drew
_SLACK = 0.25  # of the box's side, by which keypoints may lie outside it
_HAIR = 0.01  # by which a box may stick out of its image
_WORDS = {"polygon": "polygons", "keypoints": "boxes with keypoints", "oriented": "oriented boxes"}


@dataclass
class Evidence:
    """What was seen in rows of more than six numbers.

    Attributes:
        boxes: rows of five numbers.
        lengths: length -> rows of it.
        keypoints: length -> rows that can be a box and keypoints.
        inside: length -> those of them with every point in the box, or near it.
        flagged: length -> rows that can be a box and keypoints with flags that say how visible each is, a 2 among them.
    """

    boxes: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    keypoints: Counter[int] = field(default_factory=Counter)
    inside: Counter[int] = field(default_factory=Counter)
    flagged: Counter[int] = field(default_factory=Counter)


def find_layout(labels: Sequence[Path], source: Path) -> RowLayout:
    """Return what the long rows in the label files hold.

    Args:
        labels: the label files of all splits; those that are not there are passed over.
        source: the data.yaml, for messages.

    Raises:
        UserError: the rows can be of several kinds.
    """
    step = max(1, len(labels) // _FILES)
    evidence = gather(labels[::step])
    if step > 1 and evidence.lengths.total() < _ENOUGH:
        evidence = gather(labels)
    possible = possible_kinds(evidence)
    if len(possible) == 1:
        if possible[0] == "keypoints":
            warnings.warn(
                f"{source.name} has no kpt_shape, but the label rows are boxes with keypoints: the boxes are used, "
                "the keypoints ignored.",
                stacklevel=2,
            )
        return RowLayout(possible[0])
    length, count = evidence.lengths.most_common(1)[0]
    raise UserError(
        f"Label rows of {length} numbers can be {' or '.join(_WORDS[kind] for kind in possible)} ({count} rows "
        "checked), which give different boxes." if "keypoints" in possible else
        f"Label rows of {length} numbers can be {' or '.join(_WORDS[kind] for kind in possible)} ({count} rows "
        "checked); for oriented boxes only the enclosing upright box would be learned.",
        where=str(source),
        fix="choose with " + " or ".join(f"--rows {kind}" for kind in possible)
        + (f"; or for keypoints, add a line such as kpt_shape: [{(length - 5) // 2}, 2] to {source.name}"
           if "keypoints" in possible else ""),
    )  # fmt: skip


def gather(labels: Iterable[Path]) -> Evidence:
    """Return what is seen in the label files; those that are not there, and rows of no numbers, are passed over."""
    evidence = Evidence()
    for path in labels:
        try:
            data = read_regular(path)
        except OSError:
            continue
        for _, _, values in numbered_rows(data, path, Problems(path)):
            _note(values, evidence)
    return evidence


def possible_kinds(evidence: Evidence) -> tuple[Kind, ...]:
    """Return the kinds that the rows can be of; polygons if nothing speaks for another."""
    if not evidence.lengths:
        return ("polygon",)
    length, count = evidence.lengths.most_common(1)[0]
    several = count < _USUAL * evidence.lengths.total()
    fitting = (evidence.inside if evidence.boxes else evidence.keypoints)[length] > _USUAL * count
    if several or (length % 2 == 0 and not fitting):
        return ("polygon",)
    if fitting and (length % 2 == 0 or evidence.flagged[length]):
        return ("keypoints",)
    oriented = length == 9 and count == evidence.lengths.total() and not evidence.boxes
    kinds = {"polygon": True, "keypoints": fitting, "oriented": oriented}
    return tuple(kind for kind in KINDS if kinds[kind])


def _note(values: list[float], evidence: Evidence) -> None:
    """Add a row to the evidence."""
    count = len(values)
    if count == 5:
        evidence.boxes += 1
    if count < 7:
        return
    evidence.lengths[count] += 1
    if not _is_box(values[1:5]):
        return
    flags = values[7::3] if (count - 5) % 3 == 0 else []
    three = bool(flags) and all(flag in (0, 1, 2) for flag in flags)
    two = (count - 5) % 2 == 0
    evidence.keypoints[count] += three or two
    evidence.inside[count] += (three and _near(values, 3)) or (two and _near(values, 2))
    evidence.flagged[count] += three and 2 in flags


def _is_box(values: Sequence[float]) -> bool:
    x, y, width, height = values
    if not (width > 0 and height > 0):
        return False
    return min(x - width / 2, y - height / 2) >= -_HAIR and max(x + width / 2, y + height / 2) <= 1 + _HAIR


def _near(values: Sequence[float], size: int) -> bool:
    x, y, width, height = values[1:5]
    reach_x, reach_y = width * (0.5 + _SLACK), height * (0.5 + _SLACK)
    points = zip(values[5::size], values[6::size], strict=True)
    return all((px, py) == (0, 0) or (abs(px - x) <= reach_x and abs(py - y) <= reach_y) for px, py in points)
