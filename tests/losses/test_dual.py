"""The loss of the head of two branches: against a plain loop, and what changes in the course of a run."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from tests.losses.test_detection import anchors, truths
from torch._subclasses.fake_tensor import FakeTensorMode

from eyas.assign.one_to_one import one_to_one
from eyas.assign.settings import TaskAlignedSettings
from eyas.errors import UserError
from eyas.head_output import DualOutput, HeadOutput
from eyas.losses.criterion import PaddedTruth, set_progress
from eyas.losses.detection import detection_loss
from eyas.losses.dual import DualCriterion
from eyas.losses.settings import DualSettings, LossSettings
from eyas.losses.weighting import weighed
from eyas.training.config_overrides import flatten, override
from eyas.training.recipe import Recipe

TERMS = ("class", "iou", "l1", "dense_class", "dense_iou", "dense_dfl")


def output(seed: int = 3, batch: int = 4, size: int = 64, classes: int = 5) -> DualOutput:
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchors(size)  # 84 anchor points

    def branch(values: torch.Tensor) -> HeadOutput:
        class_logits = torch.randn(batch, len(points), classes, generator=generator) - 2
        return HeadOutput(class_logits.requires_grad_(), values.requires_grad_(), points, strides)

    one_value, bins = (torch.randn(batch, len(points), 4 * count, generator=generator) for count in (1, 17))
    return DualOutput(branch(2 * one_value + 1), branch(bins))


def leaves(said: DualOutput) -> list[torch.Tensor]:
    """Return the four tensors that a head learns by."""
    return [value for branch in said for value in branch[:2]]


def sides_apart(one: list[float], other: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / 4


def giou(one: list[float], other: list[float]) -> float:
    common = max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(
        0.0, min(one[3], other[3]) - max(one[1], other[1])
    )
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = sum(areas) - common
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    return common / union - (hull - union) / hull


def plain(branch: HeadOutput, boxes, labels, counts, constants) -> tuple[float, float, float]:
    """Return class, 1 - GIoU and L1 of the one-to-one branch: sums, divided by that of the target scores."""
    points, strides = branch.anchor_points, branch.strides
    distances = [[[math.log1p(math.exp(v)) for v in cell] for cell in image] for image in branch.box_logits.tolist()]
    said = torch.tensor(distances)
    pixels = torch.cat([points - said[..., :2], points + said[..., 2:]], dim=-1) * strides
    found = one_to_one(branch.class_logits.sigmoid(), pixels, points * strides, boxes, labels, counts, constants)
    targets: dict[tuple[int, int, int], float] = {}
    iou_sum = l1_sum = 0.0
    for positive, anchor, row, quality in zip(*(value.tolist() for value in found), strict=True):
        if not positive:
            continue
        image, cell = divmod(anchor, len(points))
        targets[image, cell, int(labels[row])] = quality
        own = (pixels[image, cell] / strides[cell]).tolist()
        truth = (boxes[row] / strides[cell]).tolist()
        iou_sum += quality * (1 - giou(own, truth))
        l1_sum += quality * sides_apart(own, truth)
    class_sum = 0.0
    for image, cells in enumerate(branch.class_logits.tolist()):
        for cell, logits in enumerate(cells):
            for label, logit in enumerate(logits):
                p, target = 1 / (1 + math.exp(-logit)), targets.get((image, cell, label))
                wrong = -math.log(1 - p) if target is None else -target * math.log(p) - (1 - target) * math.log(1 - p)
                class_sum += (0.75 * p**2 if target is None else target) * wrong
    scores = max(sum(targets.values()), 1.0)
    return class_sum / scores, iou_sum / scores, l1_sum / scores


@pytest.mark.parametrize("kind", ["usual", "no objects", "more than anchors", "duplicates", "outside"])
def test_packed_and_padded_truth_give_the_plain_loss(kind: str) -> None:
    boxes, labels, counts = truths(kind)
    settings = LossSettings(class_weight=0.7, iou_weight=2.0, dual=DualSettings(l1_weight=0.9))
    said = output()
    sums = plain(said.one_to_one, boxes, labels, counts, settings.dual.assigner)
    expected = [0.55 * factor * value for factor, value in zip((0.7, 2.0, 0.9), sums, strict=True)]
    dense = detection_loss(
        *said.dense, boxes, labels, counts, settings
    )  # has a plain loop of its own to hold it against
    expected += [0.45 * float(value.detach()) for value in dense.values()]
    more = torch.rand(5, 4) * 64, torch.zeros(5, dtype=torch.int64)
    padded = PaddedTruth(torch.cat([boxes, more[0]]), torch.cat([labels, more[1]]), counts)
    gradients = []
    for truth in (SimpleNamespace(boxes=boxes, labels=labels, counts=counts), padded):
        said, criterion = output(), DualCriterion(settings)
        criterion.set_progress(0.5)
        terms = criterion(said, truth)
        assert tuple(terms) == criterion.terms == TERMS
        assert [float(value.detach()) for value in terms.values()] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        gradients.append(torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaves(said)))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-8)
    if kind == "usual":
        assert all(bool(gradient.any()) for gradient in gradients[0])


def test_its_weight_goes_over_from_the_dense_branch_to_the_other_in_a_straight_line() -> None:
    boxes, labels, counts = truths("usual")
    batch, said = SimpleNamespace(boxes=boxes, labels=labels, counts=counts), output()
    criterion = DualCriterion()
    place, seen = criterion.dense_weight.data_ptr(), []
    for progress in (None, 0.0, 0.25, 1.0):  # at first as at the start
        if progress is not None:
            set_progress(criterion, progress)
        seen.append(torch.stack(list(criterion(said, batch).values())).detach())
    assert criterion.dense_weight.data_ptr() == place  # what a replayed step reads stays where it is
    assert torch.equal(seen[0], seen[1])
    dense = [0.8, 0.8, 0.8 - 0.25 * 0.7, 0.1]
    for values, weight in zip(seen, dense, strict=True):
        torch.testing.assert_close(values[:3] / (1 - weight), seen[0][:3] / 0.2, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(values[3:] / weight, seen[0][3:] / 0.8, rtol=1e-5, atol=1e-7)


def test_how_far_a_run_is_comes_through_a_weighting_and_is_no_part_of_a_state() -> None:
    criterion = weighed(DualCriterion(), "uncertainty")
    set_progress(criterion, 1.0)
    assert float(criterion.inner.dense_weight) == pytest.approx(0.1)
    assert list(criterion.state_dict()) == ["log_variances"]


def test_padded_truth_needs_no_value_of_a_tensor() -> None:
    """Tensors without values stand for a device that one must not wait for."""
    criterion = DualCriterion()
    assert criterion.static
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        said = DualOutput(*(HeadOutput(*(mode.from_tensor(value.detach()) for value in each)) for each in output()))
        for value in leaves(said):
            value.requires_grad_()
        truth = PaddedTruth(*(mode.from_tensor(value) for value in truths("usual")))
        torch.stack(list(criterion(said, truth).values())).sum().backward()


def test_the_branches_share_their_normalisers_over_processes() -> None:
    seen: list[float] = []

    def keep(value: torch.Tensor) -> torch.Tensor:
        seen.append(float(value))
        return value * 2

    boxes, labels, counts = truths("usual")
    batch = SimpleNamespace(boxes=boxes, labels=labels, counts=counts)
    DualCriterion(None, keep)(output(), batch)
    assert len(seen) == 2 and all(value > 0 for value in seen) and seen[0] < seen[1]


REFUSED = [
    ({"extra": {"l2": 1.0}}, r"no loss term 'l2'"),
    ({"assignment": "task_alined"}, r"no assigner 'task_alined' \(did you mean 'task_aligned'"),
    ({"dual": {"dense_start": 1.5}}, r"loss\.dual\.dense_start is 1\.5"),
    ({"dual": {"dense_end": -0.1}}, r"loss\.dual\.dense_end is -0\.1"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_can_not_work_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DualCriterion(override(Recipe(), flatten({"loss": fields})).loss)


def test_a_recipe_carries_its_settings() -> None:
    changed = {"loss.dual.l1_weight": 2.0, "loss.dual.assigner.top_k": 5, "loss.extra": {"l1": 0.25}}
    recipe = override(Recipe(), changed)
    assert recipe.loss.dual == DualSettings(l1_weight=2.0, assigner=TaskAlignedSettings(top_k=5))
    assert override(Recipe(), flatten(recipe.to_dict())) == recipe
    criterion = DualCriterion(recipe.loss)
    assert criterion.terms == (*TERMS, "dense_l1") and criterion.box_weights == {"iou": 2.5, "l1": 2.0}
