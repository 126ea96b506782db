"""Backbones of timm: any of its models with features of strides 4, 8, 16 and 32, under Eyas's neck and heads.

timm's code is Apache-2.0; its weights have licences of their own (`eyas.models.backbones.timm_weights`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from eyas.models.backbones.timm_library import PREFIX, Pyramid, features_model, pyramid_of
from eyas.models.csp import Spp, spp_widths
from eyas.models.first_weights import initialize
from eyas.models.layers import Layers
from eyas.models.widths import WHOLE, Layout, below

if TYPE_CHECKING:
    from eyas.models.spec import YoloNasSpec


class Normalize(nn.Module):
    """RGB in 0..1 as a model's weights expect it: (x - mean) / std of each channel, as one product and one sum.

    A convolution that pads with zeros can't take it over: what is padded has the mean's colour, not black.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        # Of the run's weights, not of timm's tables: another version of these doesn't change what the run answers.
        self.register_buffer("scale", torch.empty(1, 3, 1, 1))
        self.register_buffer("shift", torch.empty(1, 3, 1, 1))
        self.set(mean, std)

    def set(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        """Take other constants, of the three channels."""
        factors = 1 / torch.tensor(std, dtype=torch.float64)
        self.scale.copy_(factors.reshape(1, 3, 1, 1))
        self.shift.copy_((-torch.tensor(mean, dtype=torch.float64) * factors).reshape(1, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return x * scale + shift: [B, 3, H, W] -> the same."""
        return x * self.scale + self.shift


class TimmBackbone(nn.Module):
    """A timm model's features, and the spatial pyramid pooling after the last.

    The pooling stays Eyas's: a small convolutional model sees little of a large image at stride 32, where pooling costs
    next to nothing, and the neck gets the width that the spec is made for, not the 512 to 2048 of a classifier's end.
    """

    def __init__(self, spec: YoloNasSpec, pyramid: Pyramid, layers: Layers) -> None:
        super().__init__()
        self.rows_first = pyramid.rows_first
        self.normalize = Normalize(pyramid.mean, pyramid.std)
        self.net = features_model(pyramid.model, pyramid.indices)
        self.context_module = Spp(pyramid.channels[3], spec.context_hidden, spec.context_width, spec.activation, layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the features c2, c3, c4, c5 of strides 4, 8, 16, 32."""
        features = self.net(self.normalize(x))
        c2, c3, c4, c5 = (each.permute(0, 3, 1, 2) for each in features) if self.rows_first else features
        return c2, c3, c4, self.context_module(c5)


def build(spec: YoloNasSpec, layers: Layers) -> TimmBackbone:
    """Return the backbone that the spec names, with timm's own random weights; nothing is fetched."""
    return TimmBackbone(spec, _pyramid(spec), layers)


def channels(spec: YoloNasSpec) -> tuple[int, int, int, int]:
    """Return the widths of c2, c3, c4 and c5."""
    c2, c3, c4, _ = _pyramid(spec).channels
    return c2, c3, c4, spec.context_width


def widths(spec: YoloNasSpec) -> Layout:
    """Return the channels of every layer: a timm model is a whole, of which nothing is cut."""
    context = spp_widths(_pyramid(spec).channels[3], spec.context_hidden, spec.context_width)
    return {"normalize": WHOLE, "net": WHOLE, **below("context_module", context)}


def initialize_own(backbone: nn.Module) -> None:
    """Set the first weights of what is not timm's: its models come with theirs."""
    assert isinstance(backbone, TimmBackbone)
    initialize(backbone.context_module)


def _pyramid(spec: YoloNasSpec) -> Pyramid:
    return pyramid_of(spec.backbone.removeprefix(PREFIX))
