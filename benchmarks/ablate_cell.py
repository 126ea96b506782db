"""One cell of the ablation, in a process of its own: what a variant's step costs, or what a whole run of it reaches."""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from benchmarks.ablate_variants import BASELINE, TEACHER, Variant, whole
from rich.console import Console
from torch import nn

from eyas.artifacts import layout
from eyas.models.zoo import resolve
from eyas.signals import StopSignals
from eyas.training.batches import loss_terms
from eyas.training.config_overrides import override
from eyas.training.ema import Ema
from eyas.training.experiment import Experiment, build
from eyas.training.fit import run
from eyas.training.optim import make_optimizer
from eyas.training.parallel import pick_precision
from eyas.training.recipe import Recipe
from eyas.training.recipes import scratch

# The recipe `scratch` as it was before this ablation: what the variants change.
BEFORE = {
    "optim.optimizer": "adamw",
    "optim.lr": 2e-3,
    "optim.flat": 0.0,
    "loss.classification": "varifocal",
}
CLOSING = 0.1  # the share of the epochs that saw single images
ROUNDS, STEPS = 4, 6  # of the measurement of costs
WARMUP = 0.1  # the share of all steps that the warm-up may take, as in a run that is given a time


def make_recipe(variant: Variant, cell: dict[str, Any], folder: Path, epochs: int) -> Recipe:
    """Return the recipe of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "spec.json"
    spec.write_text(json.dumps(variant.spec_of(resolve(cell["model"])).to_dict()), encoding="utf-8")
    base = scratch()
    closing = variant.closing
    if closing is None:
        closing = CLOSING
    recipe = override(
        base,
        {
            "model.spec": str(spec),
            "data.root": cell["root"],
            "data.size": cell["size"],
            "data.workers": 0,
            "data.cache": "decoded",
            "trainer.epochs": epochs,
            "trainer.close_epochs": round(closing * epochs),
            "trainer.val_every": epochs,
            "trainer.seed": cell["seed"],
            "trainer.sheets": 0,
            "trainer.preflight": False,
            "trainer.accelerator": "cpu",
            **BEFORE,
            **{name: cell["teacher"] if value == TEACHER else value for name, value in variant.recipe.items()},
        },
    )
    steps = epochs * (cell["images"] // recipe.data.batch_size)
    return override(recipe, {"optim.warmup_steps": min(recipe.optim.warmup_steps, math.ceil(WARMUP * steps))})


def made(variant: Variant, cell: dict[str, Any], folder: Path, epochs: int) -> Experiment:
    """Return the experiment of a run, changed as the variant wants."""
    shutil.rmtree(folder, ignore_errors=True)
    quiet = Console(quiet=True)
    recipe = make_recipe(variant, cell, folder.with_name(f"{folder.name}-spec"), epochs)
    experiment = build(recipe, folder, console=quiet, check=False)
    if variant.change is not None:
        variant.change(experiment)
    return experiment


def steps_of(experiment: Experiment) -> Iterator[None]:
    """Do a training step, loading included, each time that one is asked for."""
    module, recipe = experiment.module, experiment.recipe
    net, criterion = module.net.train(), module.criterion
    optimizer = make_optimizer(net, recipe.optim, criterion.parameters())
    ema = Ema(net, recipe.optim.ema)
    half = pick_precision(recipe.trainer.precision, "cpu") != "32-true"
    experiment.data.setup("fit")
    loader = experiment.data.train_dataloader()
    while True:
        for batch in loader:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = loss_terms(net, criterion, batch.images, batch, recipe.data.input_spec().scale).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), recipe.optim.clip_norm or math.inf)
            optimizer.step()
            ema.update(net)
            yield


def cost(cell: dict[str, Any], folder: Path) -> dict[str, float]:
    """Return the processor seconds an image of the default and of a variant, by turns: the least of some rounds each.

    The default is "images" wide in batches of its own size, the variant in its own.
    """
    sides = []
    for name, variant in (("default", whole(BASELINE)), ("variant", whole(cell["variant"]))):
        experiment = made(variant, cell, folder.with_name(f"{folder.name}-{name}"), epochs=1000)
        images = experiment.recipe.data.batch_size
        steps = max(2, round(STEPS * 16 / images))
        sides.append((steps_of(experiment), images, steps))
    least = [math.inf, math.inf]
    for number in range(ROUNDS + 1):
        for side, (stream, images, steps) in enumerate(sides):
            start = time.process_time()
            for _ in range(steps):
                next(stream)
            if number:
                least[side] = min(least[side], (time.process_time() - start) / (steps * images))
    return {"default": least[0], "variant": least[1]}


def train(cell: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a whole run reached, by its last weights' average, and what it took."""
    wall, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    experiment = made(whole(cell["variant"]), cell, folder, cell["epochs"])
    quiet = Console(quiet=True)
    with StopSignals() as signals:
        run(experiment, signals, console=quiet)
    with (folder / layout.METRICS).open(encoding="utf-8", newline="") as file:
        row = list(csv.DictReader(file))[-1]
    after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ap": float(row["AP"]),
        "ap50": float(row["AP50"]),
        "epochs": cell["epochs"],
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.monotonic() - wall, 1),
    }


def main() -> None:
    """Do what the JSON of the first argument says in the folder of the second, and print the result as JSON."""
    cell, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {cell["core"]})
    result = cost(cell, folder) if cell["kind"] == "cost" else train(cell, folder)
    print(json.dumps(result))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
