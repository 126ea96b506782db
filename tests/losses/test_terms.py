"""Each loss term against its definition."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.varifocal import varifocal


def test_varifocal_positive_is_cross_entropy_weighed_by_its_target() -> None:
    logit, target = torch.tensor([0.3]), torch.tensor([0.7])
    expected = 0.7 * F.binary_cross_entropy_with_logits(logit, target)
    assert float(varifocal(logit, target, torch.tensor([True]))) == pytest.approx(float(expected))


def test_varifocal_fades_easy_negatives() -> None:
    logits = torch.tensor([-4.0, 4.0])
    easy, hard = varifocal(logits, torch.zeros(2), torch.zeros(2, dtype=torch.bool)).tolist()
    p = 1 / (1 + torch.exp(torch.tensor(4.0)))
    assert easy == pytest.approx(float(0.75 * p**2 * F.softplus(torch.tensor(-4.0))), rel=1e-4)
    assert hard > 1000 * easy


def test_varifocal_ignores_a_positive_of_no_quality() -> None:
    assert float(varifocal(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([True]))) == 0.0


def test_giou_of_equal_boxes_is_free_and_of_far_boxes_tends_to_two() -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert float(giou_loss(box, box)) == pytest.approx(0.0, abs=1e-6)
    assert float(giou_loss(box, box + 1000)) == pytest.approx(2.0, abs=1e-2)


def test_giou_by_hand() -> None:
    # intersection 1, union 7, hull 9: IoU 1/7, GIoU 1/7 - 2/9
    loss = giou_loss(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 1.0, 3.0, 3.0]]))
    assert float(loss) == pytest.approx(1 - (1 / 7 - 2 / 9), abs=1e-6)


@given(st.floats(0, 16), st.integers(0, 2**31 - 1))
def test_dfl_is_least_where_the_expectation_meets_the_target(distance: float, seed: int) -> None:
    target = torch.full((1, 4), distance).clamp(max=15.99)
    low = target.floor().long()
    best = torch.full((1, 4, 17), -1e4)
    best.scatter_(-1, low[..., None], torch.log(1 - (target - low) + 1e-12)[..., None])
    best.scatter_(-1, low[..., None] + 1, torch.log(target - low + 1e-12)[..., None])
    other = torch.randn(1, 4, 17, generator=torch.Generator().manual_seed(seed))
    assert float(distribution_focal(best, target)) <= float(distribution_focal(other, target)) + 1e-5


def test_dfl_clips_what_the_bins_cannot_express() -> None:
    logits = torch.zeros(1, 4, 17)
    value = distribution_focal(logits, torch.tensor([[-3.0, 0.0, 16.0, 99.0]]))
    assert float(value) == pytest.approx(float(torch.log(torch.tensor(17.0))), rel=1e-5)
