"""Images of differ in size than their annotations say: boxes are scaled along, or the dataset is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data.cases import coco_root, edit_coco, voc_root, write_jpeg

from eyas.data.checks.check import check_dataset
from eyas.data.checks.sizes import SizeState, compare
from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.data.rewrite.convert import convert
from eyas.data.rewrite.pack import pack_dataset
from eyas.errors import UserError
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val

FITS, SCALED, TURNED, OTHER = SizeState


@pytest.mark.parametrize(
    ("annotated", "real", "state"),
    [
        ((480, 640), (480, 640), FITS),
        ((0, 0), (480, 640), FITS),
        ((480, 640), (0, 0), FITS),
        ((480, 640), (240, 320), SCALED),
        ((480, 640), (960, 1280), SCALED),
        ((481, 641), (240, 320), SCALED),  # rounded down
        ((481, 641), (241, 321), SCALED),  # rounded up
        ((375, 500), (480, 640), SCALED),
        ((333, 500), (639, 960), SCALED),  # the annotated one had been rounded
        ((480, 640), (479, 640), SCALED),
        ((480, 640), (640, 480), TURNED),
        ((480, 640), (320, 240), TURNED),  # and shrunk
        ((100, 101), (101, 100), TURNED),
        ((480, 640), (640, 640), OTHER),
        ((480, 640), (478, 640), OTHER),
        ((480, 640), (240, 330), OTHER),
        ((480, 640), (1, 600), OTHER),
    ],
)
def test_how_two_sizes_compare(annotated: tuple[int, int], real: tuple[int, int], state: SizeState) -> None:
    assert compare(np.array([annotated], np.int32), np.array([real], np.int32)).tolist() == [state]


def shrunk(root: Path) -> Path:
    """Return a COCO root annotated at 40 x 30 whose training images were halved."""
    coco_root(root)
    for name in ("a.jpg", "b.jpg"):
        write_jpeg(root / "train" / name, 15, 20)
    return root


def of_train(root: Path) -> DatasetIndex:
    recipe = DataRecipe(root=str(root), batch_size=1, size=64)
    return load_train_and_val(recipe)[0]


def converted(to: str) -> Callable[[Path], DatasetIndex]:
    def read(root: Path) -> DatasetIndex:
        convert(root, root.with_name(to), to)
        return load_dataset(root.with_name(to), "train")

    return read


def packed(root: Path) -> DatasetIndex:
    pack_dataset(root, root.with_name("packed"))
    return load_dataset(root.with_name("packed"), "train")


USES: dict[str, Callable[[Path], DatasetIndex]] = {
    "load": lambda root: load_dataset(root, "train"),
    "train": of_train,
    "coco": converted("coco"),
    "yolo": converted("yolo"),
    "voc": converted("voc"),
    "pack": packed,
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.filterwarnings(r"ignore:\d+ of the")
def test_boxes_of_shrunk_images_are_scaled_and_told_once(use: str, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 2 images of 'train' differ in size") as told:
        index = USES[use](shrunk(tmp_path / "in"))
    assert sum("differ in size" in str(each.message) for each in told) == 1
    assert index.boxes[0].tolist() == pytest.approx([1, 1.5, 6, 7.5], abs=0.51 if use == "voc" else 1e-4)
    assert index.sizes.tolist() == [[15, 20], [15, 20]]
    if use == "load":
        assert index.areas[0] == 120 / 4


@pytest.mark.parametrize("use", USES)
def test_turned_images_are_refused_in_clear_words(use: str, tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    exif = Image.Exif()
    exif[274] = 6  # stored as annotated, 40 x 30, to be shown turned
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "JPEG", exif=exif)
    (root / "train" / "a.jpg").write_bytes(data.getvalue())
    with pytest.raises(
        UserError, match=r"1 of 2 images of 'train' are rotated.*EXIF.*a\.jpg is 30x40, annotated as 40x"
    ):
        USES[use](root)


@pytest.mark.parametrize("use", USES)
def test_images_of_another_shape_are_refused(use: str, tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    write_jpeg(root / "train" / "b.jpg", 20, 40)
    with pytest.raises(
        UserError, match=r"1 of 2 images .* differ in aspect ratio .*train/b\.jpg is 40x20, annotated as 40x30"
    ):
        USES[use](root)


def test_voc_sizes_follow_the_same_rule(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_jpeg(root / "JPEGImages" / "a.jpg", 60, 80)
    with pytest.warns(UserWarning, match="1 of 1 images of 'train' differ in size"):
        index = load_dataset(root, "train")
    assert index.boxes.tolist() == [[0, 0, 80, 60], [4, 6, 24, 40]]
    write_jpeg(root / "JPEGImages" / "a.jpg", 60, 60)
    with pytest.raises(UserError, match="aspect ratio"):
        load_dataset(root, "train")


def test_the_check_tells_all_and_judges_the_scaled_boxes(tmp_path: Path) -> None:
    root = shrunk(tmp_path)
    write_jpeg(root / "val" / "a.jpg", 40, 30)
    findings = {(each.kind, each.level, each.split): each for each in check_dataset(root).findings}
    assert findings["scaled image", "warning", "train"].count == 2
    wrong = findings["wrong image size", "error", "val"].examples
    assert wrong == ("val/a.jpg is 30x40, annotated as 40x30 (rotated: the labels ignore its EXIF orientation)",)
    assert not any(kind in ("box outside", "box sticks out") and split == "train" for kind, _, split in findings)


def test_missing_and_broken_images_are_counted(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    (root / "train" / "a.jpg").write_bytes(b"no image")
    with pytest.warns(UserWarning, match="1 of 2 images of 'train' are missing or can't be read: train/a.jpg"):
        index = load_dataset(root, "train")
    assert index.sizes.tolist() == [[30, 40], [30, 40]]


def test_sizes_that_are_not_annotated_are_filled_in(tmp_path: Path) -> None:
    root = edit_coco(coco_root(tmp_path), lambda d: d["images"][0].update(width=None, height=0))
    index = load_dataset(root, "train")
    assert index.sizes.tolist() == [[30, 40], [30, 40]]
    assert index.boxes[0].tolist() == [2, 3, 12, 15]
