"""The losses of class scores, against their formulae."""

from __future__ import annotations

import math

import pytest
import torch

from eyas.errors import UserError
from eyas.losses.class_losses import CLASS_LOSSES, quality_bce, quality_focal
from eyas.losses.detection import DetectionCriterion
from eyas.losses.settings import LossSettings


def cross_entropy(logit: float, target: float) -> float:
    score = 1 / (1 + math.exp(-logit))
    return -target * math.log(score) - (1 - target) * math.log(1 - score)


@pytest.mark.parametrize(("logit", "target"), [(0.3, 0.7), (-4.0, 0.0), (3.0, 0.0), (2.0, 1.0)])
def test_are_their_formulae(logit: float, target: float) -> None:
    logits, targets = torch.tensor([logit]), torch.tensor([target])
    assert float(quality_bce(logits, targets)) == pytest.approx(cross_entropy(logit, target), rel=1e-5)
    distance = abs(target - 1 / (1 + math.exp(-logit)))
    expected = distance**2 * cross_entropy(logit, target)
    assert float(quality_focal(logits, targets)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", CLASS_LOSSES)
def test_are_least_where_the_score_is_the_target(kind: str) -> None:
    logits = torch.linspace(-5, 5, 201, requires_grad=True)
    targets, positive = torch.full((201,), 0.7), torch.ones(201, dtype=torch.bool)
    losses = CLASS_LOSSES[kind](logits, targets, positive)
    assert float(logits.detach()[losses.argmin()].sigmoid()) == pytest.approx(0.7, abs=0.02)
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    assert (gradient[:50] < 0).all() and (gradient[-50:] > 0).all()


def test_an_unknown_one_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'bce'"):
        DetectionCriterion(LossSettings(classification="bec"))
