"""The whole training step on batches that lie on the device already, in each of its kinds: how fast, and where it goes.

    python benchmarks/training_gpu_steps.py --data data/shapes --model n --size 320 --batch 64 --kinds eager,padded

Forward, loss, backward, clipping, optimizer and weight average; no loader, no Trainer, nothing logged. Prints a JSON
object a kind as soon as it is measured, so that a kind that fails takes nothing from the others:
images_per_second; step_ms; launch_ms until the call of a step returns while the device was idle; kernels_ms, the
time of all kernels of a step by torch.profiler, and their number; peak_mib.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from eyas.data.loading.batch import Batch
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training.batches import to_float_images
from eyas.training.config_overrides import override
from eyas.training.data import DetectionData
from eyas.training.ema import Ema
from eyas.training.graph import CudaGraphs
from eyas.training.optim import make_optimizer
from eyas.training.recipe import Recipe
from eyas.training.recipes import scratch
from eyas.training.schedule import ema_decay
from eyas.training.step import StepSettings, TrainingStep

Step = Callable[[Batch], None]
KINDS = ("eager", "padded", "graphed", "compiled")


def batches_on_device(recipe: Recipe, number: int, device: torch.device) -> tuple[list[Batch], int]:
    """Return the first augmented batches of the data set, on the device, and the number of classes."""
    data = DetectionData(recipe.data, recipe.augment)
    loader = iter(data.train_dataloader())
    taken = [next(loader) for _ in range(number)]
    moved = [batch.to(device) for batch in taken]
    return moved, len(data.classes)


def eager_step(net: nn.Module, recipe: Recipe, device: torch.device, autocast: torch.dtype | None) -> Step:
    """Return the step as one writes it by hand."""
    optimizer = make_optimizer(net, recipe.optim)
    criterion = DetectionCriterion().to(device)
    average = copy.deepcopy(net).requires_grad_(False)
    states = zip(average.state_dict().values(), net.state_dict().values(), strict=True)
    averaged, current = map(list, zip(*((a, b) for a, b in states if a.is_floating_point()), strict=True))
    number = 0

    def step(batch: Batch) -> None:
        nonlocal number
        number += 1
        with torch.autocast(device.type, autocast, autocast is not None):
            output = net(to_float_images(batch.images, 1 / 255))
            loss = torch.stack(list(criterion(output, batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averaged, current, 1 - ema_decay(number, recipe.optim.ema))

    return step


def whole_step(
    net: nn.Module, recipe: Recipe, device: torch.device, autocast: torch.dtype | None, *, graphed: bool
) -> Step:
    """Return Eyas's step of static shapes, replayed as a CUDA graph or not."""
    optimizer = make_optimizer(net, recipe.optim, fused=graphed)
    settings = StepSettings(1 / 255, recipe.optim.clip_norm, autocast)
    replay = CudaGraphs(device, lambda why: print(why, file=sys.stderr)) if graphed else None
    ema = Ema(net, recipe.optim.ema)
    done = TrainingStep(net, DetectionCriterion().to(device), optimizer, ema, settings, replay)
    return lambda batch: done(batch)


def make_step(kind: str, net: nn.Module, recipe: Recipe, device: torch.device, autocast: torch.dtype | None) -> Step:
    """Return the step of one kind, as a function of a batch."""
    if kind == "compiled":
        net.compile()
    if kind in ("eager", "compiled"):
        return eager_step(net, recipe, device, autocast)
    return whole_step(net, recipe, device, autocast, graphed=kind == "graphed")


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def kernels(step: Step, batches: list[Batch], device: torch.device, steps: int = 3) -> dict[str, float]:
    """Return milliseconds of kernels a step, and how many there are."""
    from torch.profiler import ProfilerActivity, profile

    if device.type != "cuda":
        return {}
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        for number in range(steps):
            step(batches[number % len(batches)])
        synchronize(device)
    events = [each for each in seen.events() or [] if each.device_type == torch.autograd.DeviceType.CUDA]
    total = sum(each.device_time_total for each in events)
    return {"kernels_ms": total / 1000 / steps, "kernels": len(events) / steps}


def measured(step: Step, batches: list[Batch], device: torch.device, seconds: float, warm: int) -> dict[str, float]:
    """Return what the step takes: throughput over so many seconds, then one step alone."""
    for number in range(warm):
        step(batches[number % len(batches)])
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(4):
            step(batches[count % len(batches)])
            count += 1
        if count % 16 == 0:
            synchronize(device)  # else a step that is quickly launched would run far ahead of the clock
    synchronize(device)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    launches = []
    for number in range(8):
        began = time.perf_counter()
        step(batches[number % len(batches)])
        launches.append(time.perf_counter() - began)
        synchronize(device)
    return {
        "images_per_second": count * len(batches[0]) / wall, "step_ms": 1000 * wall / count,
        "cpu_ms": 1000 * cpu / count, "launch_ms": 1000 * statistics.median(launches), "steps": count,
    }  # fmt: skip


def main() -> None:
    """Measure each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="n")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--seconds", type=float, default=3.0)
    args = parser.parse_args()
    device = torch.device(args.device)
    recipe = override(
        scratch(),
        {"data.root": args.data, "data.size": args.size, "data.batch_size": args.batch, "model.name": args.model,
         "trainer.accelerator": args.device, **({"data.workers": 0} if args.device == "cpu" else {})},
    )  # fmt: skip
    batches, classes = batches_on_device(recipe, 4, device)
    autocast = torch.bfloat16 if args.device == "cuda" else None
    for kind in args.kinds.split(","):
        result: dict[str, Any] = {"kind": kind}
        try:
            torch.manual_seed(0)
            net = build(args.model, classes).to(device, memory_format=torch.channels_last).train()
            step = make_step(kind, net, recipe, device, autocast)
            result |= measured(step, batches, device, args.seconds, warm=6 * len(batches))
            result |= kernels(step, batches, device)
            if device.type == "cuda":
                result["peak_mib"] = torch.cuda.max_memory_allocated() / 2**20
        except Exception as error:  # the next kind is measured all the same, and the report says what was wrong
            result["failed"] = f"{type(error).__name__}: {error}"[:600]
        print(json.dumps(result), flush=True)
        net = step = None  # type: ignore[assignment]


if __name__ == "__main__":
    main()
