"""Invariants of the whole loss: units, balance, normalisation, and sharing it over processes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from eyas.assign.settings import Conflicts, TaskAlignedSettings
from eyas.assign.task_aligned import task_aligned
from eyas.losses.criterion import PaddedTruth
from eyas.losses.detection import DetectionCriterion, detection_loss
from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.settings import LossSettings
from eyas.losses.varifocal import varifocal
from eyas.tensor_boxes import boxes_from_bins

STRIDES = (8, 16, 32)


def anchors(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    points, strides = [], []
    for stride in STRIDES:
        axis = torch.arange(size // stride) + 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        points.append(torch.stack([x.flatten(), y.flatten()], dim=-1))
        strides.append(torch.full((points[-1].shape[0], 1), float(stride)))
    return torch.cat(points), torch.cat(strides)


def case(seed: int = 0, batch: int = 4, size: int = 128, classes: int = 5):
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchors(size)
    class_logits = torch.randn(batch, len(points), classes, generator=generator) - 4.6
    box_logits = torch.randn(batch, len(points), 68, generator=generator)
    counts = torch.tensor([2, 0, 3, 1])[:batch]
    total = int(counts.sum())
    top_left = torch.rand(total, 2, generator=generator) * 60
    truth = torch.cat([top_left, top_left + 16 + torch.rand(total, 2, generator=generator) * 48], dim=-1)
    labels = torch.randint(0, classes, (total,), generator=generator)
    return class_logits, box_logits, points, strides, truth, labels, counts


def test_terms_are_named_finite_and_within_a_decade_at_the_start() -> None:
    terms = detection_loss(*case())
    assert list(terms) == ["class", "iou", "dfl"]
    values = torch.stack(list(terms.values()))
    assert bool(values.isfinite().all())
    assert float(values.max() / values.min()) < 10


def test_box_terms_do_not_depend_on_the_pixel_scale() -> None:
    """The same scene at twice the size with twice the stride: the loss is in stride units."""
    class_logits, box_logits, points, strides, truth, labels, counts = case()
    small = detection_loss(class_logits, box_logits, points, strides, truth, labels, counts)
    large = detection_loss(class_logits, box_logits, points, strides * 2, truth * 2, labels, counts)
    for name in small:
        assert float(large[name]) == pytest.approx(float(small[name]), rel=1e-4)


def test_no_objects_leaves_only_the_class_term() -> None:
    class_logits, box_logits, points, strides, _, _, _ = case()
    class_logits.requires_grad_()
    terms = detection_loss(
        class_logits, box_logits, points, strides,
        torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(4, dtype=torch.int64),
    )  # fmt: skip
    assert float(terms["iou"]) == 0.0 and float(terms["dfl"]) == 0.0
    assert float(terms["class"].detach()) > 0.0
    sum(terms.values()).backward()
    assert bool(class_logits.grad.isfinite().all())


def test_a_perfect_prediction_costs_next_to_nothing() -> None:
    points, strides = anchors(128)
    truth = torch.tensor([[24.0, 24.0, 46.0, 46.0]])  # holds fewer anchor points than top-k
    box_logits = torch.full((1, len(points), 4, 17), -30.0)
    distances = torch.cat([points - truth[:, :2] / strides, truth[:, 2:] / strides - points], dim=-1).clamp(0, 15.99)
    low = distances.floor().long()
    box_logits[0].scatter_(-1, low[..., None], torch.log(1 - (distances - low) + 1e-9)[..., None])
    box_logits[0].scatter_(-1, low[..., None] + 1, torch.log(distances - low + 1e-9)[..., None])
    class_logits = torch.full((1, len(points), 2), -12.0)
    centres = points * strides
    inside = ((centres > truth[0, :2]) & (centres < truth[0, 2:])).all(dim=-1)
    class_logits[0, inside, 1] = 12.0
    terms = detection_loss(
        class_logits, box_logits.flatten(2), points, strides, truth, torch.tensor([1]), torch.tensor([1])
    )
    assert float(terms["class"]) < 1e-2
    assert float(terms["iou"]) < 1e-2


def test_two_halves_with_a_shared_normaliser_give_the_whole_batch_gradient() -> None:
    """What data-parallel processes compute, averaged, is what one process computes on the global batch."""
    class_logits, box_logits, points, strides, truth, labels, counts = case()
    class_logits = class_logits + 5  # confident enough for target scores that sum to more than the floor of 1
    box_logits = box_logits * 0.1 - 0.2 * (torch.arange(17) - 3).abs().repeat(4)
    whole = class_logits.clone().requires_grad_()
    sum(detection_loss(whole, box_logits, points, strides, truth, labels, counts).values()).backward()
    halves, sums = class_logits.clone().requires_grad_(), []
    split = int(counts[:2].sum())
    parts = [
        (slice(0, 2), truth[:split], labels[:split], counts[:2]),
        (slice(2, 4), truth[split:], labels[split:], counts[2:]),
    ]
    for rows, boxes, names, number in parts:  # first pass: every process's own sum

        def keep(value: torch.Tensor) -> torch.Tensor:
            sums.append(value)
            return value

        detection_loss(class_logits[rows], box_logits[rows], points, strides, boxes, names, number, None, keep)
    mean = sum(sums) / 2
    assert float(mean) > 1.0
    total = 0
    for rows, boxes, names, number in parts:
        terms = detection_loss(
            halves[rows], box_logits[rows], points, strides, boxes, names, number, None, lambda _: mean
        )
        total = total + sum(terms.values()) / 2
    total.backward()
    torch.testing.assert_close(halves.grad, whole.grad, rtol=1e-4, atol=1e-7)


def truths(kind: str, batch: int = 4, size: int = 64, classes: int = 5):
    """Return boxes, labels, counts of a batch that is special in one way."""
    generator = torch.Generator().manual_seed(len(kind))
    counts = {
        "no objects": [0, 0, 0, 0], "the first without": [0, 0, 3, 0], "the last with": [0, 0, 0, 2],
        "more than anchors": [90, 0, 0, 1], "usual": [2, 0, 3, 1], "duplicates": [4, 0, 2, 2], "outside": [2, 1, 1, 0],
    }[kind]  # fmt: skip
    total = sum(counts)
    top_left = torch.rand(total, 2, generator=generator) * size * 0.8
    boxes = torch.cat([top_left, top_left + 8 + torch.rand(total, 2, generator=generator) * size], dim=-1)
    if kind == "duplicates":
        boxes[1::2] = boxes[::2]
    if kind == "outside":
        boxes[::2] += 1000
    return boxes, torch.randint(0, classes, (total,), generator=generator), torch.tensor(counts)


def outputs(batch: int = 4, size: int = 64, classes: int = 5):
    generator = torch.Generator().manual_seed(3)
    points, strides = anchors(size)  # 84 anchor points
    class_logits = torch.randn(batch, len(points), classes, generator=generator) - 2
    box_logits = torch.randn(batch, len(points), 68, generator=generator)
    return class_logits.requires_grad_(), box_logits.requires_grad_(), points, strides


def plain_loss(class_logits, box_logits, points, strides, truth, labels, counts, settings):
    """The loss as the papers have it, over the positives alone."""
    logits = box_logits.unflatten(-1, (4, -1))
    boxes = boxes_from_bins(logits, points)
    assigned = task_aligned(
        class_logits.detach().sigmoid(), boxes.detach() * strides, points * strides, truth, labels, counts,
        settings.assigner,
    )  # fmt: skip
    normaliser, targets, boxed, sides = 0.0, torch.zeros_like(class_logits), [0.0], [0.0]
    for positive, anchor, row, quality in zip(*assigned, strict=True):
        if not positive:
            continue
        image, cell = divmod(int(anchor), len(points))
        normaliser += quality
        targets[image, cell, labels[row]] = quality.clamp(min=1e-30)
        target = truth[row] / strides[cell]
        distances = torch.cat([points[cell] - target[:2], target[2:] - points[cell]])
        boxed.append(giou_loss(boxes[image, cell][None], target[None])[0] * quality)
        sides.append(distribution_focal(logits[image, cell][None], distances[None])[0] * quality)
    normaliser = max(float(normaliser), 1.0)
    classed = varifocal(class_logits, targets, targets > 0).sum()
    return {"class": classed / normaliser, "iou": 2.5 * sum(boxed) / normaliser, "dfl": 0.5 * sum(sides) / normaliser}


@pytest.mark.parametrize("conflicts", ["takers", "all"])
@pytest.mark.parametrize(
    "kind", ["no objects", "the first without", "the last with", "more than anchors", "usual", "duplicates", "outside"]
)
def test_packed_and_padded_truth_give_the_plain_loss_and_its_gradients(kind: str, conflicts: Conflicts) -> None:
    settings = LossSettings(assigner=TaskAlignedSettings(conflicts=conflicts))
    boxes, labels, counts = truths(kind)
    output = outputs()
    expected = plain_loss(*output, boxes, labels, counts, settings)
    gradients = torch.autograd.grad(sum(expected.values()), output[:2], allow_unused=True)
    forms = [SimpleNamespace(boxes=boxes, labels=labels, counts=counts)]
    for rows in (0, 1, 30):
        more = torch.rand(rows, 4) * 64, torch.zeros(rows, dtype=torch.int64)
        forms.append(PaddedTruth(torch.cat([boxes, more[0]]), torch.cat([labels, more[1]]), counts))
    for truth in forms:
        output = outputs()
        terms = DetectionCriterion(settings)(output, truth)
        for name, wanted in expected.items():
            assert float(terms[name]) == pytest.approx(float(wanted), rel=1e-5, abs=1e-6)
        sum(terms.values()).backward()
        for logits, wanted in zip(output[:2], gradients, strict=True):
            wanted = torch.zeros_like(logits) if wanted is None else wanted
            torch.testing.assert_close(logits.grad, wanted, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("conflicts", ["takers", "all"])
def test_padded_truth_needs_no_value_of_a_tensor(conflicts: Conflicts) -> None:
    """Tensors without values stand for a device that one must not wait for; the other form is refused there."""
    criterion = DetectionCriterion(LossSettings(assigner=TaskAlignedSettings(conflicts=conflicts)))
    with FakeTensorMode() as mode:
        output = [mode.from_tensor(value.detach()).requires_grad_(value.requires_grad) for value in outputs()]
        truth = PaddedTruth(*(mode.from_tensor(value) for value in truths("usual")))
        sum(criterion(output, truth).values()).backward()
        with pytest.raises(DynamicOutputShapeException):
            detection_loss(*output, *truth, criterion.settings)
