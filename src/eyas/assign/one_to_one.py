"""One-to-one assignment: each object is learnt by the one anchor point that is aligned with it best.

So a network learns to give one box an object, and nothing has to be suppressed (YOLOv10, arXiv 2405.14458; YOLO26,
arXiv 2606.03748).
"""

from __future__ import annotations

import torch
from torch import Tensor

from eyas.assign.settings import TaskAlignedSettings
from eyas.assign.task_aligned import Assignment, alignment, best_of


@torch.no_grad()
def one_to_one(
    scores: Tensor,
    boxes: Tensor,
    anchor_centres: Tensor,
    truth_boxes: Tensor,
    truth_labels: Tensor,
    counts: Tensor,
    settings: TaskAlignedSettings | None = None,
) -> Assignment:
    """Assign each object to one anchor point: of those whose centre lies inside its box, the one that is aligned best.

    All objects choose at once. An anchor point that several chose goes to the one that it overlaps most, and the others
    choose among what is left of the `top_k` that they want. So an object has none only where others took all of these.
    The target score is the IoU of the box.

    Args:
        scores, boxes, anchor_centres, truth_boxes, truth_labels, counts: as for `task_aligned`.
        settings: as there; its rule for conflicts says nothing here.
    """
    settings = settings or TaskAlignedSettings()
    batch, anchors, _ = scores.shape
    _, image, overlaps, metric, top, free = alignment(
        scores, boxes, anchor_centres, truth_boxes, truth_labels, counts, settings
    )
    wanted = image[:, None] * anchors + top
    aligned, overlaps = metric.gather(1, top), overlaps.gather(1, top)
    rows = torch.arange(len(top), device=scores.device)
    positive, column = torch.zeros_like(rows, dtype=torch.bool), torch.zeros_like(rows)
    for _ in range(top.shape[1]):  # one that does not win loses one that it wants, so it has chosen by then or can't
        best = torch.where(free, aligned, -1.0).argmax(1)
        chooses = free.any(1) & ~positive
        anchor, overlap = _at(wanted, best), _at(overlaps, best)
        owner = best_of(chooses, rows, overlap, anchor, batch * anchors)
        wins = chooses & (owner[anchor] == rows)
        positive, column = positive | wins, torch.where(wins, best, column)
        free = free & (owner[wanted] >= len(top))  # which stands for nobody
    return Assignment(positive, _at(wanted, column), rows, torch.where(positive, _at(overlaps, column), 0.0))


def _at(values: Tensor, column: Tensor) -> Tensor:
    """Return the value [M] of each row of `values` [M, k] in its column."""
    return values.gather(1, column[:, None])[:, 0]
