"""Every term of boxes: its shape, that it falls towards the truth, and that it is chosen by name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from tests.losses.test_detection import case

from eyas.errors import UserError
from eyas.head_output import HeadOutput
from eyas.losses.box_terms import BOX_TERMS, Matched
from eyas.losses.detection import DetectionCriterion, detection_loss
from eyas.losses.settings import LossSettings
from eyas.tensor_boxes import boxes_from_bins
from eyas.training.config_overrides import flatten, override
from eyas.training.recipe import Recipe


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
