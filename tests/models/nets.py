"""Small networks for the tests, and BatchNorm statistics as a trained net would have them."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import nn

from eyas.models import zoo
from eyas.models.detection_net import DetectionNet
from eyas.models.spec import StageSpec, YoloNasSpec

Net = TypeVar("Net", bound=nn.Module)

# Odd widths, an odd last bin, unequal depths (one of them zero), all kinds of blocks, kernels and CSP layers.
IRREGULAR = YoloNasSpec(
    stem_width=5,
    stages=(
        StageSpec(9, 1, 3, True, "conv"),
        StageSpec(14, 0, 7),
        StageSpec(21, 2, 10, True, kernel=5),
        StageSpec(27, 1, 11, False, "conv"),
    ),
    context_hidden=6,
    context_width=19,
    neck=(
        StageSpec(13, 1, 5, True),
        StageSpec(11, 2, 4, False, "dwconv", kernel=5),
        StageSpec(15, 0, 8, False, "conv"),
        StageSpec(23, 1, 9, True),
    ),
    head_widths=(7, 10, 12),
    stem_block="conv",
    stem_kernel=5,
    activation="hardswish",
    reg_max=9,
)


@cache
def meta_net(name: str) -> DetectionNet:
    """Return the named net of 80 classes without memory, for names, shapes and counting; don't change it."""
    with torch.device("meta"):
        return zoo.build(name, 80)


def with_random_statistics(net: Net, seed: int = 0) -> Net:
    """Return the net in eval mode, its BatchNorms (and shortcuts' weights) as far from untouched as a trained net's."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.2, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    for name, parameter in net.named_parameters():
        if name.endswith("alpha"):
            nn.init.uniform_(parameter, 0.5, 1, generator=generator)
        if name.endswith("_pred.weight"):
            nn.init.normal_(parameter, 0, 0.1, generator=generator)
    return net.eval()
