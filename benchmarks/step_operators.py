"""How many operators PyTorch is asked for in a training step: on a GPU each is a launch or a few, dearer than its work.

    python benchmarks/step_operators.py --model n --size 320 --batch 8

It counts those that compute, not views, in the step that Lightning runs part after part and in the whole step, of which
a GPU is asked once only when it is captured. A CPU will do: the same code is counted. Where the host reads a value of
the GPU, it waits until all before is done, and nothing can be captured.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from eyas.losses.criterion import Criterion, PaddedTruth
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training.batches import to_float_images
from eyas.training.ema import Ema
from eyas.training.optim import make_optimizer
from eyas.training.recipe import OptimRecipe
from eyas.training.step import truth_rows


class Operators(TorchDispatchMode):
    """Counts operators that compute something."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.reads = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one, unless it is a view of what there is already."""
        returns = function._schema.returns
        view = bool(returns) and all(one.alias_info is not None and not one.alias_info.is_write for one in returns)
        name = function._schema.name
        self.count += not view and not name.startswith(("prim::", "profiler::"))
        self.reads += name in ("aten::_local_scalar_dense", "aten::nonzero")
        return function(*args, **(kwargs or {}))


def counted(function: Callable[[], Any]) -> tuple[Any, int, int]:
    """Return what a function returns, its operators, and how many of them let the host read a value."""
    with Operators() as operators:
        result = function()
    return result, operators.count, operators.reads


def count_step(
    net: nn.Module, criterion: Criterion, batch: SimpleNamespace, *, whole: bool
) -> dict[str, tuple[int, int]]:
    """Return the operators and the values read of each part of a step, the second of its kind."""
    optimizer = make_optimizer(net, OptimRecipe(), fused=whole)
    ema = Ema(net, 0.9997)
    pairs, weight = ema.pairs(net), torch.tensor(0.1)
    parts: dict[str, tuple[int, int]] = {}
    truth = PaddedTruth(*batch.padded, batch.counts) if whole else batch

    def part(name: str, function: Callable[[], Any]) -> Any:
        result, *parts[name] = counted(function)  # type: ignore[assignment]
        return result

    for _ in range(2):
        optimizer.zero_grad()
        output = part("forward", lambda: net(to_float_images(batch.images, 1 / 255)))
        loss = part("loss", lambda output=output: torch.stack(list(criterion(output, truth).values())).sum())
        part("backward", loss.backward)
        part("clip", lambda: nn.utils.clip_grad_norm_(net.parameters(), 10.0))
        part("optimizer", optimizer.step)
        part("average", lambda: ema.follow(pairs, weight) if whole else plain_average(ema, net))
    return parts


def plain_average(ema: Ema, net: nn.Module) -> None:
    """Move the average as it was moved before there were whole steps: counters one after another."""
    pairs = ema.pairs(net)
    with torch.no_grad():
        torch._foreach_lerp_(pairs.averaged, pairs.current, 0.1)
        for own, other in zip(pairs.copied, pairs.counted, strict=True):
            own.copy_(other)


def main() -> None:
    """Count and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="n")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    torch.manual_seed(0)
    net, classes, each = build(args.model, 3).train(), 3, 8
    boxes = args.batch * each
    corners = torch.rand(boxes, 2) * args.size * 0.7
    packed = torch.cat([corners, corners + 16 + torch.rand(boxes, 2) * 64], dim=-1), torch.randint(0, classes, (boxes,))
    more = truth_rows(boxes + 1) - boxes
    batch = SimpleNamespace(
        images=torch.randint(0, 256, (args.batch, args.size, args.size, 3), dtype=torch.uint8),
        boxes=packed[0], labels=packed[1], counts=torch.full((args.batch,), each),
        padded=(torch.cat([packed[0], torch.zeros(more, 4)]), torch.cat([packed[1], torch.zeros(more).long()])),
    )  # fmt: skip
    eager, whole = (count_step(net, DetectionCriterion(), batch, whole=kind) for kind in (False, True))
    print(f"| {args.model} at {args.size} px | part after part | values read | whole step | values read |")
    print("|---|---:|---:|---:|---:|")
    for name in eager:
        print(f"| {name} | {eager[name][0]} | {eager[name][1]} | {whole[name][0]} | {whole[name][1]} |")
    sums = [sum(part[column] for part in kind.values()) for kind in (eager, whole) for column in (0, 1)]
    print("| all | " + " | ".join(str(total) for total in sums) + " |")


if __name__ == "__main__":
    main()
