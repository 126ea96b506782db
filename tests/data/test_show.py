"""Contact sheets: boxes land on their objects, broken images do not stop it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.cases import coco_root

from eyas.data.formats import load_dataset
from eyas.data.show import contact_sheet, dataset_sheet
from eyas.decode import read_image
from eyas.draw import class_colour, write_png
from eyas.errors import UserError


def test_boxes_are_scaled_with_their_image() -> None:
    black = np.zeros((100, 200, 3), np.uint8)
    boxes = [np.array([[50, 20, 150, 80]], np.float32)]
    sheet = contact_sheet([black], boxes, [np.array([1])], ("a", ""), side=400)
    coloured = np.argwhere((sheet == class_colour(1)).all(axis=2))
    gap = (sheet.shape[1] - 400) // 2
    np.testing.assert_allclose(coloured.min(axis=0), [40 + gap, 100 + gap], atol=1)
    np.testing.assert_allclose(coloured.max(axis=0), [159 + gap, 299 + gap], atol=1)


def test_scores_and_captions_change_the_sheet() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    boxes, labels = [np.array([[20, 40, 100, 100]], np.float32)], [np.array([0])]
    plain = contact_sheet([image], boxes, labels, ("cat",))
    scored = contact_sheet([image], boxes, labels, ("cat",), scores=[np.array([0.5], np.float32)])
    assert plain.shape == scored.shape
    assert (plain != scored).any()
    assert contact_sheet([image], boxes, labels, ("cat",), captions=["x"]).shape[0] > plain.shape[0]


def test_dataset_sheet_is_repeatable_and_fits(tmp_path: Path) -> None:
    index = load_dataset(coco_root(tmp_path), "train")
    sheet = dataset_sheet(index, count=1, seed=1, side=100)
    assert sheet.dtype == np.uint8
    assert np.array_equal(sheet, dataset_sheet(index, count=1, seed=1, side=100))
    seeds = [dataset_sheet(index, count=1, seed=seed, side=100) for seed in range(8)]
    assert any((each != seeds[0]).any() for each in seeds)
    both = dataset_sheet(index, count=50, columns=2, side=100)
    assert both.shape[1] > 200
    assert both.shape[0] < 150


def test_a_broken_image_gets_a_notice(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    (root / "train" / "a.jpg").write_bytes(b"")
    index = load_dataset(root, "train")
    (root / "train" / "b.jpg").unlink()
    sheet = dataset_sheet(index, count=2)
    assert (sheet == 60).all(axis=2).mean() > 0.4


def test_nothing_to_show(tmp_path: Path) -> None:
    index = load_dataset(coco_root(tmp_path), "train")
    with pytest.raises(UserError):
        dataset_sheet(index, count=0)
    with pytest.raises(UserError):
        dataset_sheet(index.subset([]))


def test_png_keeps_colours(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_png(image, tmp_path / "new" / "x.png")
    assert np.array_equal(read_image(tmp_path / "new" / "x.png"), image)
