"""The text of annotation files in any encoding, without guesses; what is no file is refused at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.cases import coco_root, voc_root, yolo_root

from eyas.data.formats import load_dataset
from eyas.data.formats.text import (
    decode,
    is_decoded,
    read_names,
    read_text,
    split_lines,
    strip_blanks,
    without_widthless,
)
from eyas.errors import UserError

UNICODE = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("text", ["0 0.5 0.5 0.1 0.1\n", "0", "猫\r\n狗\n", "a\n猫猫猫猫猫猫猫猫猫", "é\n", ""])
def test_unicode_with_and_without_a_mark(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("gbk", "猫"), ("GB2312", "汽车"), ("gb18030", "猫"), ("Shift_JIS", "ねこ"), ("Big5", "貓"),
        ("euc-kr", "고양이"), ("euc-jp", "猫"), ("iso-2022-jp", "猫"), ("iso-8859-1", "é"), ("windows-1252", "“é”"),
        ("koi8-r", "кот"),
    ],
)  # fmt: skip
def test_the_encoding_that_a_file_names(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding), encoding) == text


def test_names_of_encodings_are_taken_as_windows_takes_them() -> None:
    assert decode("朱镕基".encode("gbk"), "gb2312") == "朱镕基"  # the second sign is not in GB2312
    assert decode("“a”".encode("cp1252"), "iso-8859-1") == "“a”"


@pytest.mark.parametrize(
    "named",
    ["", "ANSI", "unicode", "utf8mb4", "x" * 1000, "\0", "hex", "rot13", "idna", "utf-7", "unicode_escape", "undefined",
     "utf-16", "UTF-32", "ascii", "latin1", "gbk"],
)  # fmt: skip
def test_plain_utf8_is_read_whatever_the_file_names(named: str) -> None:
    assert decode("汽车 cat".encode(), named) == "汽车 cat"


def test_bytes_that_are_not_understood_are_kept_and_seen() -> None:
    data = "汽车".encode("gbk")
    for named in ("", "utf-8", "ANSI"):
        text = decode(data, named)
        assert not is_decoded(text)
        assert text.encode("utf-8", "surrogateescape") == data


def test_read_text_refuses_an_unknown_encoding(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(b"cat\n" + "汽车".encode("gbk"))
    with pytest.raises(UserError, match="line 2") as caught:
        read_text(path)
    assert "iconv" in caught.value.fix


@pytest.mark.parametrize("encoding", UNICODE)
def test_names_a_line_each(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes(" cat\u00a0\r\n\u200b\r\n\u200btraffic light\u3000\r\n\ufeff010\n".encode(encoding))
    assert read_names(path) == ["cat", "traffic light", "010"]


def test_only_line_feeds_and_carriage_returns_end_lines() -> None:
    assert split_lines("a\x0bb\x85c\u2028d\r\ne\rf\n") == ["a\x0bb\x85c\u2028d", "e", "f"]
    assert split_lines("") == []
    assert split_lines("a\n\nb") == ["a", "", "b"]


def test_blanks_of_unicode() -> None:
    assert strip_blanks("\u00a0\u200b a\u00a0b \ufeff\u3000") == "a\u00a0b"
    assert without_widthless("\u200b0\u2060 0.5") == "0 0.5"


SETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "coco": (coco_root, "annotations/*.json"),
    "voc": (voc_root, "Annotations/*.xml"),
    "voc's list": (voc_root, "ImageSets/Main/*.txt"),
    "yolo": (yolo_root, "labels/train/*.txt"),
    "yolo's settings": (yolo_root, "data.yaml"),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("which", SETS)
def test_what_is_no_file_is_refused(tmp_path: Path, which: str, kind: str) -> None:
    make, pattern = SETS[which]
    root = make(tmp_path)
    for path in sorted(root.glob(pattern)):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
    with pytest.raises(UserError):
        load_dataset(root, "train")
