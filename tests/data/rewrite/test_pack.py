"""Packing: sizes, boxes that follow, bytes that shrink, resuming, and faults before anything is announced."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.data.cases import coco_dict, coco_root, edit_coco, write_jpeg, write_json, yolo_root

from eyas.data.formats import load_dataset, load_splits
from eyas.data.rewrite.pack import pack_dataset
from eyas.decode import read_image
from eyas.errors import UserError


def big_root(root: Path, count: int = 3) -> Path:
    """Write a training split of 400 x 300 images with a box around a red square in each."""
    names = [f"{i}.png" for i in range(count)]
    document = coco_dict(names, [(i + 1, 1, (40 + 20 * i, 80, 100, 60)) for i in range(count)])
    for i, (name, image) in enumerate(zip(names, document["images"], strict=True)):
        image.update(width=400, height=300)
        pixels = np.full((300, 400, 3), 90, np.uint8)
        pixels[80:140, 40 + 20 * i : 140 + 20 * i] = (0, 0, 255)
        (root / "train").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "train" / name), pixels)
    write_json(root / "annotations" / "instances_train.json", document)
    return root


def test_boxes_follow_the_images(tmp_path: Path) -> None:
    done = pack_dataset(big_root(tmp_path / "in"), tmp_path / "out", size=100)
    assert (done.images, done.resumed) == (3, 0)
    index = load_dataset(tmp_path / "out", "train")
    assert index.sizes.tolist() == [[75, 100]] * 3
    assert index.areas.tolist() == [375] * 3
    for i in range(3):
        image = read_image(index.path(i))
        assert image.shape == (75, 100, 3)
        assert index.path(i).suffix == ".jpg"
        red = np.argwhere((image[..., 0] > 170) & (image[..., 2] < 60))
        x0, y0, x1, y1 = index.truth(i)[0][0]
        np.testing.assert_allclose([y0, x0], red.min(axis=0), atol=1)
        np.testing.assert_allclose([y1, x1], red.max(axis=0) + 1, atol=1)


def test_a_small_jpeg_stays_as_it_is(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    pack_dataset(root, tmp_path / "out", size=64)
    assert (tmp_path / "out" / "train" / "a.jpg").read_bytes() == (root / "train" / "a.jpg").read_bytes()
    assert load_dataset(tmp_path / "out", "train").boxes.tolist() == load_dataset(root, "train").boxes.tolist()


def test_bytes_are_reported(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    for split in ("train", "val"):
        for name in ("a.jpg", "b.jpg"):
            write_jpeg(root / split / name, 600, 800)
        edit_coco(root, lambda d: [each.update(width=800, height=600) for each in d["images"]], split)
    done = pack_dataset(root, tmp_path / "out", size=160)
    source = sum(p.stat().st_size for i in load_splits(root).values() for p in i.files)
    packed = sum(p.stat().st_size for i in load_splits(tmp_path / "out").values() for p in i.files)
    assert (done.bytes_before, done.bytes_after) == (source, packed)
    assert packed < source / 4


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    root = big_root(tmp_path / "in")
    pack_dataset(root, tmp_path / "out", size=100)
    first = (tmp_path / "out" / "train" / "0.jpg").stat()
    (tmp_path / "out" / "train" / "1.jpg").unlink()
    (tmp_path / "out" / "annotations" / "instances_train.json").unlink()
    os.utime(root / "train" / "2.png", (first.st_mtime + 60, first.st_mtime + 60))  # changed since
    done = pack_dataset(root, tmp_path / "out", size=100)
    assert done.resumed == 1
    assert (tmp_path / "out" / "train" / "0.jpg").stat().st_mtime_ns == first.st_mtime_ns
    assert len(load_dataset(tmp_path / "out", "train")) == 3
    with pytest.raises(UserError, match="packed with other settings"):
        pack_dataset(root, tmp_path / "out", size=120)


def test_another_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        pack_dataset(big_root(tmp_path / "in"), tmp_path / "out")


def test_faults_are_named_and_no_annotations_written(tmp_path: Path) -> None:
    root = edit_coco(big_root(tmp_path / "in"), lambda d: d["images"][2].update(width=500))
    with pytest.raises(UserError, match=r"2\.png is 400x300, annotated as 500x300"):
        pack_dataset(root, tmp_path / "out", size=100)
    edit_coco(root, lambda d: d["images"][2].update(width=400))
    (root / "train" / "1.png").write_bytes(b"nonsense")
    with pytest.raises(UserError) as caught:
        pack_dataset(root, tmp_path / "out", size=100)
    assert "1 images can't be packed: 1.png: " in str(caught.value)
    assert not (tmp_path / "out" / "annotations").exists()


@pytest.mark.parametrize(("size", "quality"), [(8, 90), (640, 0), (640, 101)])
def test_impossible_settings(size: int, quality: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Can't pack"):
        pack_dataset(tmp_path, tmp_path / "out", size=size, quality=quality)


def test_exif_turned_images_become_upright(tmp_path: Path) -> None:
    from PIL import Image

    root = yolo_root(tmp_path / "in", "0 0.75 0.5 0.5 1\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((300, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    turned = Image.fromarray(np.rot90(pixels))  # stored lying on its side; orientation 6 turns it upright again
    turned.save(root / "images" / "train" / "a.jpg", exif=exif, quality=95)
    pack_dataset(root, tmp_path / "out", size=150)
    index = load_dataset(tmp_path / "out", "train")
    assert index.sizes.tolist() == [[150, 100]]
    image = read_image(index.path(0))
    assert image.shape == (150, 100, 3)
    assert index.boxes[0].tolist() == pytest.approx([50, 0, 100, 150], abs=1e-3)
    assert image[:, 60:].mean() > 250 > 5 > image[:, :40].mean()
