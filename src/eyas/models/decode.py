"""The module that is deployed: a network with what comes before and after it."""

from __future__ import annotations

from torch import Tensor, nn

from eyas.models.detection_net import head_row_of
from eyas.models.heads import Decode
from eyas.types import InputSpec


class Deployed(nn.Module):
    """The graph that is exported, and that validation and every session share: images in, candidates out.

    Args:
        net: float images [B, 3, H, W] -> what `decode` takes.
        input_spec: its `scale` is applied here.
        candidates: how many boxes to keep an image.
        decode: of the net's output; as its head says if None.
    """

    def __init__(
        self, net: nn.Module, input_spec: InputSpec, candidates: int = 1000, decode: Decode | None = None
    ) -> None:
        super().__init__()
        self.net = net
        self.scale = input_spec.scale
        self.candidates = candidates
        self.decode = decode or head_row_of(net).decode

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the boxes with the best scores, best first.

        Args:
            images: uint8 [B, H, W, 3], RGB; H and W are multiples of 32.

        Returns:
            boxes float32 [B, K, 4], xyxy in network pixels, and scores float32 [B, K, C] in 0..1, with K at most
            `candidates`.
        """
        return self.decode(self.net(images.permute(0, 3, 1, 2).float() * self.scale), self.candidates)
