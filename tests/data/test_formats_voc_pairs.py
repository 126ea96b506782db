"""Which image a VOC annotation belongs to, and which a list names: namesakes never stand for each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.data.cases import voc_xml, write_jpeg

from eyas.data.formats import load_dataset, load_splits
from eyas.data.index import DatasetIndex
from eyas.errors import UserError

CAMS = ["cam1/1.jpg", "cam2/1.jpg"]


def dataset(root: Path, images: list[str], xmls: Mapping[str, str], lists: Mapping[str, str] | None = None) -> Path:
    """Write images, XML files (name -> <filename>; the n-th has a box n pixels wide) and lists of ImageSets."""
    for image in images:
        write_jpeg(root / "JPEGImages" / image)
    for number, (name, filename) in enumerate(xmls.items(), 1):
        path = root / "Annotations" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        folder, slash, plain = filename.partition("|")
        text = voc_xml(plain if slash else filename, [("c", (1, 1, number, 9))])
        path.write_text(text.replace("<filename>", f"<folder>{folder}</folder><filename>") if slash else text)
    for name, text in (lists or {}).items():
        path = root / "ImageSets" / "Main" / f"{name}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def widths(index: DatasetIndex) -> dict[str, int | None]:
    """Return image -> the width of its box, None for a background image."""
    names = [index.files.name(i).removeprefix("JPEGImages/") for i in range(len(index))]
    assert len(set(names)) == len(names)
    boxes = [index.truth(i)[0] for i in range(len(index))]
    return {name: round(float(b[0, 2])) if len(b) else None for name, b in zip(names, boxes, strict=True)}


@pytest.mark.parametrize(
    ("images", "xmls", "expected"),
    [
        (["IMG_5.jpg"], {"0001.xml": "IMG_5.jpg"}, {"IMG_5.jpg": 1}),
        (["IMG_5.jpg"], {"0001.xml": "C:\\data\\IMG_5.jpg"}, {"IMG_5.jpg": 1}),
        (["IMG_5.jpg"], {"0001.xml": "/users/me/set/IMG_5.jpg"}, {"IMG_5.jpg": 1}),
        (["IMG_5.png"], {"0001.xml": "IMG_5.jpg"}, {"IMG_5.png": 1}),
        (["IMG_5.png"], {"0001.xml": "IMG_5"}, {"IMG_5.png": 1}),
        (["a.jpg"], {"a.xml": "other.jpg"}, {"a.jpg": 1}),  # the stem comes first
        (["a.jpg", "other.jpg"], {"a.xml": "other.jpg", "other.xml": "a.jpg"}, {"a.jpg": 1, "other.jpg": 2}),
        (CAMS, {"cam1/1.xml": "1.jpg", "cam2/1.xml": "1.jpg"}, {"cam1/1.jpg": 1, "cam2/1.jpg": 2}),
        (CAMS, {"x.xml": "cam2/1.jpg", "y.xml": "cam1\\1.jpg"}, {"cam1/1.jpg": 2, "cam2/1.jpg": 1}),
        (CAMS, {"1.xml": "cam2/1.jpg"}, {"cam1/1.jpg": None, "cam2/1.jpg": 1}),
        (CAMS, {"1.xml": "cam2|1.jpg"}, {"cam1/1.jpg": None, "cam2/1.jpg": 1}),
        (["1.jpg", "2.jpg"], {"x/1.xml": "1.jpg", "y/2.xml": "2.jpg"}, {"1.jpg": 1, "2.jpg": 2}),
        (["x/1.jpg", "y/2.jpg"], {"1.xml": "1.jpg", "2.xml": "2.jpg"}, {"x/1.jpg": 1, "y/2.jpg": 2}),
        (["a.jpg", "b.jpg"], {"a.xml": "a.jpg"}, {"a.jpg": 1, "b.jpg": None}),
        (["a.jpg", "a.png"], {"a.xml": "a.png", "b.xml": "a.jpg"}, {"a.jpg": 2, "a.png": 1}),
        (["a.jpg", "._a.jpg"], {"a.xml": "a.jpg", "._a.xml": "x"}, {"a.jpg": 1}),
    ],
)  # fmt: skip
def test_images_of_annotations(
    images: list[str], xmls: dict[str, str], expected: dict[str, int | None], tmp_path: Path
) -> None:
    assert widths(load_dataset(dataset(tmp_path, images, xmls))) == expected


@pytest.mark.parametrize("named", ["a.jpg", "a.png"])
def test_two_images_of_one_stem(named: str, tmp_path: Path) -> None:
    """<filename> says which is meant; the other is most likely the same image, so it is no background."""
    root = dataset(tmp_path, ["a.jpg", "a.png"], {"a.xml": named})
    with pytest.warns(UserWarning, match="1 images without an annotation share"):
        assert widths(load_dataset(root)) == {named: 1}


@pytest.mark.parametrize(
    ("images", "xmls", "told"),
    [
        (["a.jpg", "a.png"], {"a.xml": "a.bmp"}, "a.xml: matches a.jpg, a.png"),
        (CAMS, {"1.xml": "1.jpg"}, "1.xml: matches cam1/1.jpg, cam2/1.jpg"),
        (["cam1/5.jpg", "cam2/5.jpg"], {"1.xml": "5.jpg"}, "1.xml: matches cam1/5.jpg, cam2/5.jpg"),
        (["1.jpg"], {"x/1.xml": "1.jpg", "y/1.xml": "1.jpg"}, "all belong to 1.jpg"),
        (["5.jpg"], {"1.xml": "5.jpg", "2.xml": "5.jpg"}, "all belong to 5.jpg"),
    ],
)
def test_what_stays_open_is_refused(images: list[str], xmls: dict[str, str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_dataset(dataset(tmp_path, images, xmls))
    assert told in str(caught.value)


def test_an_annotation_copied_from_another_image_takes_nothing_from_it(tmp_path: Path) -> None:
    root = dataset(tmp_path, ["a.jpg"], {"a.xml": "a.jpg", "b.xml": "a.jpg"})
    index = load_dataset(root)
    assert widths(index) == {"a.jpg": 1, "b.jpg": 2}
    assert not index.path(1).is_file()  # told as a missing image by the check


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0001", {"IMG_5.jpg": 1}), ("IMG_5", {"IMG_5.jpg": 1}), ("IMG_5.jpg", {"IMG_5.jpg": 1}),
        ("JPEGImages/IMG_5.jpg", {"IMG_5.jpg": 1}), ("C:\\x\\IMG_5.jpg", {"IMG_5.jpg": 1}),
        ("cam1/1", {"cam1/1.jpg": 2}), ("cam2\\1.jpg", {"cam2/1.jpg": 3}),
        ("\ufeff cam1/1 \u00a0\r", {"cam1/1.jpg": 2}),
    ],
)  # fmt: skip
def test_what_a_line_of_a_list_may_be(line: str, expected: dict[str, int], tmp_path: Path) -> None:
    xmls = {"0001.xml": "IMG_5.jpg", "cam1/1.xml": "1.jpg", "cam2/1.xml": "1.jpg"}
    root = dataset(tmp_path, ["IMG_5.jpg", "cam1/1.jpg", "cam2/1.jpg"], xmls, {"train": f"{line}\n"})
    assert widths(load_dataset(root, "train")) == expected


def test_a_line_that_fits_two_sub_folders_is_refused(tmp_path: Path) -> None:
    xmls = {"cam1/1.xml": "1.jpg", "cam2/1.xml": "1.jpg"}
    root = dataset(tmp_path, ["cam1/1.jpg", "cam2/1.jpg"], xmls, {"train": "1\n"})
    with pytest.raises(UserError, match="lists 1, which could be"):
        load_dataset(root, "train")


def test_names_that_look_like_flags(tmp_path: Path) -> None:
    """Lists of a class ("name flag") are no splits; names that end in a flag are names."""
    names = ["a", "b", "b 1", "b 2", "c -1", "d 0"]
    lists = {
        "train": "b 1\nc -1\nd 0\n", "val": "a\nb\nb 2\n",
        "cat_train": "a  1\nb -1\nc -1  0\n", "cat_val": "d 0  1\nb 2 -1\n",
    }  # fmt: skip
    root = dataset(tmp_path, [f"{n}.jpg" for n in names], {f"{n}.xml": f"{n}.jpg" for n in names}, lists)
    splits = load_splits(root)
    assert {name: list(widths(index)) for name, index in splits.items()} == {
        "train": ["b 1.jpg", "c -1.jpg", "d 0.jpg"], "val": ["a.jpg", "b.jpg", "b 2.jpg"]
    }  # fmt: skip


def test_flags_in_the_list_of_a_split_are_passed_over(tmp_path: Path) -> None:
    lists = {"train": "a  1\n", "val": "b -1\n"}
    root = dataset(tmp_path, ["a.jpg", "b.jpg"], {"a.xml": "", "b.xml": ""}, lists)
    assert {name: list(widths(index)) for name, index in load_splits(root).items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
    }


def test_a_missing_image_with_a_flag_in_its_name_is_told(tmp_path: Path) -> None:
    root = dataset(tmp_path, ["a.jpg"], {"a.xml": ""}, {"train": "a\nghost 1\n"})
    with pytest.raises(UserError, match="without an XML file: ghost 1"):
        load_dataset(root, "train")


def test_trainval_that_has_more_than_train_and_val(tmp_path: Path) -> None:
    lists = {"train": "a\n", "val": "b\n", "trainval": "a\nb\n"}
    root = dataset(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], {f"{n}.xml": "" for n in "abc"}, lists)
    assert set(load_splits(root)) == {"train", "val"}
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("a\nb\nc\n")
    assert set(load_splits(root)) == {"train", "val", "trainval"}


def test_a_split_of_sub_folders_alone_beside_others(tmp_path: Path) -> None:
    for place in ("train/c1/a", "train/c2/a", "val/a"):
        write_jpeg(tmp_path / f"{place}.jpg")
        (tmp_path / f"{place}.xml").write_text(voc_xml("a.jpg", [("cat", (1.0, 1.0, 9.0, 9.0))]))
    splits = load_splits(tmp_path)
    assert {name: list(split.files) for name, split in splits.items()} == {
        "train": [tmp_path / "train" / "c1" / "a.jpg", tmp_path / "train" / "c2" / "a.jpg"],
        "val": [tmp_path / "val" / "a.jpg"],
    }
    assert [len(split.boxes) for split in splits.values()] == [2, 1]


def test_an_empty_list_of_a_split_is_told(tmp_path: Path) -> None:
    root = dataset(tmp_path, ["a.jpg"], {"a.xml": "a.jpg"}, {"train": "a\n", "val": "\n"})
    with pytest.warns(UserWarning, match=r"Empty lists are not splits: val\.txt"):
        assert list(load_splits(root)) == ["train"]
