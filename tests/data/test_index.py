"""The columnar index: rows follow their images through subsets, class changes and merging."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.data.cases import CLASSES, small_index

from eyas.checks import check_class_names
from eyas.data.concat import concatenate
from eyas.data.index import DatasetIndex, build_index
from eyas.data.paths import FileTable
from eyas.errors import UserError, shorten


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    """Three images with 2, 0 and 1 boxes, given in the wrong order."""
    return build_index(
        root=tmp_path,
        split="train",
        classes=CLASSES,
        names=["a.jpg", "é b.jpg", "sub/c.jpg"],
        sizes=[(10, 20), (30, 40), (50, 60)],
        images=[2, 0, 0],
        boxes=[(0, 0, 5, 5), (1, 2, 3, 4), (2, 2, 8, 9)],
        labels=[2, 0, 1],
        crowd=[False, False, True],
        areas=[np.nan, 3.0, np.nan],
        image_ids=[7, 5, 6],
        category_ids=(10, 20, 30),
    )


def test_rows_are_sorted_by_image(index: DatasetIndex) -> None:
    assert len(index) == 3
    assert index.offsets.tolist() == [0, 2, 2, 3]
    boxes, labels, crowd = index.truth(0)
    assert boxes.tolist() == [[1, 2, 3, 4], [2, 2, 8, 9]]
    assert labels.tolist() == [0, 1]
    assert crowd.tolist() == [False, True]
    assert index.truth(1)[0].shape == (0, 4)
    assert index.image_of_row().tolist() == [0, 0, 2]


def test_area_is_the_given_one_or_the_boxs(index: DatasetIndex) -> None:
    assert index.areas.tolist() == [3.0, 42.0, 25.0]


def test_paths(index: DatasetIndex, tmp_path: Path) -> None:
    assert list(index.files) == [tmp_path / "a.jpg", tmp_path / "é b.jpg", tmp_path / "sub" / "c.jpg"]
    assert index.path(2) == index.files.path(2)
    assert FileTable.build(tmp_path, ["/elsewhere/x.jpg"]).path(0) == Path("/elsewhere/x.jpg")


def test_truth_is_a_view(index: DatasetIndex) -> None:
    assert np.shares_memory(index.truth(0)[0], index.boxes)


def test_subset_keeps_rows_with_their_images(index: DatasetIndex) -> None:
    picked = index.subset([2, 0])
    assert picked.image_ids.tolist() == [6, 7]
    assert picked.path(0).name == "c.jpg"
    assert picked.truth(0)[0].tolist() == [[0, 0, 5, 5]]
    assert picked.truth(1)[1].tolist() == [0, 1]
    assert picked.crowd.tolist() == [False, False, True]
    assert picked.areas.tolist() == [25.0, 3.0, 42.0]
    assert len(index.subset([])) == 0


def test_with_classes_renumbers_by_name(index: DatasetIndex) -> None:
    other = index.with_classes(("traffic light", "bird", "dog", "cat"))
    assert [other.classes[label] for label in other.labels] == [index.classes[label] for label in index.labels]
    assert other.category_ids == (30, 32, 20, 10)


def test_with_classes_refuses_or_drops_others(index: DatasetIndex) -> None:
    with pytest.raises(UserError, match="did you mean 'traffic lights'"):
        index.with_classes(("cat", "dog", "traffic lights"))
    dropped = index.with_classes(("cat", "dog"), drop=True)
    assert len(dropped) == 3
    assert dropped.offsets.tolist() == [0, 2, 2, 2]
    with pytest.raises(UserError, match="unexpected classes"):
        index.with_classes(("zebra",), drop=True)


def test_keep_rows(index: DatasetIndex) -> None:
    kept = index.keep_rows(np.array([False, True, True]))
    assert kept.offsets.tolist() == [0, 1, 1, 2]
    assert kept.labels.tolist() == [1, 2]


def test_columns_that_do_not_fit_are_our_fault(index: DatasetIndex) -> None:
    with pytest.raises(AssertionError):
        dataclasses.replace(index, labels=index.labels[:-1])


def test_concatenate_numbers_clashing_ids_anew(tmp_path: Path) -> None:
    first = small_index(tmp_path, [(1, 1, 2, 2)], [1], [0])
    second = dataclasses.replace(small_index(tmp_path, [(3, 3, 4, 4)], [0], [2]), split="val")
    whole = concatenate([first, second], "all")
    assert len(whole) == 4
    assert whole.image_ids.tolist() == [1, 2, 3, 4]
    assert whole.truth(2)[0].tolist() == [[3, 3, 4, 4]]
    apart = dataclasses.replace(second, image_ids=second.image_ids + 50)
    assert concatenate([first, apart], "all").image_ids.tolist() == [1, 2, 51, 52]


def test_an_annotation_costs_no_object(tmp_path: Path) -> None:
    """A million boxes on 100,000 images stay below 45 bytes a box, names included."""
    images = np.repeat(np.arange(100_000), 10)
    index = build_index(
        root=tmp_path, split="train", classes=("x",), names=[f"{i:012d}.jpg" for i in range(100_000)],
        sizes=np.ones((100_000, 2)), images=images, boxes=np.ones((1_000_000, 4)), labels=np.zeros(1_000_000),
    )  # fmt: skip
    columns = (index.sizes, index.image_ids, index.offsets, index.boxes, index.labels, index.crowd, index.areas)
    assert sum(c.nbytes for c in (*columns, index.files.text, index.files.offsets)) < 45e6


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a", " "]])
def test_bad_class_names(names: list[str]) -> None:
    with pytest.raises(UserError):
        check_class_names(names, "here")


def test_shorten() -> None:
    assert shorten(["a", "b", "c"], 2) == "a, b and 1 more"
    assert shorten(["a"], 2) == "a"
