"""Class names of a data.yaml are the text that stands there, and what is written is text to every reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.data.cases import coco_root, yolo_root

from eyas.data.formats import load_dataset
from eyas.data.formats.yolo import _quoted
from eyas.data.formats.yolo_yaml import read_yaml
from eyas.data.rewrite.convert import convert
from eyas.errors import UserError

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
        ("[" * 5000, "not valid YAML"),
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
    with pytest.raises(UserError, match="expands to more than"):
        (tmp_path / "data.yaml").write_text("\n".join([*lines, "train: images", "names: *j"]))
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


def test_names_in_an_unknown_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_bytes("train: images\nnames: [汽车]\n".encode("gbk"))
    with pytest.raises(UserError, match=r"data\.yaml is not UTF-8: line 2"):
        load_dataset(tmp_path, "train")


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
