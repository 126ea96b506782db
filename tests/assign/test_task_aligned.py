"""The assigner's rules, on hand-made cases and against a slow per-object reference."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from eyas.assign.settings import Conflicts, TaskAlignedSettings
from eyas.assign.task_aligned import task_aligned
from eyas.errors import UserError
from eyas.tensor_boxes import iou


def grid(size: int, stride: int) -> torch.Tensor:
    axis = (torch.arange(size) + 0.5) * stride
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=-1)


def random_case(seed: int, batch: int = 3, classes: int = 4):
    generator = torch.Generator().manual_seed(seed)
    centres = grid(8, 8)
    counts = torch.randint(0, 6, (batch,), generator=generator)
    total = int(counts.sum())
    top_left = torch.rand(total, 2, generator=generator) * 40
    truth = torch.cat([top_left, top_left + 4 + torch.rand(total, 2, generator=generator) * 30], dim=-1)
    labels = torch.randint(0, classes, (total,), generator=generator)
    scores = torch.rand(batch, 64, classes, generator=generator)
    distances = 2 + torch.rand(batch, 64, 4, generator=generator) * 20
    boxes = torch.cat([centres - distances[..., :2], centres + distances[..., 2:]], dim=-1)
    return scores, boxes, centres, truth, labels, counts


class Dense(NamedTuple):
    """What each anchor point [B, A] of a batch learns."""

    positive: torch.Tensor
    object_index: torch.Tensor
    quality: torch.Tensor


def assign(scores, boxes, centres, truth, labels, counts, settings=None) -> Dense:
    """Assign, and lay the list out over the anchor points; its entries that count have one each to themselves."""
    listed = task_aligned(scores, boxes, centres, truth, labels, counts, settings)
    kept = listed.compact()
    assert bool(kept.positive.all()) and kept.anchor.unique().tolist() == kept.anchor.tolist()
    assert bool((listed.quality[~listed.positive] == 0).all())
    shape = scores.shape[:2]
    dense = Dense(torch.zeros(shape, dtype=torch.bool), torch.zeros(shape, dtype=torch.int64), torch.zeros(shape))
    for values, laid_out in zip((kept.positive, kept.object_index, kept.quality), dense, strict=True):
        laid_out.view(-1)[kept.anchor] = values
    return dense


def reference(scores, boxes, centres, truth, labels, counts, settings):
    batch, anchors, _ = scores.shape
    quality = torch.zeros(batch, anchors)
    index = torch.full((batch, anchors), -1)
    start = 0
    for image, count in enumerate(counts.tolist()):
        takers = [[] for _ in range(anchors)]
        metrics, overlaps = {}, {}
        for row in range(start, start + count):
            overlap = iou(truth[row], boxes[image])
            inside = ((centres > truth[row, :2]) & (centres < truth[row, 2:])).all(dim=-1)
            metric = scores[image, :, labels[row]] ** settings.alpha * overlap**settings.beta
            for anchor in (metric * inside).topk(settings.top_k).indices.tolist():
                if inside[anchor]:
                    takers[anchor].append(row)
            metrics[row], overlaps[row] = metric, overlap
        for anchor, rows in enumerate(takers):
            if len(rows) > 1 and settings.conflicts == "all":
                rows = list(range(start, start + count))
            if rows:
                index[image, anchor] = max(rows, key=lambda r: (float(overlaps[r][anchor]), -r))
        for row in range(start, start + count):
            mine = index[image] == row
            if mine.any():
                best = metrics[row][mine].max()
                quality[image, mine] = metrics[row][mine] / best.clamp(min=1e-38) * overlaps[row][mine].max()
        start += count
    return index, quality


@pytest.mark.parametrize("conflicts", ["takers", "all"])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_per_object_reference(seed: int, conflicts: Conflicts) -> None:
    case = random_case(seed)
    settings = TaskAlignedSettings(top_k=5, conflicts=conflicts)
    index, quality = reference(*case, settings)
    assigned = assign(*case, settings)
    assert torch.equal(assigned.positive, index >= 0)
    assert torch.equal(assigned.object_index[assigned.positive], index[index >= 0])
    torch.testing.assert_close(assigned.quality, quality)


@pytest.mark.parametrize("conflicts", ["takers", "all"])
@pytest.mark.parametrize("rows", [1, 7, 64])
def test_rows_of_padding_take_nothing_whatever_they_hold(rows: int, conflicts: Conflicts) -> None:
    settings = TaskAlignedSettings(top_k=5, conflicts=conflicts)
    for seed in range(8):
        scores, boxes, centres, truth, labels, counts = random_case(seed)
        old_boxes = torch.cat([truth, torch.tensor([[0.0, 0.0, 64.0, 64.0]]).expand(rows, 4)])
        old_labels = torch.cat([labels, torch.zeros(rows, dtype=torch.int64)])
        padded = task_aligned(scores, boxes, centres, old_boxes, old_labels, counts, settings)
        assert len(padded.positive) == (len(truth) + rows) * 5
        for found, expected in zip(
            padded.compact(),
            task_aligned(scores, boxes, centres, truth, labels, counts, settings).compact(),
            strict=True,
        ):
            torch.testing.assert_close(found, expected)


def test_boxes_that_are_no_number_give_no_index_out_of_range() -> None:
    """The loss is to be no number then, which ends the run with a message, and not an error of some kernel."""
    scores, boxes, centres, truth, labels, counts = random_case(5)
    for conflicts in ("takers", "all"):
        settings = TaskAlignedSettings(conflicts=conflicts)
        assigned = task_aligned(scores, boxes * float("nan"), centres, truth, labels, counts, settings)
        assert int(assigned.object_index.max()) < len(truth) and int(assigned.anchor.max()) < scores[..., 0].numel()


def test_the_rules_for_conflicts_differ_where_one_who_did_not_take_the_point_overlaps_more() -> None:
    """Two objects take the only anchor point; a third, of another class, fits its box best but does not contain it."""
    truth = torch.tensor([[0.0, 0.0, 16.0, 16.0], [2.0, 2.0, 18.0, 18.0], [9.0, 0.0, 25.0, 16.0]])
    boxes = torch.tensor([[[9.0, 0.0, 25.0, 16.0]]])
    case = (torch.full((1, 1, 3), 0.5), boxes, torch.tensor([[8.0, 8.0]]), truth, torch.arange(3), torch.tensor([3]))
    taker = assign(*case, TaskAlignedSettings(top_k=1))
    best = assign(*case, TaskAlignedSettings(top_k=1, conflicts="all"))
    assert (int(taker.object_index[0, 0]), int(best.object_index[0, 0])) == (1, 2)
    assert float(best.quality[0, 0]) == pytest.approx(1.0)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'takers'"):
        TaskAlignedSettings(conflicts="taker")  # type: ignore[arg-type]


def test_duplicated_truth_trains_each_anchor_once() -> None:
    centres = grid(4, 8)
    truth = torch.tensor([[0.0, 0.0, 32.0, 32.0]] * 2)
    boxes = truth[:1].expand(1, 16, 4)
    assigned = assign(
        torch.full((1, 16, 1), 0.5), boxes, centres, truth, torch.tensor([0, 0]), torch.tensor([2]),
    )  # fmt: skip
    assert set(assigned.object_index[assigned.positive].tolist()) == {0}
    assert float(assigned.quality.max()) <= 1.0 + 1e-5


def test_an_object_that_nothing_overlaps_well_still_asks_for_its_best_iou() -> None:
    """At the start of training IoU^6 is far below any epsilon that one would add; the target must not fade with it."""
    centres = grid(8, 8)
    truth = torch.tensor([[18.0, 18.0, 23.0, 23.0]])
    distance = 30.0
    boxes = torch.cat([centres - distance, centres + distance], dim=-1)[None]  # IoU 25 / 3600
    assigned = assign(torch.full((1, 64, 1), 0.01), boxes, centres, truth, torch.tensor([0]), torch.tensor([1]))
    assert float(assigned.quality.max()) == pytest.approx(25 / 3600, rel=1e-3)
