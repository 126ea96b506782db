"""The module that is deployed: a network with what comes before and after it."""

from __future__ import annotations

from torch import Tensor, nn

from eyas.models.detection_net import DetectionNet
from eyas.models.heads import HEADS, Decode
from eyas.types import InputSpec

DENSE = HEADS["ndfl"].decode  # what nets decode that are none of Eyas's own and return a `HeadOutput`


class Deployed(nn.Module):
    """The graph that is exported, and that validation and every session share: pictures in, candidates out.

    Args:
        net: float images [B, 3, H, W] -> what `decode` takes.
        input_spec: its `scale` is applied here.
        candidates: how many boxes to keep a picture.
        decode: of the net's output; the net's own if None.
    """

    def __init__(
        self, net: nn.Module, input_spec: InputSpec, candidates: int = 1000, decode: Decode | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.scale = input_spec.scale
        self.candidates = candidates
        self.decode = decode or decode_of(net)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes with the best scores, best first.

        Args:
            images: uint8 [B, H, W, 3], RGB; H and W are multiples of 32.

        Returns:
            boxes float32 [B, K, 4], xyxy in network pixels, and scores float32 [B, K, C] in 0..1, with K at most
            `candidates`.
        """
        return self.decode(self.net(images.permute(0, 3, 1, 2).float() * self.scale), self.candidates)


def decode_of(net: nn.Module) -> Decode:
    """Return how the output of a network is decoded: as its head says; a net of another architecture's as dense."""
    return net.head_row.decode if isinstance(net, DetectionNet) else DENSE
