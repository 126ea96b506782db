"""One-to-one assignment against a plain loop: each object has one anchor point, unless neighbours took all of its."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.losses.test_detection import anchors

from eyas.assign.one_to_one import one_to_one
from eyas.assign.settings import TaskAlignedSettings

SETTINGS = TaskAlignedSettings(top_k=7)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    common = sides.clip(0).prod()
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common + 1e-9))


def plain(scores, boxes, centres, truth, labels, counts, settings) -> dict[int, tuple[int, float]]:
    """Return {object: (anchor point of the batch, target score)} as one would write it by hand."""
    image_of = np.repeat(np.arange(len(counts)), counts)
    wanted: dict[int, list[tuple[float, int, float]]] = {}  # object -> (alignment, anchor point, IoU), best first
    for item, image in enumerate(image_of):
        overlaps = np.array([iou(truth[item], box) for box in boxes[image]])
        inside = ((centres > truth[item, :2]) & (centres < truth[item, 2:])).all(axis=1)
        alignment = scores[image, :, labels[item]] ** settings.alpha * overlaps**settings.beta
        cells = sorted(np.flatnonzero(inside), key=lambda cell: -alignment[cell])[: settings.top_k]
        wanted[item] = [(alignment[cell], image * len(centres) + cell, overlaps[cell]) for cell in cells]
    found: dict[int, tuple[int, float]] = {}
    while any(wanted.values()):
        choices: dict[int, list[tuple[float, int]]] = {}  # anchor point -> (IoU, object)
        for item, rest in wanted.items():
            if rest:
                choices.setdefault(rest[0][1], []).append((rest[0][2], -item))
        for anchor, items in choices.items():
            overlap, item = max(items)
            found[-item] = (int(anchor), overlap)
        wanted = {
            item: [each for each in rest if each[1] not in choices]
            for item, rest in wanted.items()
            if item not in found
        }
    return found


def scene(seed: int, crowded: bool, size: int = 96):
    """Return predictions that hold on to the truth somewhat, and the truth of three images: some, no, some objects."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = anchors(size)
    counts = torch.tensor([9, 0, 7])
    corners = torch.rand(16, 2, generator=generator) * (24 if crowded else 60)
    truth = torch.cat([corners, corners + 10 + torch.rand(16, 2, generator=generator) * 30], dim=-1)
    sides = (0.5 + 3 * torch.rand(3, len(points), 4, generator=generator)) * strides
    boxes = torch.cat([points * strides - sides[..., :2], points * strides + sides[..., 2:]], dim=-1)
    scores = torch.rand(3, len(points), 4, generator=generator)
    return scores, boxes, points * strides, truth, torch.randint(0, 4, (16,), generator=generator), counts


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_plain_loops(seed: int, crowded: bool) -> None:
    given = scene(seed, crowded)
    expected = plain(
        *(value.double().numpy() if value.is_floating_point() else value.numpy() for value in given), SETTINGS
    )
    positive, anchor, row, quality = one_to_one(*given, SETTINGS).compact()
    assert bool(positive.all())
    found = {int(o): (int(a), float(q)) for o, a, q in zip(row, anchor, quality, strict=True)}
    assert found.keys() == expected.keys() and len(row) == len(expected), "an object twice, or not at all"
    for item, (at, overlap) in found.items():
        assert at == expected[item][0]
        assert overlap == pytest.approx(expected[item][1], rel=1e-5)


def test_one_that_lost_its_best_has_its_next_and_has_none_only_where_all_are_taken() -> None:
    centres = torch.tensor([[10.0, 10], [20, 10], [90, 90]])
    boxes = torch.tensor([[[0.0, 0, 30, 20], [2, 0, 30, 20], [80, 80, 100, 100]]])
    truth = torch.tensor([[0.0, 0, 30, 20], [1, 0, 29, 20], [85, 85, 95, 95], [80, 80, 100, 100]])
    scores = torch.tensor([[[0.9], [0.2], [0.9]]])
    labels, counts = torch.zeros(4, dtype=torch.int64), torch.tensor([4])
    _, anchor, row, quality = one_to_one(scores, boxes, centres, truth, labels, counts, SETTINGS).compact()
    found = {item: (at, value) for item, at, value in zip(row.tolist(), anchor.tolist(), quality.tolist(), strict=True)}
    # The second overlaps the first anchor point less than the first object does, which overlaps both of them more; the
    # third wants the last one, which overlaps the fourth object more.
    assert found == {0: (0, pytest.approx(1.0)), 1: (1, pytest.approx(27 / 29)), 3: (2, pytest.approx(1.0))}


@pytest.mark.parametrize("padding", [0, 5])
def test_padding_takes_nothing_and_equal_objects_have_one_each(padding: int) -> None:
    scores, boxes, centres, truth, labels, counts = scene(0, crowded=False)
    truth[1], labels[1] = truth[0], labels[0]
    more = torch.cat([truth, torch.rand(padding, 4)]), torch.cat([labels, torch.zeros(padding, dtype=torch.int64)])
    found = one_to_one(scores, boxes, centres, *more, counts, SETTINGS).compact()
    alone = one_to_one(scores, boxes, centres, truth, labels, counts, SETTINGS).compact()
    assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))
    assert {0, 1} <= set(found.object_index.tolist())
