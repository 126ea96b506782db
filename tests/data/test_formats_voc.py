"""Pascal VOC: pixels counted from 1, image sets, difficult objects, and rubbish refused by file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.cases import voc_root, voc_xml, write_jpeg

from eyas.data.formats import find_splits, load_dataset
from eyas.data.formats.base import Problems
from eyas.data.formats.voc_xml import VocObject, parse_xml
from eyas.errors import UserError


def write_xml(root: Path, text: str) -> Path:
    """Replace the training image's XML."""
    path = root / "Annotations" / "a.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_pixels_are_counted_from_one(tmp_path: Path) -> None:
    index = load_dataset(voc_root(tmp_path), "train")
    assert index.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 12, 20]]
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [1, 0]
    assert index.path(0) == tmp_path / "JPEGImages" / "a.jpg"


def test_tools_that_count_from_zero_stay_in_the_frame(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_xml(root, voc_xml("a.jpg", [("cat", (0, 0.5, 9, 9)), ("cat", (-4, 3.5, 9, 9))]))
    assert load_dataset(root, "train").boxes.tolist() == [[0, 0, 9, 9], [-4, 2.5, 9, 9]]


def test_difficult_is_a_crowd(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_xml(root, voc_xml("a.jpg", [("cat", (1, 1, 9, 9))], difficult=1))
    assert load_dataset(root, "train").crowd.tolist() == [True]


def test_parts_of_objects_are_no_objects(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    write_xml(root, voc_xml("a.jpg", [("cat", (1, 1, 9, 9))]).replace("</object>", f"{part}</object>"))
    index = load_dataset(root, "train")
    assert index.classes == ("cat", "dog")
    assert len(index.boxes) == 1


def test_image_sets_that_are_splits(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    sets = root / "ImageSets" / "Main"
    (sets / "trainval.txt").write_text("a\nb\n")
    (sets / "cat_train.txt").write_text("a  1\nb -1\n")
    assert find_splits(root) == ("train", "val")
    (sets / "val.txt").unlink()
    assert find_splits(root) == ("train", "trainval")


def test_classes_file_fixes_the_order(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "classes.txt").write_text("dog\nbird\ncat\n")
    index = load_dataset(root, "train")
    assert index.classes == ("dog", "bird", "cat")
    assert index.labels.tolist() == [0, 2]
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(UserError, match="lacks the classes cat"):
        load_dataset(root, "train")


def test_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_xml(root, voc_xml("a.jpg", [("cat", (1, 1, 9, 9))], size=(0, 0)))
    assert load_dataset(root, "train").sizes.tolist() == [[30, 40]]


def test_image_of_another_type(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "a.jpeg")
    assert load_dataset(root, "train").path(0).name == "a.jpeg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", "a.xml:3: is not valid XML"),
        ("", "is not valid XML"),
        ("<html/>", "not <annotation>"),
        (voc_xml("a.jpg", [("", (1, 1, 2, 2))]), "object 1: has no name"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2)), ("cat", (1, 1, 2, float("nan")))]), "object 2: the bndbox of 'cat'"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2))]).replace("<xmax>2</xmax>", ""), "object 1: the bndbox"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2))]).replace("<xmax>2", "<xmax>two"), "'two'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>', "declares XML entities"),
    ],
)
def test_rubbish_is_refused_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    path = write_xml(root, text)
    with pytest.raises(UserError) as caught:
        load_dataset(root, "train", format="voc")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_listed_image_without_xml_is_refused(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nghost\n")
    with pytest.raises(UserError, match="1 images without an XML file: ghost"):
        load_dataset(root, "train")


def test_other_xml_is_no_voc(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "annotations.xml").write_text("<annotations><image/></annotations>")
    with pytest.raises(UserError, match="No dataset was found"):
        load_dataset(tmp_path)


def test_parse_xml_collects_what_it_can_read(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(voc_xml("x.jpg", [("cat", (1, 2, 3, 4)), ("", (1, 1, 2, 2))]).replace("<width>40", "<width>wide"))
    problems = Problems(path)
    annotation = parse_xml(path, problems)
    assert annotation.objects == (VocObject("cat", (1, 2, 3, 4), False),)
    assert annotation.size == (30, 0)
    assert problems.count == 1
