"""The backbones that a spec may name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from torch import nn

from eyas.checks import shown
from eyas.errors import UserError, row_of
from eyas.models.backbones import timm_net, yolo_nas
from eyas.models.first_weights import initialize
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
        initialize: sets its first weights.
    """

    build: Callable[[YoloNasSpec, Layers], nn.Module]
    channels: Callable[[YoloNasSpec], tuple[int, int, int, int]]
    widths: Callable[[YoloNasSpec], Layout]
    initialize: Callable[[nn.Module], None] = initialize


BACKBONES: Mapping[str, BackboneRow] = MappingProxyType({
    "yolo_nas": BackboneRow(yolo_nas.Backbone, yolo_nas.channels, yolo_nas.widths),
})  # fmt: skip


# Libraries whose models are backbones too: what stands before the colon of "timm:resnet18" -> the row of them all.
LIBRARIES: Mapping[str, BackboneRow] = MappingProxyType({
    "timm": BackboneRow(timm_net.build, timm_net.channels, timm_net.widths, timm_net.initialize_own),
})  # fmt: skip


def backbone_row(name: str) -> BackboneRow:
    """Return the row of a backbone, "yolo_nas" or "timm:NAME"; whether timm has that name is not looked at.

    Raises:
        UserError: there is no such row; the nearest name is suggested.
    """
    if not isinstance(name, str):
        raise UserError(f"The backbone is {shown(name)}.", expected="a name", where="backbone")
    library, colon, model = name.partition(":")
    if colon and model and library in LIBRARIES:
        return LIBRARIES[library]
    known = {**BACKBONES, **{f"{one}:NAME": row for one, row in LIBRARIES.items()}}
    return row_of(known, name, "There is no backbone", "backbone")
