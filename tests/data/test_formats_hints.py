"""What is said of places that are no dataset: what they look like, and commands that work as they are printed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.cases import coco_dict, coco_root, voc_root, write_jpeg, write_json, yolo_root

from eyas.data.formats import find_format, find_splits, load_dataset
from eyas.errors import UserError


def told(root: Path, name: str | None = None) -> UserError:
    """Return the error for a place that is no dataset."""
    with pytest.raises(UserError) as caught:
        find_format(root, name)
    return caught.value


def do(error: UserError) -> None:
    """Run the command that an error offers."""
    subprocess.run(error.fix.split(": ", 1)[1], shell=True, check=True, capture_output=True)


def labelled(folder: Path) -> None:
    """Write an image and its YOLO labels."""
    write_jpeg(folder / "images" / "a.jpg")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")


def test_label_studios_yolo_export(tmp_path: Path) -> None:
    labelled(tmp_path)
    (tmp_path / "classes.txt").write_text('cat\ndog\'s "x"\nno\n')
    write_json(tmp_path / "notes.json", {"categories": [{"id": 0, "name": "cat"}], "info": {"year": 2026}})
    error = told(tmp_path)
    assert "Label Studio's YOLO export without a data.yaml" in error.problem
    assert "notes.json" not in error.fix
    do(error)
    assert load_dataset(tmp_path, "train").classes == ("cat", 'dog\'s "x"', "no")


def test_yolo_labels_in_splits_without_a_yaml(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        labelled(tmp_path / split)
    do(told(tmp_path))
    assert find_splits(tmp_path) == ("train", "val")
    assert len(load_dataset(tmp_path, "val")) == 1


@pytest.mark.parametrize(("where", "names"), [("classes.txt", "cat\n"), ("train/_darknet.labels", "cat\n")])
def test_yolo_labels_beside_the_images(where: str, names: str, tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / "a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / where).write_text(names)
    do(told(tmp_path))
    assert load_dataset(tmp_path, "train").classes == ("cat",)


@pytest.mark.parametrize("make", [coco_root, yolo_root, voc_root])
@pytest.mark.parametrize("inside", ["set", "VOCdevkit/VOC2012", "a/b/c"])
def test_a_dataset_in_a_folder_inside(make: Callable[[Path], Path], inside: str, tmp_path: Path) -> None:
    make(tmp_path / inside)
    (tmp_path / "__MACOSX" / inside).mkdir(parents=True)
    (tmp_path / "__MACOSX" / "._set").write_bytes(b"\0\5\x16\7")
    error = told(tmp_path)
    assert "is inside" in error.problem
    assert error.fix == f"give the folder inside: {tmp_path / inside}"


def test_several_datasets_inside(tmp_path: Path) -> None:
    for year in (2007, 2012):
        voc_root(tmp_path / "VOCdevkit" / f"VOC{year}")
    assert "VOC2007" in told(tmp_path).fix
    assert "VOC2012" in told(tmp_path).fix


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (yolo_root, "images"), (yolo_root, "labels/train"), (voc_root, "JPEGImages"), (voc_root, "ImageSets/Main"),
        (coco_root, "train"), (coco_root, "annotations"),
    ],
)  # fmt: skip
def test_a_part_of_a_dataset(make: Callable[[Path], Path], part: str, tmp_path: Path) -> None:
    root = make(tmp_path / "set")
    assert told(root / part).fix == f"give that folder: {root}"


def test_a_dataset_beside_is_none_of_ours(tmp_path: Path) -> None:
    write_json(tmp_path / "export" / "_annotations.coco.json", coco_dict([], []))
    write_jpeg(tmp_path / "images" / "a.jpg")
    error = told(tmp_path / "images")
    assert error.fix == ""
    assert "images, but no labels" in error.problem


@pytest.mark.parametrize(("kind", "suffix"), [("zip", ".zip"), ("tar", ".tar"), ("gztar", ".tar.gz")])
def test_archives(kind: str, suffix: str, tmp_path: Path) -> None:
    yolo_root(tmp_path / "set")
    shutil.make_archive(str(tmp_path / "box" / "my set"), kind, tmp_path / "set")
    for place in (tmp_path / "box" / f"my set{suffix}", tmp_path / "box"):
        assert "is an archive" in told(place).problem
    do(told(tmp_path / "box"))
    assert find_splits(tmp_path / "box" / "my set") == ("train", "val")


@pytest.mark.parametrize(
    ("name", "value", "looks"),
    [
        ("a.json", {"shapes": [], "imageData": "A" * 200_000, "imagePath": "a.jpg"}, "labelme"),
        ("project.json", [{"id": 1, "annotations": [], "data": {"image": "x"}}], "Label Studio's own JSON"),
        ("via.json", {"_via_settings": {}, "_via_img_metadata": {}}, "VGG Image Annotator"),
        ("x.json", [{"image": "a.jpg", "annotations": [{"label": "a", "coordinates": {}}]}], "CreateML"),
    ],
)
@pytest.mark.parametrize("folder", [".", "labels_json"])
def test_other_tools(name: str, value: object, looks: str, folder: str, tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg")
    write_json(tmp_path / folder / name, value)
    error = told(tmp_path)
    assert looks in error.problem
    assert error.fix and "COCO file itself" not in error.fix


def test_coco_under_another_name(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    (root / "annotations" / "instances_val.json").unlink()
    other = (root / "annotations" / "instances_train.json").rename(root / "annotations" / "person_keypoints.json")
    write_json(root / "notes.json", {"categories": [], "info": {}})
    assert told(root).fix == f"give the COCO file itself, for example {other}"


@pytest.mark.parametrize(
    ("name", "text", "looks"),
    [
        ("train/_annotations.csv", "filename,width", "Roboflow's CSV"),
        ("train/x.tfrecord", "x", "TFRecord"),
        ("annotations.xml", "<?xml version='1.0'?><annotations><image/></annotations>", "CVAT for images"),
    ],
)
def test_exports_that_are_not_read(name: str, text: str, looks: str, tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train" / "a.jpg")
    (tmp_path / name).write_text(text)
    assert looks in told(tmp_path).problem
    assert "export the dataset again" in told(tmp_path).fix


def test_another_format_than_the_one_that_was_named(tmp_path: Path) -> None:
    assert "--format yolo" in told(yolo_root(tmp_path), "voc").fix


def test_darknets_lists_of_images_are_its_splits(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_jpeg(tmp_path / "obj_train_data" / f"{name}.jpg")
        (tmp_path / "obj_train_data" / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    (tmp_path / "valid.txt").write_text("data/obj_train_data/b.jpg\n")
    do(told(tmp_path))
    assert {split: load_dataset(tmp_path, split).path(0).name for split in find_splits(tmp_path)} == {
        "train": "a.jpg",
        "val": "b.jpg",
    }
