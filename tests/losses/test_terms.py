"""Every term of a loss against its definition, chosen by its name, and weighed."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from tests.losses.test_detection import case

from eyas.errors import UserError
from eyas.head_output import HeadOutput
from eyas.losses.box_terms import BOX_TERMS, Matched
from eyas.losses.class_losses import CLASS_LOSSES, quality_bce, quality_focal
from eyas.losses.criterion import Criterion, TruthBatch
from eyas.losses.detection import DetectionCriterion, detection_loss
from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.settings import LossSettings
from eyas.losses.uncertainty import UncertaintyWeighting
from eyas.losses.varifocal import varifocal
from eyas.losses.weighting import WEIGHTINGS, weighed
from eyas.tensor_boxes import boxes_from_bins
from eyas.training.config_overrides import flatten, override
from eyas.training.recipe import Recipe


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


def matched(closeness: float) -> Matched:
    """Return three anchor points whose bins say so surely how far the sides are: 2, 3, 4 and 5 strides."""
    points = torch.tensor([[8.0, 8.0], [9.5, 7.5], [3.0, 4.0]])
    distances = torch.tensor([2.0, 3.0, 4.0, 5.0]).expand(3, 4)
    logits = closeness * torch.nn.functional.one_hot(distances.long(), 17).float()
    truth = torch.cat([points - distances[:, :2], points + distances[:, 2:]], dim=-1)
    boxes = torch.stack(
        [boxes_from_bins(bins[None], point[None])[0] for bins, point in zip(logits, points, strict=True)]
    )
    return Matched(boxes, truth, logits, distances)


@pytest.mark.parametrize("name", BOX_TERMS)
def test_every_term_falls_to_nothing_as_the_box_becomes_the_truth(name: str) -> None:
    far, near, there = (BOX_TERMS[name](matched(closeness)) for closeness in (0.0, 4.0, 40.0))
    assert far.shape == (3,)
    assert bool((far > near).all()) and bool((near > there).all())
    assert there.tolist() == pytest.approx([0.0] * 3, abs=1e-4)


@pytest.mark.parametrize("name", BOX_TERMS)
def test_every_term_has_a_gradient_where_nothing_is_assigned(name: str) -> None:
    none = Matched(*(value[:0].clone().requires_grad_() for value in matched(1.0)))
    assert BOX_TERMS[name](none).shape == (0,)


def test_a_further_term_comes_beside_the_others_and_leaves_them_as_they_are() -> None:
    class_logits, box_logits, points, strides, truth, labels, counts = case()
    plain = detection_loss(class_logits, box_logits, points, strides, truth, labels, counts)
    criterion = DetectionCriterion(LossSettings(extra={"l1": 0.5}))
    assert criterion.terms == ("class", "iou", "dfl", "l1")

    batch = SimpleNamespace(boxes=truth, labels=labels, counts=counts)
    output = HeadOutput(class_logits, box_logits, points, strides)
    terms = criterion(output, batch)
    assert all(torch.equal(terms[name], plain[name]) for name in plain)
    double = DetectionCriterion(LossSettings(extra={"l1": 1.0}))(output, batch)
    assert float(double["l1"]) == pytest.approx(2 * float(terms["l1"])) and float(terms["l1"]) > 0


def test_a_term_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"no loss term 'giou' \(did you mean 'iou'"):
        DetectionCriterion(LossSettings(extra={"giou": 1.0}))


def test_a_recipe_carries_it_through_its_file() -> None:
    recipe = override(Recipe(), {"loss.extra": {"l1": 0.5}})
    assert recipe.loss.extra == {"l1": 0.5}
    assert override(Recipe(), flatten(recipe.to_dict())) == recipe


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


class Two(Criterion):
    """A term that is large and one that is small, both of what the network says."""

    terms = ("large", "small")
    static = True

    def forward(self, output: torch.Tensor, batch: TruthBatch) -> dict[str, torch.Tensor]:
        return {"large": 4.0 * output.square().mean(), "small": 0.25 * output.abs().mean()}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_every_weighting_begins_with_the_criterions_own_terms(name: str) -> None:
    criterion = weighed(Two(), name)
    output = torch.ones(3)
    assert (criterion.terms, criterion.static) == (("large", "small"), Two.static)
    assert {term: float(value) for term, value in criterion(output, None).items()} == {"large": 4.0, "small": 0.25}


def test_the_learned_weights_are_the_terms_inverse() -> None:
    """The least of exp(-s) * value + s lies at s = log(value)."""
    criterion = UncertaintyWeighting(Two())
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        torch.stack(list(criterion(torch.ones(3), None).values())).sum().backward()
        optimizer.step()
    assert criterion.log_variances.exp().tolist() == pytest.approx([4.0, 0.25], rel=1e-3)


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(UserError, match=r"no weighting 'uncertain' \(did you mean 'uncertainty'"):
        weighed(Two(), "uncertain")
