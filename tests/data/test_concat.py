"""Several indexes: the same classes by one rule for every verb, and one index of all."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.cases import CLASSES, coco_root

from eyas.data.checks.check import check_dataset
from eyas.data.concat import concatenate, same_classes
from eyas.data.formats import load_dataset, load_splits
from eyas.data.index import DatasetIndex, id_columns
from eyas.errors import UserError
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.predictions import Predictions
from eyas.training.data import DetectionData
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val


def with_val_classes(root: Path, names: list[str], label: str) -> Path:
    """Return a COCO root whose validation split lists `names` and labels its one box as `label`."""
    coco_root(root)
    path = root / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    document["categories"] = [{"id": i, "name": name} for i, name in enumerate(names, 1)]
    document["annotations"][0]["category_id"] = names.index(label) + 1
    path.write_text(json.dumps(document))
    return root


def of_train(root: Path) -> DatasetIndex:
    return load_train_and_val(DataRecipe(root=str(root), batch_size=1))[1]


def of_splits(root: Path) -> DatasetIndex:
    return load_splits(root)["val"]


@pytest.mark.parametrize("read", [of_train, of_splits])
@pytest.mark.parametrize(
    "names", [["traffic light", "dog", "cat"], ["dog"], ["dog", "zebra"], ["dog", "cat", "traffic light", "more"]]
)
def test_order_and_number_of_classes_do_not_matter(read: Any, names: list[str], tmp_path: Path) -> None:
    root = with_val_classes(tmp_path, names, "dog")
    with pytest.warns(UserWarning, match=r"The split 'val' .*Classes are matched by name"):
        index = read(root)
    assert index.classes == CLASSES and index.labels.tolist() == [1]


@pytest.mark.parametrize("read", [of_train, of_splits, check_dataset])
def test_boxes_of_an_unknown_class_are_refused_by_all(read: Any, tmp_path: Path) -> None:
    root = with_val_classes(tmp_path, ["dog", "zebra"], "zebra")
    with pytest.raises(UserError, match="'val' has boxes of classes that the split 'train' does not list: 'zebra'"):
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
    path = root / "annotations" / "instances_val.json"
    document = json.loads(path.read_text())
    document["annotations"].append({**document["annotations"][0], "id": 2, "category_id": 1, "bbox": [1, 1, 20, 20]})
    path.write_text(json.dumps(document))
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
