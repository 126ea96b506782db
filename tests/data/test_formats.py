"""Which format a root is of, which splits it has, and what is said when that is unclear."""

from __future__ import annotations

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


def test_what_usually_helps_is_said(tmp_path: Path) -> None:
    def fix_for(root: Path) -> str:
        with pytest.raises(UserError) as caught:
            find_format(root)
        return caught.value.fix

    write_json(tmp_path / "json" / "labels.json", coco_dict(["a.jpg"], []))
    assert fix_for(tmp_path / "json") == f"give the COCO file itself, for example {tmp_path / 'json' / 'labels.json'}"
    (yolo_root(tmp_path / "yolo") / "data.yaml").unlink()
    assert "need a data.yaml" in fix_for(tmp_path / "yolo")
    voc_root(tmp_path / "outer" / "VOC2007")
    assert fix_for(tmp_path / "outer") == f"give the folder inside: {tmp_path / 'outer' / 'VOC2007'}"
    (tmp_path / "empty").mkdir()
    assert fix_for(tmp_path / "empty") == ""


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


def test_boxes_of_classes_that_the_training_split_lacks_are_refused(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    other = coco_dict(["a.jpg", "b.jpg"], [(1, 1, (1, 1, 5, 5))])
    other["categories"] = [{"id": 1, "name": "dogg"}]
    write_json(root / "annotations" / "instances_val.json", other)
    with pytest.raises(
        UserError, match=r"'val' has boxes of .* 'train' does not list: 'dogg' \(did you mean 'dog'\?\)"
    ):
        load_splits(root)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("traffic light", "dog", "cat"), "lists its classes in a different order from 'train'"),
        (("dog",), "does not list the classes cat, traffic light"),
        (
            ("zebra", "dog"),
            "lists classes that 'train' does not, without boxes: zebra, and does not list the classes cat",
        ),
    ],
)
def test_classes_in_another_order_or_fewer_are_matched_by_name(
    names: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    root = coco_root(tmp_path)
    number = names.index("dog") + 1
    other = coco_dict(["a.jpg", "b.jpg"], [(1, number, (1, 1, 5, 5))])
    other["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    write_json(root / "annotations" / "instances_val.json", other)
    with pytest.warns(UserWarning, match=f"The split 'val' {told}"):
        splits = load_splits(root)
    assert splits["val"].classes == CLASSES
    assert splits["val"].labels.tolist() == [1]
    assert splits["val"].category_ids == splits["train"].category_ids
    assert load_dataset(root, "val").classes == names  # alone it keeps its own


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
