"""What long YOLO rows hold: decided for the whole dataset on evidence, asked where there is doubt."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data.cases import coco_root, yolo_root

from eyas.data.formats import load_dataset, load_splits
from eyas.data.formats.yolo_kinds import KINDS
from eyas.data.rewrite.convert import convert
from eyas.errors import UserError

Rows = Callable[[int], list[str]]


def polygons(points: int | tuple[int, int], low: float = 0.05, high: float = 0.95) -> Rows:
    """Return a maker of polygons around places in a part of the image, of fixed or varying length."""

    def make(count: int) -> list[str]:
        rng = np.random.default_rng(0)
        rows = []
        for _ in range(count):
            num = points if isinstance(points, int) else int(rng.integers(*points))
            angle = np.sort(rng.uniform(0, 2 * np.pi, num))
            place = rng.uniform(low, high, 2) + rng.uniform(0.02, 0.15) * np.stack([np.cos(angle), np.sin(angle)], 1)
            rows.append("0 " + " ".join(f"{value:.5f}" for value in np.clip(place, 0, 1).ravel()))
        return rows

    return make


def keypoints(num: int, size: int, flags: int = 3) -> Rows:
    """Return a maker of boxes with keypoints: x, y, and a flag below `flags` if `size` is 3."""

    def make(count: int) -> list[str]:
        rng = np.random.default_rng(1)
        rows = []
        for _ in range(count):
            w, h = rng.uniform(0.05, 0.4, 2)
            x, y = rng.uniform(w / 2, 1 - w / 2), rng.uniform(h / 2, 1 - h / 2)
            spots = [(x + rng.uniform(-0.5, 0.5) * w, y + rng.uniform(-0.5, 0.5) * h) for _ in range(num)]
            tail = [[*spot, rng.integers(0, flags)][:size] for spot in spots]
            rows.append(f"0 {x:.5f} {y:.5f} {w:.5f} {h:.5f} " + " ".join(f"{v:.5g}" for each in tail for v in each))
        return rows

    return make


def boxes(count: int) -> list[str]:
    rng = np.random.default_rng(2)
    return [f"1 {x:.3f} {y:.3f} 0.1 0.1" for x, y in rng.uniform(0.1, 0.9, (count, 2))]


def dataset(root: Path, train: list[str], val: list[str] | None = None, extra: str = "") -> Path:
    yolo_root(root)
    for split, rows in (("train", train), ("val", train if val is None else val)):
        (root / "labels" / split / "a.txt").write_text("\n".join(rows) + "\n")
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames: [a, b]\n{extra}\n")
    return root


def around(row: str) -> list[float]:
    """Return the box around a polygon's row in pixels of an image of 40 x 30."""
    values = np.array(row.split()[1:], float).reshape(-1, 2) * [40, 30]
    return [*values.min(axis=0), *values.max(axis=0)]


def of_box(row: str) -> list[float]:
    x, y, w, h = (float(v) for v in row.split()[1:5])
    return [(x - w / 2) * 40, (y - h / 2) * 30, (x + w / 2) * 40, (y + h / 2) * 30]


