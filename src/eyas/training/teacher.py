"""The teacher that a recipe names: opened before all else, held against its student, and put into its loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from eyas.artifacts.card import hash_file
from eyas.artifacts.layout import run_of
from eyas.artifacts.run import RunFolder
from eyas.data.formats.class_names import read_class_names
from eyas.errors import UserError, shorten, suggest
from eyas.head_output import HeadOutput
from eyas.losses.criterion import Criterion
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.distillation import Distillation, Teacher, ask
from eyas.losses.knowledge import KNOWLEDGE, TeacherOutput
from eyas.models import zoo
from eyas.models.fuse import fused
from eyas.models.heads import HEADS
from eyas.models.weights import load_state, matching_rows
from eyas.training.build_model import Weights, open_weights
from eyas.training.recipe import Recipe
from eyas.types import InputSpec

WHERE = "--teacher"
ROLE = "teacher"  # of a parent in the card, where others have none
TRIAL_SIDE = 64  # pixels of the image on which both networks are compared


def open_teacher(settings: DistillSettings, folder: Path) -> Weights | None:
    """Return the weights of the recipe's teacher, None where it has none.

    Args:
        settings: name the teacher.
        folder: of the run that is to learn.

    Raises:
        UserError: there are no such weights, they can't be read, or they are the run's own; nothing is to be learned.
    """
    if settings.teacher is None:
        return None
    path = Path(settings.teacher)
    if (path if path.is_dir() else run_of(path) or path).resolve() == folder.resolve():
        raise UserError(
            f"{path} can't be its own teacher.", where=WHERE, expected="another run", fix="give another --out"
        )
    if not any(getattr(settings, name) for name in KNOWLEDGE):
        raise UserError(
            "There is a teacher, but all distillation factors are 0.",
            where=WHERE,
            expected="a factor above 0 for one of " + ", ".join(f"distill.{name}" for name in KNOWLEDGE),
            fix="leave --teacher out, or give --distill.responses 1",
        )
    weights = open_weights(path, WHERE)
    if settings.teacher_classes:
        weights = replace(weights, classes=read_class_names(Path(settings.teacher_classes)))
    return weights


def teacher_file(path: Path) -> Path:
    """Return the file that holds a teacher's weights, of its run's folder or of itself."""
    return RunFolder(path).weights if path.is_dir() else path


def teacher_as_parent(path: Path) -> dict[str, str]:
    """Return how a run that learned from this teacher names it: by the hash of its weights."""
    kind = "run" if path.is_dir() else "weights"
    return {"kind": kind, "role": ROLE, "path": str(path.resolve()), "sha256": hash_file(teacher_file(path))}


def taught(
    criterion: Criterion, net: nn.Module, weights: Weights, recipe: Recipe, classes: Sequence[str]
) -> tuple[Criterion, list[str]]:
    """Return the criterion with what is learned from a teacher beside it, and what is to be known of that, a line each.

    Args:
        criterion: the student's own loss.
        net: the student.
        weights: the teacher's, as `open_teacher` returns them.
        recipe: the whole run.
        classes: the student's, in label order.

    Raises:
        UserError: the teacher doesn't know the student's classes, or nothing can be learned from it.
    """
    settings = recipe.distill
    its = fused(load_state(weights.state, zoo.build(weights.model, num_classes(weights)), str(weights.path)))
    if recipe.trainer.channels_last:
        its = its.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    student, teacher = _try(copy.deepcopy(net).train()), _try(its)
    obstacles = {
        name: why for name in KNOWLEDGE if getattr(settings, name) and (why := _obstacle(name, student, teacher))
    }
    settings = replace(settings, **dict.fromkeys(obstacles, 0.0))  # type: ignore[arg-type]
    kinds = [name for name in KNOWLEDGE if getattr(settings, name)]
    if not kinds:
        raise UserError(
            f"Nothing can be learned from {weights.path}: {'; '.join(obstacles.values())}.",
            where=WHERE,
            expected="a teacher with the same type of head as the student",
            fix="leave --teacher out, or give --distill.features 1, which works with any head",
        )
    columns = _columns(weights, classes) if any(KNOWLEDGE[name].dense for name in kinds) else None
    own_input, its_input = recipe.data.input_spec(), weights.input or InputSpec()
    widths = [(own.shape[1], other.shape[1]) for own, other in zip(student.features, teacher.features, strict=True)]
    notes = [f"learning from {weights.path}: {', '.join(kinds)}"]
    if weights.input is not None and its_input.height != own_input.height:
        notes.append(f"note: the teacher was trained at {its_input.height} pixels and now sees {own_input.height}")
    notes += [f"note: distill.{name} is skipped: {why}" for name, why in obstacles.items()]
    asked = Teacher(its, columns, its_input.scale / own_input.scale)
    return Distillation(criterion, asked, settings, widths), [*notes, *weights.notes]


def _obstacle(name: str, student: TeacherOutput, teacher: TeacherOutput) -> str:
    """Return why a kind of knowledge can't be had, in half a line; "" if it can."""
    row = KNOWLEDGE[name]
    if not row.dense:
        return ""
    for whose, said in (("student's", student), ("teacher's", teacher)):
        if not isinstance(said.output, HeadOutput):
            return f"the {whose} head does not provide classes and distances at anchor points"
    assert isinstance(student.output, HeadOutput) and isinstance(teacher.output, HeadOutput)
    if not torch.equal(student.output.strides, teacher.output.strides):
        return "the teacher has other anchor points"
    own, its = (output.box_logits.shape[-1] // 4 for output in (student.output, teacher.output))
    return f"the teacher has {its} bins per side, the student {own}" if row.bins and own != its else ""


def _columns(weights: Weights, classes: Sequence[str]) -> list[int] | None:
    """Return for each class of the student the teacher's, None where they are the same in the same order."""
    if weights.classes is None:
        raise UserError(
            f"The teacher {weights.path} does not name its classes.",
            where=WHERE,
            expected="class names in its own order, one per line",
            fix="--distill.teacher_classes FILE",
        )
    rows = matching_rows(weights.classes, classes)
    missing = [f"'{name}'{suggest(name, weights.classes)}" for row, name in enumerate(classes) if row not in rows]
    if missing:
        raise UserError(
            f"The teacher does not know {len(missing)} of the {len(classes)} classes: {shorten(missing)}.",
            where=WHERE,
            expected="a teacher that knows every class of the dataset; it knows " + shorten(weights.classes, 20),
            fix="use --distill.responses 0 --distill.localisation 0 to learn only from its features, which need no "
            "common classes",
        )
    columns = [rows[row] for row in range(len(classes))]
    return None if columns == list(range(len(weights.classes))) else columns


def num_classes(weights: Weights) -> int:
    """Return how many classes weights tell apart.

    Raises:
        UserError: that is not the number of their class names, or there are no rows of classes.
    """
    spec = zoo.resolve(weights.model) if isinstance(weights.model, str) else weights.model
    marks = HEADS[spec.head].class_rows
    count = next((len(rows) for name, rows in weights.state.items() if any(mark in name for mark in marks)), 0)
    if not count:
        raise UserError(f"{weights.path} contains no weights for a detector's classes.", where=WHERE)
    if weights.classes is not None and len(weights.classes) != count:
        raise UserError(
            f"{len(weights.classes)} class names are given for the teacher, which has {count} classes.",
            where="distill.teacher_classes",
            expected=f"{count} names, one per line, in its own order",
        )
    return count


@torch.no_grad()
def _try(net: nn.Module) -> TeacherOutput:
    device = next(net.parameters()).device
    return ask(net, torch.full((2, 3, TRIAL_SIDE, TRIAL_SIDE), 0.5, device=device), features=True)
