"""The module that is exported: suppression in fixed shapes against greedy suppression, and networks in other types."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from eyas.boxes import nms
from eyas.export.graph import Suppressed, survivors


def scene(seed: int, num: int = 120, labels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes [1, num, 4] in clumps, falling scores [num] and labels [1, num]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(12, 2, generator=generator) * 300
    middle = centres[torch.randint(0, 12, (num,), generator=generator)] + 6 * torch.randn(num, 2, generator=generator)
    sides = 40 + 6 * torch.randn(num, 2, generator=generator)
    boxes = torch.cat([middle - sides / 2, middle + sides / 2], 1)
    scores = torch.rand(num, generator=generator).sort(descending=True).values
    return boxes[None], scores, torch.randint(0, labels, (1, num), generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_with_enough_rounds_it_is_greedy_suppression(seed: int) -> None:
    boxes, scores, labels = scene(seed)
    kept = survivors(boxes, labels, 0.5, rounds=40)[0].numpy()
    greedy = nms(boxes[0].numpy(), scores.numpy(), labels[0].numpy(), 0.5, 1000)
    assert set(np.flatnonzero(kept)) == set(greedy.tolist()) and 10 < len(greedy) < 100


def test_one_round_drops_too_many_and_five_nearly_none() -> None:
    differences = {1: 0, 5: 0}
    for seed in range(10):
        boxes, scores, labels = scene(seed)
        greedy = set(nms(boxes[0].numpy(), scores.numpy(), labels[0].numpy(), 0.5, 1000).tolist())
        for rounds in differences:
            kept = set(np.flatnonzero(survivors(boxes, labels, 0.5, rounds)[0].numpy()).tolist())
            differences[rounds] += len(kept ^ greedy)
    assert differences[1] > 20 and differences[5] <= 0.02 * 1200


class Given(nn.Module):
    """A deployed network that always answers the same."""

    def __init__(self, boxes: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.boxes, self.scores = boxes, scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [B, K, 4] and scores [B, K, C]."""
        return self.boxes.expand(len(images), -1, -1), self.scores.expand(len(images), -1, -1)


def test_a_row_has_one_class_and_a_box_may_have_two_rows() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.3], [0.8, 0.1], [0.0, 0.7]]])
    found, rated = Suppressed(Given(boxes, scores), iou=0.6, pairs=5, most=5)(torch.zeros(2, 1, 1, 3))
    assert found.shape == (2, 5, 4) and rated.shape == (2, 5, 2)
    expected = [[0.9, 0], [0, 0.7], [0, 0.3], [0, 0], [0, 0]]  # 0.8 and 0.1 overlap better boxes of their classes
    torch.testing.assert_close(rated[0], torch.tensor(expected))
    torch.testing.assert_close(found[0, :3], boxes[0, [0, 2, 0]])
    fewer = Suppressed(Given(boxes, scores), iou=0.6, pairs=5, most=2)(torch.zeros(1, 1, 1, 3))
    torch.testing.assert_close(fewer[1][0], torch.tensor(expected[:2]))  # a dropped one leaves its place to the next
