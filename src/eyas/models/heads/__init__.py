"""The heads that a spec may name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from eyas.losses.criterion import Criterion, Reduce
from eyas.losses.detection import DetectionCriterion
from eyas.losses.dual import DualCriterion
from eyas.losses.settings import LossSettings
from eyas.models.heads import dual, ndfl
from eyas.models.layers import Layers
from eyas.models.widths import Layout
from eyas.types import Suppression, Vocabulary

if TYPE_CHECKING:
    from eyas.models.spec import YoloNasSpec

Decode = Callable[[Any, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class HeadRow:
    """A kind of head: all that the rest of Eyas knows of it.

    Attributes:
        build: makes one of the spec, the widths of p3, p4 and p5, the classes and the factory: features p3, p4, p5 of
            strides 8, 16, 32 -> its raw output, whatever that is.
        initialize: sets the weights of an untrained one, after those of all convolutions were set.
        decode: raw output and a number of candidates -> boxes float32 [B, K, 4], xyxy in network pixels, and scores
            float32 [B, K, C] in 0..1, best first, K at most that number.
        criterion: the loss that it is trained with.
        suppression: what is to be done about boxes that overlap, unless a user wants something else.
        class_rows: parts of the names of its tensors that have a row for each class.
        widths: the channels of every layer of it, of the spec and the widths of p3, p4 and p5.
    """

    build: Callable[[YoloNasSpec, tuple[int, int, int], Vocabulary, Layers], nn.Module]
    initialize: Callable[[nn.Module], None]
    decode: Decode
    criterion: Callable[[LossSettings | None, Reduce | None], Criterion]
    suppression: Suppression
    class_rows: tuple[str, ...]
    widths: Callable[[YoloNasSpec, tuple[int, int, int]], Layout]


HEADS: Mapping[str, HeadRow] = MappingProxyType({
    "ndfl": HeadRow(
        ndfl.Heads, ndfl.initialize, ndfl.decode, DetectionCriterion, "class_wise", (".cls_pred.",), ndfl.widths
    ),
    "dual": HeadRow(
        dual.DualHeads, dual.initialize, dual.decode, DualCriterion, "none", (".cls_pred.",), dual.widths
    ),
})  # fmt: skip
