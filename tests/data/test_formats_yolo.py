"""YOLO txt: names and splits of data.yaml, polygons, background images, and rubbish refused with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.data.cases import coco_root, write_jpeg, yolo_root

from eyas.data.formats import find_splits, load_dataset
from eyas.data.formats.base import Problems
from eyas.data.formats.yolo import _quoted
from eyas.data.formats.yolo_rows import RowLayout, parse_rows
from eyas.data.formats.yolo_yaml import find_yaml, read_yaml
from eyas.data.rewrite.convert import convert
from eyas.errors import UserError


def write_yaml(root: Path, text: str) -> None:
    (root / "data.yaml").write_text(text, encoding="utf-8")


def test_boxes_are_pixels(tmp_path: Path) -> None:
    index = load_dataset(yolo_root(tmp_path, "2 0.5 0.5 0.25 0.5\n\n 0 0.1 0.1 0.2 0.2 \n"), "train")
    assert index.boxes.ravel().tolist() == pytest.approx([15, 7.5, 25, 22.5, 0, 0, 8, 6])
    assert index.labels.tolist() == [2, 0]
    assert index.sizes.tolist() == [[30, 40]]
    assert index.classes == ("cat", "dog", "traffic light")


@pytest.mark.parametrize(
    ("rows", "extra", "box"),
    [
        ("1 0.1 0.2 0.5 0.1 0.3 0.9\n", "", [4, 3, 20, 27]),  # a polygon
        ("1 0.5 0.5 0.5 0.5 " + "0.9 0.9 2 " * 4, "kpt_shape: [4, 3]\n", [10, 7.5, 30, 22.5]),  # a box with keypoints
        ("0 0.5 0.5 1.000001 1.000001\n", "", [0, 0, 40, 30]),  # a hair outside: rounding
    ],
)
def test_what_else_a_row_may_hold(rows: str, extra: str, box: list[float], tmp_path: Path) -> None:
    root = yolo_root(tmp_path, rows)
    write_yaml(root, f"train: images/train\n{extra}names: [a, b]\n")
    assert load_dataset(root).boxes[0].tolist() == pytest.approx(box, abs=1e-3)


@pytest.mark.parametrize(
    "names",
    ["[cat, dog, bird]", "{0: cat, 1: dog, 2: bird}", "\n  0: cat\n  2: bird\n  1: dog", "\n- cat\n- dog\n- bird"],
)
def test_names_as_list_or_mapping(names: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_yaml(root, f"train: images/train\nnames: {names}\n")
    assert load_dataset(root).classes == ("cat", "dog", "bird")


@pytest.mark.parametrize(
    "entry", ["images/train", "./images/train", "../images/train", "/somewhere/else/../images/train/", "[images/train]"]
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


def test_parse_rows_goes_on_after_a_fault(tmp_path: Path) -> None:
    problems = Problems(tmp_path)
    data = b"1 0.5 0.5 1 1\r\nx\n0 0.25 0.25 0.5 0.5"
    rows = parse_rows(data, tmp_path / "a.txt", 2, lambda: RowLayout("polygon"), problems)
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


def test_an_image_listed_twice_shares_its_own_label_file(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    root = yolo_root(tmp_path)
    name = load_dataset(root, "train").path(0).relative_to(root).as_posix()
    (root / "train.txt").write_text(f"{name}\n{name}\n")
    write_yaml(root, "train: train.txt\nnames: [a, b, c]\n")
    assert len(load_dataset(root, "train")) == 2
    assert not [each for each in recwarn if "share a label file" in str(each.message)]


SCALARS = [
    "yes", "no", "on", "off", "y", "n", "true", "False", "NULL", "null", "~", "010", "0o10", "1.50", "1_000", "0x10",
    "1e3", "2024-01-01", "2024-13-45", "12:30:00", "1:60", ".inf", "-.INF", ".nan", "=", "<<", "0b11", "+1", "1.",
    "00", "-x",
]  # fmt: skip


def read(root: Path, names: str, extra: str = "") -> tuple[str, ...]:
    """Return the class names of a data.yaml with this value of "names"."""
    path = root / "data.yaml"
    path.write_text(f"train: images/train\nnames: {names}\n{extra}\n", encoding="utf-8")
    return read_yaml(path).classes


def test_names_are_the_text_that_stands_there(tmp_path: Path) -> None:
    assert read(tmp_path, f"[{', '.join(SCALARS)}]") == tuple(SCALARS)
    assert read(tmp_path, "\n" + "".join(f"  - {each}\n" for each in SCALARS)) == tuple(SCALARS)
    assert read(tmp_path, "\n" + "".join(f"  {i}: {each}\n" for i, each in enumerate(SCALARS))) == tuple(SCALARS)
    assert read(tmp_path, "{'0': yes, 1: no, \"2\": 010}", "nc: 3") == ("yes", "no", "010")
    assert read(tmp_path, "{01: b, 00: a, 2: c}", "nc: '3'") == ("a", "b", "c")


def test_quotes_keep_what_is_in_them(tmp_path: Path) -> None:
    names = "[' cat ', \"yes\", '010', \"a\\tb\", 'it''s', plain\u00a0, \u200bzero]"
    assert read(tmp_path, names) == (" cat ", "yes", "010", "a\tb", "it's", "plain", "zero")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("{0: a, 0: b, 1: c}", "the key '0' occurs twice"),
        ("{0: a, 00: b, 1: c}", "can't be read"),
        ("{0: a, 0x1: b}", "can't be read"),
        ("{0: a, -1: b}", "can't be read"),
        ("{yes: a}", "can't be read"),
        ("[[cat, dog]]", "can't be read"),
        ("{0: {name: cat}}", "can't be read"),
        ("cat", "can't be read"),
        ("&a [*a]", "contains itself"),
        ("&a {0: *a}", "contains itself"),
        ("[cat]\nother: &b {c: [*b]}", "contains itself"),
        ("[" * 2000, "not valid YAML"),
        ("!!python/object/apply:os.getcwd []", "There are no classes"),
    ],
)
def test_what_is_no_list_of_names_is_refused(names: str, message: str, tmp_path: Path) -> None:
    yolo_root(tmp_path)
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    with pytest.raises(UserError, match=message) as caught:
        load_dataset(tmp_path, "train")
    assert len(str(caught.value)) < 2000


def test_aliases_of_aliases_do_not_grow(tmp_path: Path) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)]
    write_yaml(tmp_path, "\n".join([*lines, "train: images", "names: *j"]))
    with pytest.raises(UserError, match="expands to more than"):
        read_yaml(tmp_path / "data.yaml")


def test_other_fields_mean_what_they_meant(tmp_path: Path) -> None:
    yolo_root(tmp_path)
    (tmp_path / "2017").mkdir()
    text = (
        "path: ~\ntrain: images/train\nval: null\ntest: ''\nval_share: 0.2\ntest_it: false\ntrain_2017: '2017'\n"
        "nc: 1\nnames: [a]\nversion: 2\nkpt_shape: null\n"
    )
    (tmp_path / "data.yaml").write_text(text)
    data = read_yaml(tmp_path / "data.yaml")
    assert data.splits == {"train": ("images/train",), "train_2017": ("2017",)}
    assert data.base == tmp_path
    assert data.kpt_shape is None


@pytest.mark.parametrize("shape", ["17", "[17]", "[0, 3]", "[17, 4]", "[a, b]", "{0: 1}"])
def test_a_shape_of_keypoints_that_is_none(shape: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="says kpt_shape"):
        read(tmp_path, "[a]", f"kpt_shape: {shape}")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings(encoding: str, tmp_path: Path) -> None:
    yolo_root(tmp_path)
    text = "train: images/train\r\nnames: [猫, yes]\r\n"
    (tmp_path / "data.yaml").write_bytes(text.encode(encoding))
    label = tmp_path / "labels" / "train" / "a.txt"
    label.write_bytes("0\u00a00.5 0.5\u200b 0.25\u30000.5\r\n".encode(encoding))
    index = load_dataset(tmp_path, "train")
    assert index.classes == ("猫", "yes")
    assert index.boxes.tolist() == [[15, 7.5, 25, 22.5]]


@given(
    st.one_of(
        st.sampled_from([*SCALARS, " a ", "a: b", "#", "'", '"', "\u00a0", "\x7f", "\u2028", "\ufeff", "😀"]), st.text()
    )
)
def test_written_names_are_text_to_other_readers(name: str) -> None:
    quoted = _quoted(name)
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return
    assert yaml.safe_load(f"names:\n  0: {quoted}\n") == {"names": {0: name}}


def test_a_dataset_with_such_names_survives_conversion(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace('"cat"', '"no"').replace('"dog"', '"010"'))
    for name in ("yolo", "voc", "coco"):
        convert(root, tmp_path / name, name)
        assert load_dataset(tmp_path / name, "train").classes[:2] == ("no", "010")
    fields = yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())
    assert fields["names"][0] == "no"


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("labels/train/a.txt", None, "has a label file.*labels/train/a.txt"),
        ("labels/train/a.txt", b"\x89PNG\r\n\x1a\n\xff\xd8", "is not text"),
        ("images/train/a.jpg", None, "has no image"),
        ("data.yaml", "train: images\nnames: [汽车]\n".encode("gbk"), r"data\.yaml is not UTF-8: line 2"),
    ],
)
def test_files_that_lack_or_are_no_text_are_refused(name: str, data: bytes | None, told: str, tmp_path: Path) -> None:
    path = yolo_root(tmp_path) / name
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(UserError, match=rf"(?s){told}"):
        load_dataset(tmp_path, "train")
