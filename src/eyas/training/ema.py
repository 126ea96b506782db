"""An exponential moving average of the weights: what is evaluated and shipped."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from eyas.training.schedule import ema_decay


class Ema:
    """Keeps `net`, a copy of the trained network whose weights trail behind it.

    All floating-point parameters and buffers are averaged in a few fused calls; integer buffers are copied.
    """

    def __init__(self, net: nn.Module, ceiling: float) -> None:
        """Copy `net`; `ceiling` is the decay that is reached after the first few thousand steps."""
        self.net = copy.deepcopy(net).eval().requires_grad_(False)
        self.ceiling = ceiling

    @torch.no_grad()
    def update(self, source: nn.Module, step: int) -> None:
        """Move the average towards `source` after its optimizer step number `step` (from 1)."""
        averaged, current = self._pair(source)
        torch._foreach_lerp_(averaged, current, 1.0 - ema_decay(step, self.ceiling))
        for own, other in zip(self.net.buffers(), source.buffers(), strict=True):
            if not own.is_floating_point():
                own.copy_(other)

    def _pair(self, source: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
        """Return the floating-point tensors of the average and of `source`, in the same order."""
        own = [*self.net.parameters(), *self.net.buffers()]
        other = [*source.parameters(), *source.buffers()]
        pairs = [(a, b) for a, b in zip(own, other, strict=True) if a.is_floating_point()]
        return [a for a, _ in pairs], [b for _, b in pairs]
