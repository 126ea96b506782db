"""The backbones that a spec may name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

from eyas.models.backbones import yolo_nas
from eyas.models.layers import Layers
from eyas.models.widths import Layout

if TYPE_CHECKING:
    from eyas.models.spec import YoloNasSpec


@dataclass(frozen=True)
class BackboneRow:
    """A kind of backbone.

    Attributes:
        build: makes one: float [B, 3, H, W] -> features c2, c3, c4, c5 of strides 4, 8, 16, 32.
        channels: the widths of c2..c5.
        widths: the channels of every layer of it.
    """

    build: Callable[[YoloNasSpec, Layers], nn.Module]
    channels: Callable[[YoloNasSpec], tuple[int, int, int, int]]
    widths: Callable[[YoloNasSpec], Layout]


BACKBONES: Mapping[str, BackboneRow] = MappingProxyType({
    "yolo_nas": BackboneRow(yolo_nas.Backbone, yolo_nas.channels, yolo_nas.widths),
})  # fmt: skip
