"""`DetectionNet`: a backbone, a neck and a head, each of the kind that the spec names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from eyas.models.backbones import BACKBONES
from eyas.models.heads import HEADS, HeadRow
from eyas.models.layers import LAYERS, Layers, QARepVGG
from eyas.models.neck import Neck
from eyas.models.spec import YoloNasSpec
from eyas.types import Vocabulary

DENSE = "ndfl"  # the kind whose output is a `HeadOutput`, which networks of other architectures return


class DetectionNet(nn.Module):
    """The network of a spec; the names of its state dict are the public checkpoints'. `build_net` makes one.

    Args:
        backbone: float images [B, 3, H, W] -> features c2, c3, c4, c5 of strides 4, 8, 16, 32.
        neck: these -> features p3, p4, p5 of strides 8, 16, 32.
        head: these -> the raw output.
        spec: what they were made of.
        vocabulary: the classes that the head tells apart.
    """

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, head: nn.Module, spec: YoloNasSpec, vocabulary: Vocabulary
    ) -> None:
        super().__init__()
        self.spec = spec
        self.vocabulary = vocabulary
        self.backbone = backbone
        self.neck = neck
        self.heads = head  # one head a level: the name is the file format's

    @property
    def num_classes(self) -> int:
        """Return how many classes the head tells apart."""
        return len(self.vocabulary)

    def forward(self, images: Tensor) -> Any:
        """Return the head's raw output, of "ndfl" a `HeadOutput`.

        Args:
            images: float [B, 3, H, W], RGB in 0..1; H and W are multiples of 32.
        """
        return self.heads(*self.neck(*self.backbone(images)))


def head_row_of(net: nn.Module) -> HeadRow:
    """Return the row of a network's head; a net of another architecture, which returns `HeadOutput`, is as "ndfl"."""
    return HEADS[net.spec.head if isinstance(net, DetectionNet) else DENSE]


def build_net(spec: YoloNasSpec, vocabulary: Vocabulary, layers: Layers = LAYERS) -> DetectionNet:
    """Return a new, untrained network.

    Args:
        spec: kinds, widths and depths.
        vocabulary: the classes.
        layers: makes every layer.
    """
    backbone, head = BACKBONES[spec.backbone], HEADS[spec.head]
    channels = backbone.channels(spec)
    _, p3, p4, p5 = (stage.channels for stage in spec.neck)
    net = DetectionNet(
        backbone.build(spec, layers),
        Neck(spec, channels, layers),
        head.build(spec, (p3, p4, p5), vocabulary, layers),
        spec,
        vocabulary,
    )
    initialize(net)
    head.initialize(net.heads)
    return net


def initialize(net: nn.Module) -> None:
    """Set the convolutions' weights as He has it (arXiv 1502.01852), for ReLU."""
    # After a block's two kernels a third is drawn and let go, that of the placeholder which the block once had: a seed
    # goes on giving the weights that it always gave.
    blocks = {block.branch_1x1: block for block in net.modules() if isinstance(block, QARepVGG)}
    for module in net.modules():
        if not isinstance(module, nn.Conv2d):
            continue
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.groups > 1:  # which PyTorch does not look at: each output has so many times fewer gradients
            with torch.no_grad():
                module.weight *= module.groups**0.5
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        if module in blocks:
            nn.init.normal_(torch.empty_like(blocks[module].branch_3x3.conv.weight))
