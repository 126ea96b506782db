"""What stood in a dataset: written, read, compared in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from eyas.artifacts.dataset import DatasetRecord, Row, class_changes
from eyas.data.formats import load_dataset
from eyas.data.record import hash_index, rows_of
from eyas.data.shapes import make_shapes
from eyas.errors import UserError

ROWS: list[Row] = [("train", f"{i}.jpg", "10", f"{i}") for i in range(5)]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (("a", "b"), ("a", "b"), []),
        (("a", "b"), ("b", "a"), ["moved: 'a' was at position 0, now at 1, 'b' was at position 1, now at 0"]),
        (("a", "b"), ("a",), ["removed: 'b'"]),
        (("a",), ("b", "a"), ["added: 'b'", "moved: 'a' was at position 0, now at 1"]),
        (("a", "b"), ("a", "c"), ["renamed: 'b' is now 'c'"]),
        (("a", "b", "c"), ("c", "x", "a"),
         ["renamed: 'b' is now 'x'", "moved: 'a' was at position 0, now at 2, 'c' was at position 2, now at 0"]),
        (("a", "b", "c"), ("b", "c", "x"),
         ["removed: 'a'", "added: 'x'", "moved: 'b' was at position 1, now at 0, 'c' was at position 2, now at 1"]),
    ],
)  # fmt: skip
def test_changes_of_classes_in_words(before: tuple[str, ...], now: tuple[str, ...], words: list[str]) -> None:
    assert class_changes(before, now) == words


OTHER: list[Row] = [*((*row[:2], "11", "x") for row in ROWS[:2]), *ROWS[2:]]


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        (ROWS, ROWS, []),
        (ROWS, ROWS[1:], ["1 image removed (train: 0.jpg)"]),
        (ROWS[:1], ROWS, ["4 images added (train: 1.jpg, train: 2.jpg, train: 3.jpg and 1 more)"]),
        (ROWS, ROWS[::-1], ["the order of the images"]),
        (ROWS, OTHER,
         ["2 images with a different file (train: 0.jpg, train: 1.jpg)",
          "2 images with different labels (train: 0.jpg, train: 1.jpg)"]),
    ],
)  # fmt: skip
def test_changes_of_images_in_words(before: Sequence[Row], now: Sequence[Row], words: list[str]) -> None:
    assert DatasetRecord(tuple(before)).changes(DatasetRecord(tuple(now))) == words


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = [*ROWS, ("val", "a\udcff, b\n.jpg", "-1", "")]
    DatasetRecord.write(tmp_path / "images.csv", iter(rows))
    assert DatasetRecord.read(tmp_path / "images.csv") == DatasetRecord(tuple(rows))


@pytest.mark.parametrize("text", ["", "split,image\n", "split,image,bytes,labels\ntrain,a.jpg,10\n"])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "images.csv").write_text(text)
    with pytest.raises(UserError, match=r"images.csv differs from what the run wrote"):
        DatasetRecord.read(tmp_path / "images.csv")


def test_what_is_changed_in_a_data_set_changes_its_hash_and_its_record(tmp_path: Path) -> None:
    make_shapes(tmp_path / "data", train=2, val=1, size=64)
    train = load_dataset(tmp_path / "data", "train")
    before, record = hash_index(train), DatasetRecord(tuple(rows_of({"train": train})))
    assert hash_index(load_dataset(tmp_path / "data", "train")) == before
    assert hash_index(train.keep_rows(train.labels >= 0)) == before
    assert hash_index(train.subset([1, 0])) != before
    image = train.path(1)
    image.write_bytes(image.read_bytes() + b"\0")
    assert hash_index(train) != before
    assert record.changes(DatasetRecord(tuple(rows_of({"train": train})))) == [
        f"1 image with a different file (train: {train.files.name(1)})"
    ]
    image.unlink()
    assert record.changes(DatasetRecord(tuple(rows_of({"train": train})))) == [
        f"1 image with a different file (train: {train.files.name(1)})"
    ]