@pytest.mark.parametrize(
    "rows",
    [
        polygons((3, 20))(30), polygons((3, 20))(30) + boxes(10), polygons(4)(30) + boxes(3), polygons(5)(30),
        polygons(3)(30), polygons(8)(30), polygons(4)(30) + polygons(7)(30), polygons(4, 0.7, 0.9)(1) + boxes(1),
        ["0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2", "1 0.5 0.5 0.2 0.2"],
        ["0 0.1 0.2 0.5 0.1 0.3 0.9"],
    ],
)  # fmt: skip
def test_segmentation_sets_are_read_as_before(rows: list[str], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = load_dataset(dataset(tmp_path, rows), "train")
    expected = [around(row) if len(row.split()) > 5 else of_box(row) for row in rows]
    np.testing.assert_allclose(index.boxes, expected, atol=1e-3)


@pytest.mark.parametrize("num", [1, 2, 3, 4, 17])
def test_keypoints_with_flags_can_be_nothing_else(num: int, tmp_path: Path) -> None:
    rows = keypoints(num, 3)(20)
    with pytest.warns(UserWarning, match="no kpt_shape, but the label rows are boxes with keypoints"):
        index = load_dataset(dataset(tmp_path, rows), "train")
    np.testing.assert_allclose(index.boxes, [of_box(row) for row in rows], atol=1e-3)


DOUBTFUL = [
    (keypoints(1, 2)(20), {"polygon", "keypoints"}),
    (keypoints(2, 2)(20), {"polygon", "keypoints", "oriented"}),
    (keypoints(5, 2)(20), {"polygon", "keypoints"}),
    (keypoints(17, 2)(1), {"polygon", "keypoints"}),
    (keypoints(4, 3, flags=2)(20), {"polygon", "keypoints"}),
    (keypoints(4, 2)(20) + boxes(9), {"polygon", "keypoints"}),
    (keypoints(4, 2)(40) + polygons(5)(1), {"polygon", "keypoints"}),
    (polygons(4)(30), {"polygon", "oriented"}),
    (polygons(6, 0.3, 0.5)(30), {"polygon", "keypoints"}),
]


@pytest.mark.parametrize(("rows", "kinds"), DOUBTFUL)
def test_doubt_is_asked_and_every_offered_answer_works(rows: list[str], kinds: set[str], tmp_path: Path) -> None:
    root = dataset(tmp_path / "in", rows)
    with pytest.raises(UserError) as caught:
        load_dataset(root, "train")
    assert {kind for kind in KINDS if f"--rows {kind}" in caught.value.fix} == kinds
    assert ("kpt_shape" in caught.value.fix) == ("keypoints" in kinds)
    long = [row for row in rows if len(row.split()) > 5 and "polygon" in kinds]
    for kind in kinds - {"oriented"}:
        index = load_dataset(root, "train", rows=kind)
        expected = of_box(long[0]) if kind == "keypoints" else around(long[0])
        np.testing.assert_allclose(index.boxes[0], expected, atol=1e-3)


def test_oriented_boxes_give_the_upright_box_around_them(tmp_path: Path) -> None:
    rows = polygons(4)(30)
    root = dataset(tmp_path / "in", rows)
    index = load_dataset(root, "train", rows="oriented")
    np.testing.assert_allclose(index.boxes, [around(row) for row in rows], atol=1e-3)
    convert(root, tmp_path / "out", "coco", rows="oriented")
    np.testing.assert_allclose(load_dataset(tmp_path / "out", "train").boxes, index.boxes, atol=1e-3)
    with pytest.raises(UserError, match="7 numbers instead of 9"):
        load_dataset(dataset(tmp_path / "other", polygons(3)(3)), "train", rows="oriented")


@pytest.mark.parametrize(("num", "size"), [(1, 2), (2, 2), (4, 2), (4, 3), (17, 3)])
def test_kpt_shape_says_it(num: int, size: int, tmp_path: Path) -> None:
    rows = keypoints(num, size)(5) + boxes(2)
    index = load_dataset(dataset(tmp_path, rows, extra=f"kpt_shape: [{num}, {size}]"), "train")
    np.testing.assert_allclose(index.boxes, [of_box(row) for row in rows], atol=1e-3)


def test_rows_that_kpt_shape_contradicts_are_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path, keypoints(4, 2)(5), extra="kpt_shape: [5, 2]")
    with pytest.raises(UserError, match=r"13 numbers instead of 15, as kpt_shape \[5, 2\] says"):
        load_dataset(root, "train")


def test_one_kind_for_all_splits(tmp_path: Path) -> None:
    """Four corners each in val alone could be oriented boxes; the training split says that they are polygons."""
    splits = load_splits(dataset(tmp_path, polygons((3, 20))(30), polygons(4)(5)))
    assert len(splits["val"].boxes) == 5


def test_rows_are_yolos(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not apply to the format coco"):
        load_dataset(coco_root(tmp_path), "train", rows="polygon")
