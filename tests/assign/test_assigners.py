"""What every way to assign keeps, and that a recipe chooses it by name."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType, SimpleNamespace

import pytest
import torch
from tests.losses.test_detection import anchors, case
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.assign import assigners
from eyas.assign.assigners import ASSIGNERS, Predicted, Truth
from eyas.assign.settings import TaskAlignedSettings
from eyas.errors import UserError
from eyas.head_output import HeadOutput
from eyas.losses.detection import DetectionCriterion, detection_loss
from eyas.losses.settings import LossSettings
from eyas.training.config_overrides import override
from eyas.training.recipe import Recipe

SETTINGS = TaskAlignedSettings()


def scene(padding: int = 0) -> tuple[Predicted, Truth]:
    """Return three images of 96 pixels with 2, 0 and 3 objects, and predictions that hold on to the truth somewhat."""
    generator = torch.Generator().manual_seed(0)
    points, strides = anchors(96)
    centres = points * strides
    counts = torch.tensor([2, 0, 3])
    corners = torch.tensor([[8.0, 8], [20, 30], [40, 4], [44, 8], [10, 50]])
    truth = torch.cat([corners, corners + torch.tensor([[40.0, 32], [24, 40], [48, 48], [48, 48], [30, 20]])], dim=-1)
    sides = (1 + 3 * torch.rand(3, len(points), 4, generator=generator)) * strides
    boxes = torch.cat([centres - sides[..., :2], centres + sides[..., 2:]], dim=-1)
    scores = torch.rand(3, len(points), 4, generator=generator)
    objects = Truth(torch.cat([truth, torch.zeros(padding, 4)]), torch.tensor([0, 1, 2, 3, 0] + padding * [0]), counts)
    return Predicted(scores, boxes, centres, strides), objects


@pytest.mark.parametrize("name", ASSIGNERS)
@pytest.mark.parametrize("padding", [0, 4])
def test_every_anchor_point_learns_one_object_of_its_own_image(name: str, padding: int) -> None:
    predicted, truth = scene(padding)
    found = ASSIGNERS[name].assign(predicted, truth, SETTINGS)
    positive, anchor, row, quality = found
    total = predicted.boxes[..., 0].numel()
    assert bool(((anchor >= 0) & (anchor < total) & (row >= 0) & (row < len(truth.boxes))).all())
    assert bool(((quality >= 0) & (quality <= 1)).all()) and not bool(quality[~positive].any())
    positive, anchor, row, quality = found.compact()
    assert len(set(anchor.tolist())) == len(anchor) > 0
    images = torch.repeat_interleave(truth.counts)
    assert bool((anchor // len(predicted.centres) == images[row]).all()), "of another image, or padding"
    centres, boxes = predicted.centres[anchor % len(predicted.centres)], truth.boxes[row]
    assert bool(((centres > boxes[:, :2]) & (centres < boxes[:, 2:])).all())
    assert set(row.tolist()) == set(range(5)), "an object that none learns"


@pytest.mark.parametrize("name", ASSIGNERS)
def test_images_without_objects_assign_nothing(name: str) -> None:
    predicted, truth = scene()
    none = Truth(truth.boxes[:0], truth.labels[:0], torch.zeros_like(truth.counts))
    assert not bool(ASSIGNERS[name].assign(predicted, none, SETTINGS).positive.any())


@pytest.mark.parametrize("name", [name for name, row in ASSIGNERS.items() if row.static])
def test_one_that_is_static_has_no_shape_that_depends_on_values(name: str) -> None:
    mode = FakeTensorMode()
    predicted, truth = scene(padding=3)
    with mode:
        fakes = [[mode.from_tensor(value) for value in values] for values in (predicted, truth)]
        ASSIGNERS[name].assign(Predicted(*fakes[0]), Truth(*fakes[1]), SETTINGS)


def test_a_recipe_chooses_one_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that assigns what the usual one does, at half the target score."""

    def halved(predicted: Predicted, truth: Truth, settings: TaskAlignedSettings) -> assigners.Assignment:
        usual = ASSIGNERS["task_aligned"].assign(predicted, truth, settings)
        return usual._replace(quality=usual.quality / 2)

    row = assigners.AssignerRow(halved, static=False)
    monkeypatch.setattr(assigners, "ASSIGNERS", MappingProxyType({**ASSIGNERS, "halved": row}))
    *output, boxes, labels, counts = case()
    usual = detection_loss(*output, boxes, labels, counts)
    settings = override(Recipe(), {"loss.assignment": "halved"}).loss
    criterion = DetectionCriterion(settings)
    terms = criterion(HeadOutput(*output), SimpleNamespace(boxes=boxes, labels=labels, counts=counts))
    assert not criterion.static and DetectionCriterion().static
    assert bool(usual["iou"] > terms["iou"]) and bool(usual["class"] != terms["class"])
    plain = DetectionCriterion(dataclasses.replace(settings, assignment="task_aligned"))
    terms = plain(HeadOutput(*output), SimpleNamespace(boxes=boxes, labels=labels, counts=counts))
    assert all(torch.equal(terms[name], usual[name]) for name in usual)


def test_one_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"no assigner 'task_alined' \(did you mean 'task_aligned'"):
        DetectionCriterion(LossSettings(assignment="task_alined"))
