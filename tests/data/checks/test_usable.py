"""What training and evaluation can see of a split, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.data.cases import coco_root, edit_coco, small_index, voc_root

from eyas.data.augment.config import AugmentPolicy
from eyas.data.checks.check import check_dataset
from eyas.data.checks.usable import CROWD, NO_AREA, NOT_FINITE, measured_boxes, trained_boxes
from eyas.data.formats import load_dataset
from eyas.data.loading.loader import train_loader
from eyas.data.shapes import make_shapes
from eyas.errors import UserError
from eyas.evaluation.coco import check_truth
from eyas.training.data import DetectionData
from eyas.training.preflight import check_labels
from eyas.training.recipe import DataRecipe
from eyas.training.splits import load_train_and_val
from eyas.types import InputSpec

STILL = AugmentPolicy.none()


def test_each_box_counts_for_its_first_reason(tmp_path: Path) -> None:
    boxes = [(2, 2, 20, 20), (1, 1, 9, 9), (5, 5, 5, 9), (50, 0, 60, 9), (0, 0, float("nan"), 9), (3, 3, 3.5, 20)]
    index = small_index(tmp_path, boxes, [0] * 6, [0] * 6)
    index.crowd[1] = True
    usable = trained_boxes(index, (40, 40), STILL)
    assert usable.kept.tolist() == [True, False, False, False, False, False]
    small = "too small (side below 1 pixels or area below 1 square pixels at 40)"
    assert dict(usable.left_out) == {CROWD: 1, NOT_FINITE: 1, NO_AREA: 2, small: 1}
    assert usable.told() == f"1 {CROWD}, 1 {NOT_FINITE}, 2 {NO_AREA}, 1 {small}"
    assert measured_boxes(index).kept.tolist() == [True, False, False, False, False, True]


@pytest.mark.parametrize("policy", [STILL, AugmentPolicy(mixup=0.0), AugmentPolicy(mosaic=0.0, scale=(1.0, 1.0))])
def test_what_is_left_out_is_what_the_loader_never_gives(policy: AugmentPolicy, tmp_path: Path) -> None:
    """Boxes of every size: those that the loader gives in some epoch are those that are said to be trained on."""
    root = make_shapes(tmp_path / "shapes", train=1, val=1, size=64)
    index = load_dataset(root, "train")
    sides = (0.5, 0.9, 1.5, 3.0, 6.0, 12.0)
    many = small_index(root, [(20, 10, 20 + side, 10 + side) for side in sides], [0] * 6, [0] * 6)
    given = []
    for row in range(len(sides)):
        one = many.keep_rows(np.arange(6) == row).subset([0])
        one = type(one)(**{**vars(one), "files": index.files, "sizes": index.sizes})
        loader = train_loader(one, InputSpec(64, 64, 0), policy, batch_size=1)
        given.append(any(int(batch.counts.sum()) for _ in range(30) for batch in loader))
        said = trained_boxes(one, (64, 64), policy).kept.tolist()
        assert said == given[-1:], (sides[row], said)
    assert given[-1] and not given[0]


def spoil(root: Path, change: Callable[[dict[str, Any]], object], split: str = "train") -> Path:
    """Change every annotation of a split and return the root."""
    return edit_coco(root, lambda d: [change(each) for each in d["annotations"]], split)


NOTHING: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "crowd": (lambda a: a.update(iscrowd=1), f"2 {CROWD}"),
    "crowd in words": (lambda a: a.update(iscrowd="true"), f"2 {CROWD}"),
    "no area": (lambda a: a.update(bbox=[5, 5, 0, 9]), f"2 {NO_AREA}"),
    "negative": (lambda a: a.update(bbox=[5, 5, -3, 9]), f"2 {NO_AREA}"),
    "outside": (lambda a: a.update(bbox=[50, 5, 9, 9]), f"2 {NO_AREA}"),
    "too small": (lambda a: a.update(bbox=[5, 5, 0.4, 0.5]), "2 too small"),
}


@pytest.mark.parametrize("case", NOTHING)
def test_training_on_nothing_stops_and_the_check_says_the_same(case: str, tmp_path: Path) -> None:
    change, told = NOTHING[case]
    root = spoil(coco_root(tmp_path), change)
    with pytest.raises(UserError, match=f"nothing to train on.*2 images and 2 boxes, of which {told}"):
        load_train_and_val(DataRecipe(root=str(root), batch_size=1, size=64))
    findings = [each for each in check_dataset(root, train_size=64).findings if each.kind == "nothing to train on"]
    assert [(each.level, each.split) for each in findings] == [("error", "train")]
    assert f"2 boxes, of which {told}" in findings[0].examples[0]


@pytest.mark.parametrize("case", [name for name in NOTHING if name != "too small"])
def test_validation_on_nothing_stops(case: str, tmp_path: Path) -> None:
    root = spoil(coco_root(tmp_path), NOTHING[case][0], "val")
    with pytest.raises(UserError, match="usable ground-truth box: 1 boxes, of which 1"):
        load_train_and_val(DataRecipe(root=str(root), batch_size=1, size=64))
    with pytest.raises(UserError, match="usable ground-truth box"):
        check_truth(load_dataset(root, "val"))
    assert ("nothing to evaluate", "error", "val") in {
        (each.kind, each.level, each.split) for each in check_dataset(root).findings
    }


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("True", True), ("1", True), ("yes", True), ("1 ", True), ("Unspecified", False), ("0 ", False), ("", False),
     ("false", False), ("False", False)],
)  # fmt: skip
def test_difficult_in_words(text: str, difficult: bool, tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    path = root / "Annotations" / "a.xml"
    path.write_text(
        path.read_text().replace(
            "<difficult>0</difficult>", f"<difficult>{text}</difficult><occluded>1</occluded><truncated>1</truncated>"
        )
    )
    assert load_dataset(root, "train").crowd.tolist() == [difficult, difficult]


def test_difficult_that_says_neither_is_refused(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    path = root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<difficult>0<", "<difficult>perhaps<"))
    with pytest.raises(UserError, match="<difficult> of 'dog' is 'perhaps', not 0 or 1"):
        load_dataset(root, "train")


def test_some_boxes_left_out_are_told_and_not_counted(tmp_path: Path) -> None:
    def change(annotation: dict[str, Any]) -> None:
        annotation["iscrowd"] = int(annotation["id"] == 1)

    root = spoil(coco_root(tmp_path), change)
    recipe = DataRecipe(root=str(root), batch_size=1, size=64, workers=0)
    with pytest.warns(UserWarning, match=f"1 of the 2 boxes of 'train' are used for training; left out: 1 {CROWD}"):
        data = DetectionData(recipe)
    assert data.trial_batch(4, epoch=0).indices.tolist() == [0]
    usable = trained_boxes(data.train_index, (64, 64), data.augment)
    text = check_labels(data.train_index, usable).text
    assert text.startswith("2 images, 1 boxes") and f"left out: 1 {CROWD}" in text and "never labelled: cat" in text
    report = check_dataset(root, train_size=64)
    assert (report.splits["train"].trained, report.splits["train"].left_out) == (1, {CROWD: 1})


def test_images_with_crowds_alone_are_not_tried_before_training(tmp_path: Path) -> None:
    root = coco_root(
        tmp_path, {"train": [(1, 1, (1, 1, 20, 20)), (2, 2, (1, 1, 20, 20))], "val": [(1, 1, (1, 1, 20, 20))]}
    )
    spoil(root, lambda a: a.update(iscrowd=int(a["image_id"] == 1)))
    with pytest.warns(UserWarning, match="left out"):
        data = DetectionData(DataRecipe(root=str(root), batch_size=1, size=64, workers=0), STILL)
    batch = data.trial_batch(4, epoch=0)
    assert batch.indices.tolist() == [0] and torch.equal(batch.labels, torch.tensor([1]))
