"""A loss that also learns from another network: any criterion, and the kinds of `KNOWLEDGE` beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from eyas.head_output import HeadOutput
from eyas.losses.criterion import Criterion, TruthBatch
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.knowledge import KNOWLEDGE, Answers, Lesson, TeacherOutput


class Teacher(nn.Module):
    """A trained network that is only asked.

    Args:
        net: it, in eval mode; fused, it is faster. Takes `features=True` if features are wanted of it.
        columns: for each class of the student the teacher's; None where they are the same.
        factor: what the student's images are multiplied by to be the teacher's.
    """

    columns: Tensor | None

    def __init__(self, net: nn.Module, columns: Sequence[int] | None = None, factor: float = 1.0) -> None:
        super().__init__()
        self.net = net.eval().requires_grad_(False)
        self.factor = factor
        self.register_buffer("columns", None if columns is None else torch.tensor(columns))

    @torch.no_grad()
    def forward(self, images: Tensor, features: bool) -> TeacherOutput:
        """Return what it says of the images, as the student gets them: float [B, 3, H, W]."""
        said = ask(self.net, images if self.factor == 1.0 else images * self.factor, features)
        if self.columns is None or not isinstance(said.output, HeadOutput):
            return said
        logits = said.output.class_logits.index_select(-1, self.columns)
        return said._replace(output=said.output._replace(class_logits=logits))


class Distillation(Criterion):
    """The terms of another criterion, and beside them how far the student is from its teacher.

    The teacher is on the device that the criterion is moved to, and no part of its state or parameters. Where the
    student's features are of other widths than the teacher's, a convolution of kernel 1 brings them to those; it is
    trained along, and of no use afterwards.

    Args:
        inner: the student's own loss.
        teacher: what is learned from.
        settings: factors and temperatures; each kind of `KNOWLEDGE` whose factor isn't 0 becomes a term.
        widths: for p3, p4 and p5 the channels of the student and of the teacher; needed where features are learned.
    """

    def __init__(
        self, inner: Criterion, teacher: Teacher, settings: DistillSettings, widths: Sequence[tuple[int, int]] = ()
    ) -> None:
        super().__init__(inner.reduce)
        self.inner = inner
        self.settings = settings
        self.factors = {name: factor for name in KNOWLEDGE if (factor := getattr(settings, name))}
        self.terms = (*inner.terms, *self.factors)
        self.of_any_size = inner.of_any_size | frozenset(self.factors)
        self.static = inner.static
        self.listens = any(KNOWLEDGE[name].dense for name in self.factors)
        self.watches = any(KNOWLEDGE[name].features for name in self.factors)
        self.adapters = nn.ModuleList(
            nn.Identity() if own == its else nn.Conv2d(own, its, 1, bias=False)
            for own, its in (widths if self.watches else ())
        )
        self._teacher = [teacher]  # in a list it is no part of the module

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        """Return the teacher."""
        return (*self.inner.beside, *self._teacher)

    def terms_of(self, net: nn.Module, images: Tensor, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the inner criterion's terms and one for each kind of knowledge; see `Criterion.terms_of`."""
        student = ask(net, images, self.watches)
        terms: dict[str, Tensor] = self.inner(student.output, batch)
        lesson = self._lesson(student, self._teacher[0](images, self.watches))
        learned = {name: factor * KNOWLEDGE[name].term(lesson, self.settings) for name, factor in self.factors.items()}
        return {**terms, **learned}

    def _lesson(self, student: TeacherOutput, teacher: TeacherOutput) -> Lesson:
        """Return what both say, as far as it is looked at and in one form."""
        own = (adapt(x) for adapt, x in zip(self.adapters, student.features, strict=True))
        features = tuple(zip(own, teacher.features, strict=True))
        if not self.listens:
            return Lesson(None, features)
        assert isinstance(student.output, HeadOutput) and isinstance(teacher.output, HeadOutput)
        confidence = teacher.output.class_logits.float().sigmoid().amax(dim=-1)
        normaliser = self.reduce(confidence.sum()).clamp(min=1.0)
        return Lesson(Answers(student.output, teacher.output, confidence, normaliser), features)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._teacher[0]._apply(fn)  # type: ignore[no-untyped-call]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self


def ask(net: nn.Module, images: Tensor, features: bool) -> TeacherOutput:
    """Return what a network says of the images, with its features where they are wanted and it is one that has them."""
    if not features:
        return TeacherOutput(net(images))
    levels, output = net(images, features=True)
    return TeacherOutput(output, levels)
