"""The columnar index: rows follow their images; several indexes have the same classes by one rule for every verb."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.cases import CLASSES, coco_root, edit_coco

from eyas.checks import check_class_names
from eyas.data.checks.check import check_dataset
from eyas.data.concat import concatenate, same_classes
from eyas.data.formats import load_dataset, load_splits
from eyas.data.index import DatasetIndex, build_index, id_columns
from eyas.data.paths import FileTable
from eyas.errors import UserError, shorten
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.predictions import Predictions
from eyas.training.data import DetectionData
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val


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


def test_rows_are_sorted_by_image(index: DatasetIndex, tmp_path: Path) -> None:
    assert len(index) == 3 and index.offsets.tolist() == [0, 2, 2, 3]
    boxes, labels, crowd = index.truth(0)
    assert boxes.tolist() == [[1, 2, 3, 4], [2, 2, 8, 9]] and np.shares_memory(boxes, index.boxes)
    assert labels.tolist() == [0, 1] and crowd.tolist() == [False, True]
    assert index.truth(1)[0].shape == (0, 4)
    assert index.image_of_row().tolist() == [0, 0, 2]
    assert index.areas.tolist() == [3.0, 42.0, 25.0]  # the given one, or the box's
    assert list(index.files) == [tmp_path / "a.jpg", tmp_path / "é b.jpg", tmp_path / "sub" / "c.jpg"]
    assert FileTable.build(tmp_path, ["/elsewhere/x.jpg"]).path(0) == Path("/elsewhere/x.jpg")


def test_subset_keeps_rows_with_their_images(index: DatasetIndex) -> None:
    picked = index.subset([2, 0])
    assert picked.image_ids.tolist() == [6, 7]
    assert picked.path(0).name == "c.jpg"
    assert picked.truth(0)[0].tolist() == [[0, 0, 5, 5]]
    assert picked.truth(1)[1].tolist() == [0, 1]
    assert picked.crowd.tolist() == [False, False, True]
    assert picked.areas.tolist() == [25.0, 3.0, 42.0]
    assert len(index.subset([])) == 0
    kept = index.keep_rows(np.array([False, True, True]))
    assert kept.offsets.tolist() == [0, 1, 1, 2] and kept.labels.tolist() == [1, 2]


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


def test_columns_that_do_not_fit_are_our_fault(index: DatasetIndex) -> None:
    with pytest.raises(AssertionError):
        dataclasses.replace(index, labels=index.labels[:-1])


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


def with_val_classes(root: Path, names: list[str], label: str) -> Path:
    """Return a COCO root whose validation split lists `names` and labels its one box as `label`."""

    def change(document: dict[str, Any]) -> None:
        document["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
        document["annotations"][0]["category_id"] = names.index(label) + 1

    return edit_coco(coco_root(root), change, "val")


def of_train(root: Path) -> DatasetIndex:
    return load_train_and_val(DataRecipe(root=str(root), batch_size=1))[1]


def of_splits(root: Path) -> DatasetIndex:
    return load_splits(root)["val"]


@pytest.mark.parametrize("read", [of_train, of_splits])
@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("traffic light", "dog", "cat"), "lists its classes in a different order from 'train'"),
        (("dog",), "does not list the classes cat, traffic light"),
        (
            ("zebra", "dog"),
            "lists classes that 'train' does not, without boxes: zebra, and does not list the classes cat",
        ),
        (("dog", "cat", "traffic light", "more"), "lists classes that 'train' does not, without boxes: more"),
    ],
)
def test_classes_are_matched_by_name(read: Any, names: tuple[str, ...], told: str, tmp_path: Path) -> None:
    root = with_val_classes(tmp_path, list(names), "dog")
    with pytest.warns(UserWarning, match=rf"The split 'val' {told}.*Classes are matched by name"):
        index = read(root)
    assert index.classes == CLASSES and index.labels.tolist() == [1]
    if read is of_splits:
        assert index.category_ids == load_dataset(root, "train").category_ids
    assert load_dataset(root, "val").classes == names  # alone it keeps its own


@pytest.mark.parametrize("read", [of_train, of_splits, check_dataset])
def test_boxes_of_an_unknown_class_are_refused_by_all(read: Any, tmp_path: Path) -> None:
    root = with_val_classes(tmp_path, ["dog", "dogg"], "dogg")
    with pytest.raises(
        UserError, match=r"'val' has boxes of .* 'train' does not list: 'dogg' \(did you mean 'dog'\?\)"
    ):
        read(root)


@pytest.mark.parametrize(
    ("names", "label", "classes", "told"),
    [
        (["dog", "zebra"], "zebra", (*CLASSES, "zebra"), "with 1 boxes, to be detected by name alone: zebra"),
        (["zebra", "yak", "cat"], "yak", (*CLASSES, "zebra", "yak"), "with 1 boxes, .*: zebra, yak"),
        (["zebra", "dog"], "dog", (*CLASSES, "zebra"), "with 0 boxes"),
        (["dog"], "dog", CLASSES, "does not list the classes cat, traffic light"),
    ],
)
def test_a_model_that_finds_classes_by_their_names_may_have_unseen_ones(
    names: list[str], label: str, classes: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    root = with_val_classes(tmp_path, names, label)
    with pytest.warns(UserWarning, match=f"The split 'val' .*{told}"):
        data = DetectionData(DataRecipe(root=str(root), batch_size=1), unseen=True)
    assert data.classes == data.train_index.classes == CLASSES  # the head is trained on no class that it never sees
    assert data.val_index.classes == classes and data.val_index.labels.tolist() == [classes.index(label)]
    assert data.train_index.labels.tolist() == [0, 2]


def test_unseen_classes_have_one_order_in_all_other_splits(tmp_path: Path) -> None:
    index = load_dataset(coco_root(tmp_path), "train")
    first, second = ("yak", "cat", "dog"), ("traffic light", "emu", "yak")
    others = {name: dataclasses.replace(index, split=name, classes=names) for name, names in
              (("val", first), ("test", second))}  # fmt: skip
    with pytest.warns(UserWarning):
        aligned = same_classes({"train": index, **others}, "here", "train", unseen=True)
    assert aligned["train"] is index
    assert aligned["val"].classes == aligned["test"].classes == (*CLASSES, "yak", "emu")
    named = {name: [each.classes[label] for label in each.labels] for name, each in aligned.items()}
    assert named == {"train": ["cat", "traffic light"], "val": ["yak", "dog"], "test": ["traffic light", "yak"]}


def test_evaluation_is_over_the_classes_that_the_split_has_boxes_of(tmp_path: Path) -> None:
    root = with_val_classes(tmp_path, ["dog", "zebra"], "zebra")
    more = {"id": 2, "category_id": 1, "bbox": [1, 1, 20, 20]}
    edit_coco(root, lambda d: d["annotations"].append({**d["annotations"][0], **more}), "val")
    with pytest.warns(UserWarning):
        _, val = load_train_and_val(DataRecipe(root=str(root), batch_size=1), unseen=True)
    order = np.argsort(-val.labels)  # all that is there
    every = Predictions(val.image_of_row()[order], val.boxes[order], np.ones(2, np.float32), val.labels[order])
    assert evaluate_predictions(val, every).ap == pytest.approx(1.0)
    seen = every[every.labels < len(CLASSES)]  # what a head with fixed classes can find: the same labels as in training
    result = evaluate_predictions(val, seen)
    assert result.ap == pytest.approx(0.5)  # of a dog and a zebra; cats and traffic lights are not looked for
    assert np.isnan(result.class_ap).tolist() == [True, False, True, False]


@pytest.mark.filterwarnings("error")
def test_splits_that_agree_say_nothing(tmp_path: Path) -> None:
    load_splits(coco_root(tmp_path))


@pytest.mark.parametrize(
    ("first", "second", "ids"),
    [
        ([1, 2], [3, 4], [1, 2, 3, 4]),
        ([1, 2], [2, 3], [1, 2, 3, 4]),  # one stands in both: numbered anew
        (["a", "b"], ["c", 2**64], ["a", "b", "c", 2**64]),
        (["1", "2"], [1, 2], ["1", "2", 1, 2]),
        (["a", "b"], ["b", "c"], [1, 2, 3, 4]),
    ],
)
def test_ids_of_joined_splits(first: list[Any], second: list[Any], ids: list[Any], tmp_path: Path) -> None:
    index = load_dataset(coco_root(tmp_path), "train")
    parts = []
    for given in (first, second):
        numbers, texts = id_columns(given)
        parts.append(dataclasses.replace(index, image_ids=numbers, id_texts=texts))
    joined = concatenate(parts, "all")
    assert joined.source_ids() == ids
    assert len(set(joined.image_ids.tolist())) == 4
