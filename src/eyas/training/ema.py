"""An exponential moving average of the weights: what is evaluated and shipped."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from eyas.training.schedule import ema_decay


class TensorPairs(NamedTuple):
    """The tensors of an average and of what it follows, in the same order.

    Attributes:
        averaged, current: the floating-point ones.
        copied, counted: the others, of the average and of what it follows.
    """

    averaged: list[Tensor]
    current: list[Tensor]
    copied: list[Tensor]
    counted: list[Tensor]


class Ema:
    """Keeps `net`, a copy of the trained network whose weights trail behind it.

    All floating-point parameters and buffers are averaged in a few fused calls; integer buffers are copied.

    Attributes:
        net: the copy.
        steps: how many optimizer steps it has followed.
    """

    def __init__(self, net: nn.Module, ceiling: float) -> None:
        """Copy `net`; `ceiling` is the decay that is reached after the first few thousand steps."""
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.ceiling = ceiling
        self.steps = 0

    def next_weight(self) -> float:
        """Count an optimizer step, and return how much of the way to the network the average goes after it."""
        self.steps += 1
        return 1.0 - ema_decay(self.steps, self.ceiling)

    @torch.no_grad()
    def update(self, source: nn.Module) -> None:
        """Move the average towards `source` after an optimizer step."""
        averaged, current, copied, counted = self.pairs(source)
        torch._foreach_lerp_(averaged, current, self.next_weight())
        _copy(copied, counted)

    @torch.no_grad()
    def follow(self, pairs: TensorPairs, weight: Tensor) -> None:
        """Move the average by `weight` [], what `next_weight` returned: a tensor, so that it may change in a replay."""
        averaged, current, copied, counted = pairs
        way = torch._foreach_sub(current, averaged)
        torch._foreach_mul_(way, weight)
        torch._foreach_add_(averaged, way)
        _copy(copied, counted)

    def pairs(self, source: nn.Module) -> TensorPairs:
        """Return the tensors of the average and of `source`; they are others after either has changed its device."""
        own = [*self.net.parameters(), *self.net.buffers()]
        other = [*source.parameters(), *source.buffers()]
        pairs = TensorPairs([], [], [], [])
        for average, value in zip(own, other, strict=True):
            floating = average.is_floating_point()
            (pairs.averaged if floating else pairs.copied).append(average)
            (pairs.current if floating else pairs.counted).append(value)
        return pairs


def _copy(own: list[Tensor], other: list[Tensor]) -> None:
    """Copy values in one call; PyTorch refuses to copy nothing."""
    if own:
        torch._foreach_copy_(own, other)
