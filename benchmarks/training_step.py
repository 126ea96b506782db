"""What Lightning and Eyas's own code cost: steps a second against a bare PyTorch loop on the same net.

    python benchmarks/training_step.py --data data/stamps --model n --size 320 --batch 16 --steps 12

Both train the same network on the same batches, made beforehand, with the same optimizer, clipping and weight average.
They take turns of a few steps in one process, so that whatever else the machine does hits both; the ratio is of the
medians of processor time a step. `--parts` adds a table of where a step's time goes.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import eyas.training  # noqa: F401  # isort: skip  # first: Lightning's metrics import torchvision where it is installed
import lightning as L
import torch
from torch import nn

from eyas.data.loading.batch import Batch
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training.batches import to_float_images
from eyas.training.callbacks import essential
from eyas.training.callbacks.checkpoint import Saver, Stopper
from eyas.training.callbacks.csv_logger import Recorder
from eyas.training.callbacks.progress import ProgressLine
from eyas.training.config_overrides import override
from eyas.training.data import DetectionData
from eyas.training.ema import Ema
from eyas.training.experiment import make_trainer
from eyas.training.module import DetectionModule
from eyas.training.optim import make_optimizer
from eyas.training.recipe import Recipe
from eyas.training.recipes import scratch


def bare_loop(net: nn.Module, batches: list[Batch], recipe: Recipe) -> Iterator[float]:
    """Yield the processor seconds of each step of a loop as one would write it by hand."""
    optimizer = make_optimizer(net, recipe.optim)
    ema = Ema(net, recipe.optim.ema)
    criterion = DetectionCriterion()
    net.train()
    step = 0
    while True:
        batch = batches[step % len(batches)]
        start = time.process_time()
        images = to_float_images(batch.images, 1 / 255)
        loss = torch.stack(list(criterion(net(images), batch).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), recipe.optim.clip_norm)
        optimizer.step()
        step += 1
        ema.update(net)
        yield time.process_time() - start


class Turns(L.Callback):
    """Lets the bare loop take its turn after every few steps of the Trainer, and times both."""

    def __init__(self, bare: Iterator[float], turn: int) -> None:
        self.bare = bare
        self.turn = turn
        self.trainer_steps: list[float] = []
        self.bare_steps: list[float] = []
        self._last = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._last = time.process_time()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.trainer_steps.append(time.process_time() - self._last)
        if trainer.global_step % self.turn == 0:
            self.bare_steps += [next(self.bare) for _ in range(self.turn)]
        self._last = time.process_time()


class Replay:
    """A loader that gives the same batches again and again, without any work."""

    def __init__(self, batches: list[Batch], steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return (self.batches[i % len(self.batches)] for i in range(self.steps))


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="n")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--turn", type=int, default=2, help="steps before the other side's turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/training_step.json"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    recipe = override(
        scratch(),
        {"data.root": args.data, "data.size": args.size, "data.batch_size": args.batch, "data.workers": 0,
         "model.name": args.model, "trainer.max_steps": args.steps, "trainer.accelerator": "cpu"},
    )  # fmt: skip
    data = DetectionData(recipe.data, recipe.augment)
    loader = iter(data.train_dataloader())
    batches = [next(loader) for _ in range(4)]
    torch.manual_seed(0)
    net, other = (build(args.model, len(data.classes)).to(memory_format=torch.channels_last) for _ in range(2))
    module = DetectionModule(net, data.classes, recipe.data.input_spec(), recipe.optim)
    turns = Turns(bare_loop(other, batches, recipe), args.turn)
    folder = Path(tempfile.mkdtemp())
    saver = Saver(folder)
    callbacks = [*essential(recipe.optim), Recorder(folder), saver, ProgressLine(), Stopper(saver), turns]
    trainer = make_trainer(recipe, folder, callbacks)
    trainer.limit_val_batches = 0
    trainer.fit(module, train_dataloaders=Replay(batches, args.steps))
    eyas_step, bare_step = (statistics.median(times[args.turn :]) for times in (turns.trainer_steps, turns.bare_steps))
    result = {
        "model": args.model, "size": args.size, "batch": args.batch, "threads": args.threads,
        "steps": args.steps, "processor": platform.processor() or platform.machine(),
        "eyas_cpu_seconds": eyas_step, "bare_cpu_seconds": bare_step, "ratio": eyas_step / bare_step,
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Eyas {eyas_step:.3f} s a step, bare loop {bare_step:.3f} s: {eyas_step / bare_step:.3f} times (limit 1.05)")


if __name__ == "__main__":
    main()
