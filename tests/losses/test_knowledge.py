"""Every kind of knowledge: nothing where both say the same, and the numbers of a plain reference where they don't."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from eyas.errors import UserError
from eyas.head_output import HeadOutput
from eyas.losses.channel_wise import channel_wise
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.knowledge import KNOWLEDGE, Answers, Lesson
from eyas.losses.localisation import bins_divergence
from eyas.losses.responses import box_response, class_response
from eyas.training.config_overrides import override
from eyas.training.recipe import Recipe

from .test_detection import case


def lesson(seed: int, teacher_seed: int, confidence: torch.Tensor | None = None) -> Lesson:
    """Return what random networks say: equal ones for equal seeds."""
    said = [HeadOutput(*case(number)[:4]) for number in (seed, teacher_seed)]
    student, teacher = (output._replace(class_logits=output.class_logits + 3) for output in said)
    if confidence is None:
        confidence = teacher.class_logits.sigmoid().amax(dim=-1)
    generators = (torch.Generator().manual_seed(number) for number in (seed, teacher_seed))
    maps = [[torch.randn(2, 4, side, side, generator=each) for side in (8, 4, 2)] for each in generators]
    return Lesson(Answers(student, teacher, confidence, confidence.sum()), tuple(zip(*maps, strict=True)))


@pytest.mark.parametrize("name", KNOWLEDGE)
def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn(name: str) -> None:
    term = KNOWLEDGE[name].term
    assert float(term(lesson(0, 0), DistillSettings())) == pytest.approx(0.0, abs=1e-5)
    apart = term(lesson(0, 1), DistillSettings())
    assert apart.shape == () and float(apart) > 0.05


@pytest.mark.parametrize("name", [name for name, row in KNOWLEDGE.items() if row.dense])
def test_where_the_teacher_is_not_sure_its_boxes_do_not_count(name: str) -> None:
    """Of two anchor points with the same doubts of the student only the one that the teacher is sure of weighs."""
    whole = lesson(0, 1)
    assert whole.answers is not None
    settings = DistillSettings(boxes=1.0)
    silent = torch.zeros_like(whole.answers.confidence)
    classes = class_response(whole.answers.student.class_logits, whole.answers.teacher.class_logits).sum()
    unsure = KNOWLEDGE[name].term(lesson(0, 1, silent)._replace(answers=whole.answers._replace(
        confidence=silent, normaliser=torch.tensor(1.0))), settings)  # fmt: skip
    assert float(unsure) == pytest.approx(float(classes) if name == "responses" else 0.0, rel=1e-5)


def test_class_response_is_the_cross_entropy_weighed_by_the_distance() -> None:
    student, teacher = torch.tensor([-2.0, 0.3, 4.0]), torch.tensor([1.0, 0.3, -1.5])
    expected = []
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p, q = 1 / (1 + math.exp(-s)), 1 / (1 + math.exp(-t))
        expected.append(abs(p - q) * -(q * math.log(p) + (1 - q) * math.log(1 - p)))
    assert class_response(student, teacher).tolist() == pytest.approx(expected, rel=1e-5)
    assert expected[1] == 0.0


def test_box_response_is_one_minus_giou_weighed_by_the_confidence() -> None:
    student = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0]])
    teacher = torch.tensor([[1.0, 0.0, 3.0, 2.0], [4.0, 0.0, 6.0, 2.0]])
    # Overlap 2 of 6, hull 6; no overlap, union 8 in a hull of 12.
    expected = [0.5 * (1 - 2 / 6), 0.25 * (1 + 4 / 12)]
    assert box_response(student, teacher, torch.tensor([0.5, 0.25])).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_channel_wise_is_the_divergence_over_places(temperature: float) -> None:
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(2, 2, 3, 4, 5)) * 3
    total = 0.0
    for s, t in zip(student.reshape(-1, 20), teacher.reshape(-1, 20), strict=True):  # a row for each image and channel
        p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum() for x in (s, t))
        total += float((q * np.log(q / p)).sum())
    got = channel_wise(torch.tensor(student), torch.tensor(teacher), temperature)
    assert float(got) == pytest.approx(temperature**2 * total / 6, rel=1e-4)


def test_channel_wise_does_not_look_at_how_large_a_channel_is_everywhere() -> None:
    features = torch.randn(2, 3, 4, 4)
    assert float(channel_wise(features + 7.0, features, 1.0)) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 10.0])
def test_bins_divergence_is_the_mean_over_the_sides(temperature: float) -> None:
    generator = np.random.default_rng(1)
    student, teacher = generator.normal(size=(2, 3, 4, 17)) * 3
    p, q = (np.exp(x / temperature) / np.exp(x / temperature).sum(-1, keepdims=True) for x in (student, teacher))
    expected = temperature**2 * (q * np.log(q / p)).sum(-1).mean(-1)
    got = bins_divergence(torch.tensor(student), torch.tensor(teacher), temperature)
    assert got.tolist() == pytest.approx(expected.tolist(), rel=1e-4)


def test_every_kind_has_its_factor_in_the_recipe() -> None:
    fields = {field.name for field in dataclasses.fields(DistillSettings)}
    assert set(KNOWLEDGE) <= fields
    recipe = override(Recipe(), {f"distill.{name}": 0.5 for name in KNOWLEDGE})
    assert all(getattr(recipe.distill, name) == 0.5 for name in KNOWLEDGE)


@pytest.mark.parametrize(
    ("field", "value"), [("responses", -1.0), ("boxes", -0.1), ("temperature", 0.0), ("feature_temperature", -2.0)]
)
def test_factors_below_nothing_and_temperatures_of_it_are_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=f"distill.{field} is"):
        override(Recipe(), {f"distill.{field}": value})
