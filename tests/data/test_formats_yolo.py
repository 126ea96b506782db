"""YOLO txt: the oddities of data.yaml, polygons, background images, and rubbish refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.cases import write_jpeg, yolo_root

from eyas.data.formats import find_splits, load_dataset
from eyas.data.formats.base import Problems
from eyas.data.formats.yolo_rows import Layout, parse_rows
from eyas.data.formats.yolo_yaml import find_yaml, read_yaml
from eyas.errors import UserError


def write_yaml(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text, encoding="utf-8")


def test_boxes_are_pixels(tmp_path: Path) -> None:
    index = load_dataset(yolo_root(tmp_path, "2 0.5 0.5 0.25 0.5\n\n 0 0.1 0.1 0.2 0.2 \n"), "train")
    assert index.boxes.ravel().tolist() == pytest.approx([15, 7.5, 25, 22.5, 0, 0, 8, 6])
    assert index.labels.tolist() == [2, 0]
    assert index.sizes.tolist() == [[30, 40]]
    assert index.classes == ("cat", "dog", "traffic light")


def test_polygon_becomes_its_box(tmp_path: Path) -> None:
    index = load_dataset(yolo_root(tmp_path, "1 0.1 0.2 0.5 0.1 0.3 0.9\n"), "train")
    assert index.boxes[0].tolist() == pytest.approx([4, 3, 20, 27])


def test_keypoints_after_the_box_are_left_out(tmp_path: Path) -> None:
    root = yolo_root(tmp_path, "1 0.5 0.5 0.5 0.5 " + "0.9 0.9 2 " * 4 + "\n")
    write_yaml(root, "train: images/train\nkpt_shape: [4, 3]\nnames: [a, b]\n")
    assert load_dataset(root).boxes.tolist() == [[10, 7.5, 30, 22.5]]


@pytest.mark.parametrize(
    "names",
    ["[cat, dog, bird]", "{0: cat, 1: dog, 2: bird}", "\n  0: cat\n  2: bird\n  1: dog", "\n- cat\n- dog\n- bird"],
)
def test_names_as_list_or_mapping(names: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_yaml(root, f"train: images/train\nnames: {names}\n")
    assert load_dataset(root).classes == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    "entry",
    ["images/train", "./images/train", "../images/train", "/somewhere/else/../images/train/", "[images/train]"],
)
def test_where_a_split_may_be(entry: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path / "set")
    if entry.startswith("/"):
        entry = str(root / "images" / "train")
    write_yaml(root, f"train: {entry}\nnames: [a]\n")
    assert load_dataset(root).path(0) == root / "images" / "train" / "a.jpg"


def test_roboflow_layout_beside_a_namesake(tmp_path: Path) -> None:
    """Roboflow writes ../train/images for what lies beside data.yaml, even if the parent has such a folder too."""
    root = tmp_path / "export"
    for folder in (root / "train", root / "valid", tmp_path / "train"):
        write_jpeg(folder / "images" / "x.jpg")
        (folder / "labels").mkdir()
        (folder / "labels" / "x.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    write_yaml(root, "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['a']\n")
    with pytest.warns(UserWarning, match="test split that does not exist"):
        index = load_dataset(root, "train")
    assert index.path(0) == root / "train" / "images" / "x.jpg"
    with pytest.warns(UserWarning):
        assert find_splits(root) == ("train", "val")


@pytest.mark.parametrize("base", [".", "", "gone/elsewhere", "/nowhere/at/all"])
def test_path_line_that_may_be_of_another_machine(base: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_yaml(root, f"path: {base}\ntrain: images/train\nnames: [a]\n")
    assert len(load_dataset(root)) == 1


def test_path_line_is_followed(tmp_path: Path) -> None:
    yolo_root(tmp_path / "deep" / "set")
    write_yaml(tmp_path, "path: deep/set\ntrain: images/train\nnames: [a]\n")
    assert load_dataset(tmp_path).path(0) == tmp_path / "deep" / "set" / "images" / "train" / "a.jpg"


def test_list_of_images(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_jpeg(root / "images" / "train" / "unlisted.jpg")
    absolute = root / "images" / "val" / "a.jpg"
    (root / "train.txt").write_text(f"./images/train/a.jpg\n\n{absolute}\n")
    write_yaml(root, "train: train.txt\nnames: [a]\n")
    index = load_dataset(root)
    assert list(index.files) == [root / "images" / "train" / "a.jpg", absolute]
    assert len(index.boxes) == 2


def test_labels_beside_the_images(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train" / "a.jpg")
    (tmp_path / "train" / "a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    write_yaml(tmp_path, "train: train\nnames: [a]\n")
    assert len(load_dataset(tmp_path).boxes) == 1


def test_yaml_given_directly_and_of_another_name(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "data.yaml").rename(root / "my-pets.yaml")
    assert len(load_dataset(root, "train")) == 1
    assert len(load_dataset(root / "my-pets.yaml", "val")) == 1


def test_image_without_label_file_is_background(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_jpeg(root / "images" / "train" / "b.jpg")
    (root / "labels" / "train" / "c.txt").write_text("")
    write_jpeg(root / "images" / "train" / "c.png.jpg")
    index = load_dataset(root, "train")
    assert index.offsets.tolist() == [0, 1, 1, 1]


def test_no_label_file_at_all_is_refused(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "labels" / "train" / "a.txt").unlink()
    with pytest.raises(UserError, match="has a label file") as caught:
        load_dataset(root, "train")
    assert "labels/train/a.txt" in caught.value.expected


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("hello", "not numbers"),
        ("0 0.5 0.5 x 0.5", "not numbers"),
        ("0 0.5 0.5 0.5", "4 numbers"),
        ("0 0.5 0.5 0.5 0.5 0.9", "a detector's output"),
        ("0 0.1 0.1 0.5 0.5 0.9 0.9 0.9", "8 numbers"),
        ("3 0.5 0.5 0.5 0.5", "the class 3 is not in 0..2"),
        ("-1 0.5 0.5 0.5 0.5", "the class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "the class 0.5"),
        ("nan 0.5 0.5 0.5 0.5", "the class nan"),
        ("inf 0.5 0.5 0.5 0.5", "the class inf"),
        ("0 nan 0.5 0.5 0.5", "not finite"),
        ("0 320 240 50 50", "not a fraction"),
        ("0 0.5 0.5 1.02 0.5", "not a fraction"),
        ("0 -0.02 0.5 0.2 0.5", "not a fraction"),
    ],
)
def test_rubbish_is_refused_with_file_and_line(row: str, fault: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path, f"0 0.5 0.5 0.5 0.5\n\n{row}\n")
    with pytest.raises(UserError) as caught:
        load_dataset(root, "train")
    assert fault in str(caught.value)
    assert f"{root / 'labels' / 'train' / 'a.txt'}:3:" in str(caught.value)


def test_a_hair_outside_is_rounding(tmp_path: Path) -> None:
    index = load_dataset(yolo_root(tmp_path, "0 0.5 0.5 1.000001 1.000001\n"), "train")
    assert index.boxes[0].tolist() == pytest.approx([0, 0, 40, 30], abs=1e-3)


def test_binary_label_file_is_refused(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "labels" / "train" / "a.txt").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xd8")
    with pytest.raises(UserError, match="is not text"):
        load_dataset(root, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a", "is not valid YAML"),
        ("- 1", "lists no classes"),
        ("train: images/train", "lists no classes"),
        ("names: [a, b]", "lists no split"),
        ("train: images/train\nnames: 5", "can't be read"),
        ("train: images/train\nnames: {1: a, 2: b}", "can't be read"),
        ("train: images/train\nnames: {x: a}", "can't be read"),
        ("train: images/train\nnc: 3\nnames: [a, b]", "nc: 3 but has 2 names"),
        ("train: images/train\nnames: [a, a]", "Duplicate class names"),
        ("train: images/gone\nnames: [a]", "no such folder"),
    ],
)
def test_bad_yaml_is_refused(text: str, message: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_yaml(root, text)
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(root, "train")
    assert "data.yaml" in str(caught.value)


def test_a_broken_image_loses_its_boxes_with_a_warning(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "images" / "train" / "b.jpg").write_bytes(b"")
    (root / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.warns(UserWarning, match=r"1 of 2 images can't be read.*b\.jpg"):
        index = load_dataset(root, "train")
    assert index.sizes.tolist() == [[30, 40], [0, 0]]
    assert index.offsets.tolist() == [0, 1, 1]


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "images" / "train" / "a.jpg").unlink()
    with pytest.raises(UserError, match="has no image"):
        load_dataset(root, "train")


def test_parse_rows_goes_on_after_a_fault(tmp_path: Path) -> None:
    problems = Problems(tmp_path)
    data = b"1 0.5 0.5 1 1\r\nx\n0 0.25 0.25 0.5 0.5"
    rows = parse_rows(data, tmp_path / "a.txt", 2, lambda: Layout("polygon"), problems)
    assert rows == [(1, (0, 0, 1, 1)), (0, (0, 0, 0.5, 0.5))]
    assert problems.count == 1


def test_other_keys_of_a_yaml_are_no_splits(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_yaml(
        root,
        "path: .\ntrain: images/train\nval_seen: images/val\nextra: images/val\nauthor: me\ndownload: images/val\n"
        "roboflow: {workspace: x}\nnames: [a]\n",
    )
    assert find_yaml(root) == root / "data.yaml"
    assert set(read_yaml(root / "data.yaml").splits) == {"train", "val_seen", "extra"}


def test_images_that_share_a_label_file_are_told(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    first = load_dataset(root, "train").path(0)
    write_jpeg(first.with_suffix(".jpeg"))
    with pytest.warns(UserWarning, match=r"1 images share a label file with an image"):
        assert len(load_dataset(root, "train").boxes) >= 2


def test_a_image_listed_twice_shares_its_own_label_file(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    root = yolo_root(tmp_path)
    name = load_dataset(root, "train").path(0).relative_to(root).as_posix()
    (root / "train.txt").write_text(f"{name}\n{name}\n")
    write_yaml(root, "train: train.txt\nnames: [a, b, c]\n")
    assert len(load_dataset(root, "train")) == 2
    assert not [each for each in recwarn if "share a label file" in str(each.message)]
