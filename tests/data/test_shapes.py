"""The synthetic dataset: the same each time, tight boxes, a fair mix."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from eyas.boxes import pairwise_iou
from eyas.data.formats import load_splits
from eyas.data.shapes import CLASSES, _draw_shape, _outline, make_scene, make_shapes
from eyas.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("shapes") / "data", train=60, val=20, size=128, seed=1)


def test_splits_and_classes(root: Path) -> None:
    splits = load_splits(root)
    assert {name: len(index) for name, index in splits.items()} == {"train": 60, "val": 20}
    assert splits["train"].classes == CLASSES
    counts = np.bincount(splits["train"].labels, minlength=len(CLASSES))
    assert counts.min() > 0.5 * counts.mean()
    assert 2 < len(splits["train"].boxes) / 60 < 7


def test_boxes_lie_inside_and_overlap_little(root: Path) -> None:
    for index in load_splits(root).values():
        for i in range(len(index)):
            boxes = index.truth(i)[0]
            height, width = index.sizes[i]
            assert (boxes >= 0).all()
            assert (boxes[:, 2:] <= [width, height]).all()
            overlaps = pairwise_iou(boxes, boxes)
            assert (overlaps[~np.eye(len(boxes), dtype=bool)] < 0.5).all()


def test_sizes_vary(root: Path) -> None:
    boxes = load_splits(root)["train"].boxes
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    assert sides.min() < 15
    assert sides.max() > 35


@pytest.mark.parametrize("name", CLASSES)
def test_boxes_are_tight(name: str) -> None:
    """The pixels that drawing a shape changes are those of the outline's box, to a pixel."""
    for seed in range(8):
        rng = np.random.default_rng(seed)
        points = _outline(name, rng.uniform(0, 6)) * rng.uniform(5, 40) + rng.uniform(50, 110, 2)
        image = np.full((160, 160, 3), 128, np.uint8)
        _draw_shape(rng, image, points)
        rows, columns = np.nonzero((np.abs(image.astype(int) - 128) > 40).any(axis=2))
        np.testing.assert_allclose([columns.min(), rows.min()], points.min(axis=0), atol=1.01)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], points.max(axis=0), atol=1.01)


def test_same_arguments_same_bytes(root: Path, tmp_path: Path) -> None:
    again = make_shapes(tmp_path / "again", train=60, val=20, size=128, seed=1)
    for path in sorted(root.rglob("*.*")):
        assert (again / path.relative_to(root)).read_bytes() == path.read_bytes()
    fewer = make_shapes(tmp_path / "fewer", train=3, val=2, size=128, seed=1)
    assert (fewer / "val" / "000002.jpg").read_bytes() == (root / "val" / "000002.jpg").read_bytes()
    other = make_shapes(tmp_path / "other", train=3, val=2, size=128, seed=2)
    assert (other / "val" / "000002.jpg").read_bytes() != (root / "val" / "000002.jpg").read_bytes()


def test_no_image_of_another_seed_or_split() -> None:
    scenes = [make_scene(64, seed, number)[0].tobytes() for seed in range(6) for number in range(5)]
    assert len(set(scenes)) == len(scenes)


def test_made_once(root: Path) -> None:
    before = (root / "train" / "000001.jpg").stat().st_mtime_ns
    assert make_shapes(root, train=60, val=20, size=128, seed=1) == root
    assert (root / "train" / "000001.jpg").stat().st_mtime_ns == before


def test_refusals(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="exists already"):
        make_shapes(root, train=61, val=20, size=128, seed=1)
    for bad in ({"train": 0}, {"size": 16}, {"size": 10_000}):
        with pytest.raises(UserError, match="Can't generate"):
            make_shapes(tmp_path / "x", **bad)


def test_a_set_that_could_not_be_made_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr("eyas.data.shapes.write_json", full)
        with pytest.raises(UserError, match="disk is full"):
            make_shapes(tmp_path / "set", train=2, val=1, size=64)
    assert not list(tmp_path.iterdir())
    assert make_shapes(tmp_path / "set", train=2, val=1, size=64) == tmp_path / "set"
