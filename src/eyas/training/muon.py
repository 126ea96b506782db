"""Muon: kernels move by their momentum made orthogonal, everything else by plain SGD with momentum.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; the scale of the update that lets it
take AdamW's learning rates is that of "Muon is Scalable for LLM Training" (arXiv 2502.16982).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

# A polynomial whose repetition takes all singular values near 1, fast rather than exactly (Jordan et al.).
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
UPDATE_RMS = 0.2  # of an update, as AdamW's have it: the same learning rates serve
LEAST_ROWS = 4  # a matrix with fewer is hardly one


def orthogonal(matrices: Tensor) -> Tensor:
    """Return matrices with the same singular vectors, and all singular values near 1 (about 0.7 to 1.2).

    Args:
        matrices: float [N, A, B] with A at most B.
    """
    a, b, c = COEFFICIENTS
    x: Tensor = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter is a kernel that can be made orthogonal: no depthwise one, no vector."""
    return parameter.ndim > 1 and min(parameter.shape[0], parameter[0].numel()) >= LEAST_ROWS and parameter.shape[1] > 1


class Muon(torch.optim.Optimizer):
    """Muon for the groups that say `orthogonal`, SGD with Nesterov's momentum for the others.

    Kernels of the same shape, seen as [out, in * height * width], are worked on together: what is launched on a GPU
    depends on the number of shapes, not of kernels. Nothing waits for the device; the rates may be tensors.

    Args:
        groups: of parameters, each with "lr", "weight_decay" (decoupled, as in AdamW) and "orthogonal".
        momentum: of the average of gradients.
        fused: the step may be captured in a CUDA graph; says whether a learning rate may be a tensor.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float = 0.95, fused: bool = False) -> None:
        defaults = {"lr": 0.0, "weight_decay": 0.0, "orthogonal": False, "momentum": momentum, "fused": fused}
        super().__init__(list(groups), {**defaults, "foreach": not fused, "capturable": fused})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the parameters that have a gradient.

        Args:
            closure: computes loss and gradients first, if given.

        Returns:
            what the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if not parameters:
                continue
            updates = self._updates(parameters, group["momentum"])
            if group["orthogonal"]:
                updates = _orthogonal_updates(updates)
            rate = group["lr"]
            if group["weight_decay"]:
                torch._foreach_mul_(parameters, 1 - rate * group["weight_decay"])
            torch._foreach_mul_(updates, -rate)
            torch._foreach_add_(parameters, updates)
        return loss

    def _updates(self, parameters: list[Tensor], momentum: float) -> list[Tensor]:
        """Return gradients looked ahead by their averages, which are moved."""
        for parameter in parameters:
            if not self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [p.grad for p in parameters if p.grad is not None]
        averages = [self.state[p]["momentum"] for p in parameters]
        torch._foreach_mul_(averages, momentum)
        torch._foreach_add_(averages, gradients)
        return list(torch._foreach_add(gradients, averages, alpha=momentum))


def _orthogonal_updates(updates: list[Tensor]) -> list[Tensor]:
    """Return the updates made orthogonal, those of a shape together, of AdamW's size."""
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number, update in enumerate(updates):
        buckets[(update.shape[0], update[0].numel())].append(number)
    done: list[Tensor] = list(updates)
    for (rows, columns), numbers in buckets.items():
        stacked = torch.stack([updates[number].reshape(rows, columns) for number in numbers])
        tall = rows > columns
        even = orthogonal(stacked.mT if tall else stacked)
        even = (even.mT if tall else even) * (UPDATE_RMS * max(rows, columns) ** 0.5)
        for number, matrix in zip(numbers, even, strict=True):
            done[number] = matrix.reshape(updates[number].shape)
    return done
