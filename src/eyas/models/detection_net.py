"""`DetectionNet`: a backbone, a neck and a head, each of the kind that the spec names."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from eyas.models.backbones import backbone_row
from eyas.models.first_weights import initialize
from eyas.models.heads import HEADS, HeadRow
from eyas.models.layers import LAYERS, Layers
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

    def forward(self, images: Tensor, *, features: bool = False) -> Any:
        """Return the head's raw output, of "ndfl" a `HeadOutput`.

        Args:
            images: float [B, 3, H, W], RGB in 0..1; H and W are multiples of 32.
            features: return (p3, p4, p5) and the output: what the head sees beside what it says of it.
        """
        levels = self.neck(*self.backbone(images))
        output = self.heads(*levels)
        return (levels, output) if features else output


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
    backbone, head = backbone_row(spec.backbone), HEADS[spec.head]
    channels = backbone.channels(spec)
    _, p3, p4, p5 = (stage.channels for stage in spec.neck)
    net = DetectionNet(
        backbone.build(spec, layers),
        Neck(spec, channels, layers),
        head.build(spec, (p3, p4, p5), vocabulary, layers),
        spec,
        vocabulary,
    )
    backbone.initialize(net.backbone)
    initialize(net.neck)
    initialize(net.heads)
    head.initialize(net.heads)
    return net
