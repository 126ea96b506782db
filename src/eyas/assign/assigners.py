"""The ways to choose which anchor point learns which object: a file and a row of `ASSIGNERS` each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

from eyas.assign.one_to_one import one_to_one
from eyas.assign.settings import TaskAlignedSettings
from eyas.assign.task_aligned import Assignment, task_aligned
from eyas.errors import row_of


class Predicted(NamedTuple):
    """What a head says at its A anchor points, levels one after another; no gradients flow back from an assignment.

    Attributes:
        scores: float [B, A, C], class probabilities.
        boxes: float [B, A, 4], xyxy in network pixels.
        centres: float [A, 2], (x, y) of the points in network pixels.
        strides: float [A, 1], pixels a cell.
    """

    scores: Tensor
    boxes: Tensor
    centres: Tensor
    strides: Tensor


class Truth(NamedTuple):
    """The objects of a batch.

    Attributes:
        boxes: float [M, 4], xyxy in network pixels, all images' objects one after another.
        labels: int64 [M].
        counts: int64 [B], objects of each image; rows beyond their sum are padding, and take nothing.
    """

    boxes: Tensor
    labels: Tensor
    counts: Tensor


@dataclass(frozen=True)
class AssignerRow:
    """A way to assign.

    Attributes:
        assign: says which anchor points learn; it is given the recipe's constants, and looks at those that it has.
        static: whether no shape in it depends on what the tensors hold, and nothing waits for the device.
    """

    assign: Callable[[Predicted, Truth, TaskAlignedSettings], Assignment]
    static: bool


# The recipe's `loss.assignment` -> how it is done.
ASSIGNERS: Mapping[str, AssignerRow] = MappingProxyType(
    {
        "task_aligned": AssignerRow(
            lambda said, truth, settings: task_aligned(said.scores, said.boxes, said.centres, *truth, settings), True
        ),
        "one_to_one": AssignerRow(
            lambda said, truth, settings: one_to_one(said.scores, said.boxes, said.centres, *truth, settings), True
        ),
    }
)


def assigner_of(name: str) -> AssignerRow:
    """Return the assigner of that name.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    return row_of(ASSIGNERS, name, "There is no assigner", "loss.assignment")
