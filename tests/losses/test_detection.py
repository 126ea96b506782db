"""Invariants of the whole loss: units, balance, normalisation, and sharing it over processes."""

from __future__ import annotations

import pytest
import torch

from eyas.losses.detection import detection_loss

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
