"""What a network can learn from another one: a row of `KNOWLEDGE` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from eyas.head_output import HeadOutput
from eyas.losses.channel_wise import channel_wise
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.localisation import bins_divergence
from eyas.losses.responses import box_response, class_response
from eyas.tensor_boxes import boxes_from_bins


class TeacherOutput(NamedTuple):
    """What a network says of a batch.

    Attributes:
        output: the head's raw output; a `HeadOutput` of a dense head.
        features: float [B, C, H, W] of p3, p4 and p5; none where they aren't looked at.
    """

    output: object
    features: tuple[Tensor, ...] = ()


class Answers(NamedTuple):
    """What two dense heads say of the same batch, at the same anchor points and for the same classes.

    Attributes:
        student, teacher: their outputs; no gradients flow to the teacher's.
        confidence: float [B, A], the teacher's best class score.
        normaliser: float [], its sum over the batch, averaged over processes, at least 1: the terms stay comparable
            with the loss's own, whatever the number of objects.
    """

    student: HeadOutput
    teacher: HeadOutput
    confidence: Tensor
    normaliser: Tensor


class Lesson(NamedTuple):
    """What the student and its teacher say of the same batch.

    Attributes:
        answers: at the anchor points; None where that isn't looked at.
        features: for p3, p4 and p5 the student's, brought to the teacher's width, and the teacher's: float
            [B, C, H, W] both; none where they aren't looked at.
    """

    answers: Answers | None
    features: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class KnowledgeRow:
    """A kind of knowledge.

    Attributes:
        term: how far the student is from it, a scalar, 0 where both say the same.
        dense: whether it needs a `HeadOutput` of both, for the same classes.
        bins: whether it needs as many bins of distances on both sides.
        features: whether it looks at the features.
    """

    term: Callable[[Lesson, DistillSettings], Tensor]
    dense: bool = False
    bins: bool = False
    features: bool = False


def _responses(lesson: Lesson, settings: DistillSettings) -> Tensor:
    assert lesson.answers is not None
    student, teacher, confidence, normaliser = lesson.answers
    classes = class_response(student.class_logits.float(), teacher.class_logits.float()).sum()
    boxes, teacher_boxes = (boxes_from_bins(_sides(each), each.anchor_points) for each in (student, teacher))
    overlaps = box_response(boxes, teacher_boxes, confidence).sum()
    return (classes + settings.boxes * overlaps) / normaliser


def _features(lesson: Lesson, settings: DistillSettings) -> Tensor:
    terms = [channel_wise(own, its, settings.feature_temperature) for own, its in lesson.features]
    return torch.stack(terms).sum()


def _localisation(lesson: Lesson, settings: DistillSettings) -> Tensor:
    assert lesson.answers is not None
    student, teacher, confidence, normaliser = lesson.answers
    divergence = bins_divergence(_sides(student), _sides(teacher), settings.temperature)
    return (confidence * divergence).sum() / normaliser


def _sides(output: HeadOutput) -> Tensor:
    """Return the bins of each side: float [B, A, 4, reg_max + 1]."""
    logits = output.box_logits.float()
    return logits.view(*logits.shape[:-1], 4, logits.shape[-1] // 4)


# The recipe's `distill.NAME`, its factor, and the term's name in the tables -> what it is.
KNOWLEDGE: Mapping[str, KnowledgeRow] = MappingProxyType(
    {
        "responses": KnowledgeRow(_responses, dense=True),
        "features": KnowledgeRow(_features, features=True),
        "localisation": KnowledgeRow(_localisation, dense=True, bins=True),
    }
)
