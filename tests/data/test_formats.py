"""Which format a root is of, which splits it has, and what is said of a place that is unclear or no dataset."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data.cases import CLASSES, coco_dict, coco_root, voc_root, voc_xml, write_jpeg, write_json, yolo_root

from eyas.data.formats import FORMATS, find_format, find_splits, load_dataset, load_splits
from eyas.errors import UserError

ROOTS = {"coco": coco_root, "yolo": yolo_root, "voc": voc_root}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_recognised(name: str, tmp_path: Path) -> None:
    root = ROOTS[name](tmp_path / "data")
    assert find_format(root)[0].name == name
    assert find_splits(root) == ("train", "val")
    for split in ("val", "valid", "validation"):
        index = load_dataset(root, split)
        assert index.split == "val"
        assert index.path(0).is_file()
    assert set(load_splits(root)) == {"train", "val"}


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_two_formats_are_refused_with_what_was_found(first: str, second: str, tmp_path: Path) -> None:
    if first >= second:
        return
    ROOTS[first](tmp_path)
    ROOTS[second](tmp_path)
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path, "train")
    assert f"{first}:" in str(caught.value)
    assert f"{second}:" in str(caught.value)
    assert "format" in caught.value.fix
    assert len(load_dataset(tmp_path, "train", format=first)) >= 1


def test_no_format_is_refused_with_what_lies_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="The folder is empty"):
        find_format(tmp_path)
    write_jpeg(tmp_path / "cat.jpg")
    with pytest.raises(UserError, match=r"contains cat\.jpg") as caught:
        find_format(tmp_path)
    assert "data.yaml" in caught.value.expected
    with pytest.raises(UserError, match="There is no"):
        find_format(tmp_path / "gone")
    with pytest.raises(UserError, match="neither"):
        find_format(tmp_path / "cat.jpg")
    with pytest.raises(UserError, match="did you mean 'yolo'"):
        find_format(tmp_path, "yollo")
    with pytest.raises(UserError, match="in the format coco"):
        find_format(yolo_root(tmp_path / "y"), "coco")


def test_a_split_that_is_not_there(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    with pytest.raises(UserError, match="did you mean 'train'") as caught:
        load_dataset(root, "trian")
    assert "train, val" in caught.value.expected
    with pytest.raises(UserError, match="No split was named"):
        load_dataset(root)


def test_a_name_that_fits_two_splits(tmp_path: Path) -> None:
    box = [(1, 1, (1, 1, 5, 5))]
    root = coco_root(tmp_path, {"train2014": box, "train2017": box})
    assert find_splits(root) == ("train2014", "train2017")
    assert len(load_dataset(root, "train2017")) == 2
    with pytest.raises(UserError, match="could be any of: train2014, train2017"):
        load_dataset(root, "train")
    assert {index.split for index in load_splits(root).values()} == {"train2014", "train2017"}


def test_one_split_needs_no_name(tmp_path: Path) -> None:
    root = coco_root(tmp_path, {"everything": [(1, 1, (1, 1, 5, 5))]})
    assert load_dataset(root).split == "everything"


# ------------------------------------------------------------------------------------------- layouts in the wild
def test_coco_own_layout(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train2017" / "a.jpg")
    write_json(tmp_path / "annotations" / "instances_train2017.json", coco_dict(["a.jpg"], [(1, 1, (1, 1, 5, 5))]))
    write_json(tmp_path / "annotations" / "captions_train2017.json", {"annotations": []})
    index = load_dataset(tmp_path, "train")
    assert index.split == "train"
    assert index.path(0) == tmp_path / "train2017" / "a.jpg"
    assert index.classes == CLASSES


@pytest.mark.parametrize("folder", ["images/train", "images", "."])
def test_coco_images_elsewhere(folder: str, tmp_path: Path) -> None:
    write_jpeg(tmp_path / folder / "a.jpg")
    write_json(tmp_path / "annotations" / "instances_train.json", coco_dict(["a.jpg"], []))
    assert load_dataset(tmp_path).path(0) == tmp_path / folder / "a.jpg"


def test_coco_roboflow_layout(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_jpeg(tmp_path / split / "a.jpg")
        document = coco_dict(["a.jpg"], [(1, 1, (1, 1, 5, 5))])
        document["categories"] = [
            {"id": 0, "name": "pets", "supercategory": "none"},
            {"id": 1, "name": "cat", "supercategory": "pets"},
            {"id": 2, "name": "dog", "supercategory": "pets"},
        ]
        write_json(tmp_path / split / "_annotations.coco.json", document)
    index = load_dataset(tmp_path, "val")
    assert index.split == "val"
    assert index.classes == ("cat", "dog")  # Roboflow's category 0 is no class
    assert index.labels.tolist() == [0]
    assert index.path(0) == tmp_path / "valid" / "a.jpg"
    assert load_dataset(tmp_path / "valid" / "_annotations.coco.json").path(0) == index.path(0)


def test_coco_category_zero_stays_when_it_is_used(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train" / "a.jpg")
    document = coco_dict(["a.jpg"], [(1, 0, (1, 1, 5, 5))])
    document["categories"] = [{"id": 0, "name": "pets"}, {"id": 1, "name": "cat", "supercategory": "pets"}]
    write_json(tmp_path / "train" / "_annotations.coco.json", document)
    assert load_dataset(tmp_path).classes == ("pets", "cat")


def test_coco_file_given_directly(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    index = load_dataset(root / "annotations" / "instances_val.json")
    assert index.split == "val"
    assert index.path(0) == root / "val" / "a.jpg"
    write_jpeg(tmp_path / "flat" / "a.jpg")
    flat = write_json(tmp_path / "flat" / "labels.json", coco_dict(["a.jpg"], []))
    assert load_dataset(flat).path(0) == tmp_path / "flat" / "a.jpg"


def test_voc_flat_layouts(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        write_jpeg(tmp_path / "r" / split / "a.jpg")
        write_jpeg(tmp_path / "r" / split / "empty.jpg")
        text = voc_xml("a.jpg", [(split, (1, 1, 5, 5))])
        (tmp_path / "r" / split / "a.xml").write_text(text, encoding="utf-8")
    index = load_dataset(tmp_path / "r", "val")
    assert index.classes == ("train", "valid")  # those of every split, so that all splits number them alike
    assert np.diff(index.offsets).tolist() == [1, 0]
    write_jpeg(tmp_path / "k" / "images" / "a.png.jpg")
    (tmp_path / "k" / "annotations").mkdir()
    text = voc_xml("x", [("cat", (1, 1, 5, 5))])
    (tmp_path / "k" / "annotations" / "a.png.xml").write_text(text, encoding="utf-8")
    assert load_dataset(tmp_path / "k").path(0) == tmp_path / "k" / "images" / "a.png.jpg"
    assert find_splits(tmp_path / "r" / "train") == ("all",)


def told(root: Path, name: str | None = None) -> UserError:
    """Return the error for a place that is no dataset."""
    with pytest.raises(UserError) as caught:
        find_format(root, name)
    return caught.value


def do(error: UserError) -> None:
    subprocess.run(error.fix.split(": ", 1)[1], shell=True, check=True, capture_output=True)


def labelled(folder: Path) -> None:
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
    write_jpeg(tmp_path / "photos" / "a.jpg")
    error = told(tmp_path / "photos")
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
