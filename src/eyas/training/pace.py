"""A first guess of the machine's speed: a few steps and a few detections on real images, before training begins."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import nn

from eyas.data.loading.batch import Batch
from eyas.errors import UserError
from eyas.losses.criterion import Criterion
from eyas.models.decode import Deployed
from eyas.models.fuse import fused
from eyas.training.batches import loss_terms
from eyas.training.data import DetectionData
from eyas.training.graph import WARM_UP, CudaGraphs
from eyas.training.optim import make_optimizer
from eyas.training.parallel import pick_accelerator, pick_precision
from eyas.training.recipe import Recipe
from eyas.training.step import StepSettings, TrainingStep
from eyas.training.timetable import Aims, Pace, fits_an_epoch, plan, steps_ahead

FINISH = 2.0  # seconds for the card, the last images and the end of the processes
LEAST = 20  # optimizer steps; fewer teach a network nothing
SLACK = 1.5  # evaluating trained networks takes longer: they find something, which is to be suppressed and drawn


def first_pace(recipe: Recipe, data: DetectionData, net: nn.Module, criterion: Criterion) -> Pace:
    """Return a guess of what steps and evaluations will take; the network is left as it was."""
    device = pick_accelerator(recipe.trainer.accelerator)
    half = torch.bfloat16 if pick_precision(recipe.trainer.precision, device) != "32-true" else None
    spec = recipe.data.input_spec()
    batch = data.trial_batch(recipe.data.batch_size, epoch=0).to(device)
    share = recipe.data.batch_size / len(batch)  # fewer may be readable
    net, criterion = copy.deepcopy(net).to(device).train(), copy.deepcopy(criterion).to(device)
    step = _graphed if device == "cuda" and recipe.trainer.step in ("auto", "graphed") and criterion.static else _eager
    work, warm = step(recipe, net, criterion, batch, half)
    seconds = _fastest(work, warm) * share * recipe.optim.accumulate
    deployed = Deployed(fused(net), spec).eval()

    def detect() -> None:
        with torch.no_grad(), torch.autocast(device, half, enabled=half is not None):
            deployed(batch.images)[0].float().sum().item()

    images = len(data.val_index) / (recipe.trainer.devices * recipe.trainer.num_nodes)
    evaluation = 1.0 + SLACK * _fastest(detect, 1) / len(batch) * images
    return Pace(seconds, evaluation, 0.0, FINISH + (evaluation if recipe.trainer.average_best else 0.0))


Work = tuple[Callable[[], None], int]  # does it once, and how often until it is warm


def _eager(recipe: Recipe, net: nn.Module, criterion: Criterion, batch: Batch, half: torch.dtype | None) -> Work:
    """Return an ordinary step."""
    optimizer = make_optimizer(net, recipe.optim, criterion.parameters())

    def step() -> None:
        with torch.autocast(batch.images.device.type, half, enabled=half is not None):
            loss = loss_terms(net, criterion, batch.images, batch, recipe.data.input_spec().scale).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for an accelerator

    return step, 1


def _graphed(recipe: Recipe, net: nn.Module, criterion: Criterion, batch: Batch, half: torch.dtype | None) -> Work:
    """Return a step that is replayed on the GPU."""
    optimizer = make_optimizer(net, recipe.optim, criterion.parameters(), fused=True)
    settings = StepSettings(recipe.data.input_spec().scale, recipe.optim.clip_norm, half)
    graphs = CudaGraphs(batch.images.device, lambda _: None)
    whole = TrainingStep(net, criterion, optimizer, None, settings, graphs)

    def step() -> None:
        whole(batch).sum().item()

    return step, WARM_UP + 2


def aims_of(recipe: Recipe, data: DetectionData, ahead: int) -> Aims:
    """Return what the recipe wants of a run that has a time.

    Args:
        recipe: the whole run.
        data: its images.
        ahead: how many batches ahead images are made.
    """
    world = recipe.trainer.devices * recipe.trainer.num_nodes
    batches = max(1, len(data.train_index) // (recipe.data.batch_size * world))
    accumulate = recipe.optim.accumulate
    an_epoch = -(-batches // accumulate)
    warmup = recipe.optim.warmup_steps
    if recipe.optim.warmup_epochs:
        warmup = min(warmup, round(recipe.optim.warmup_epochs * an_epoch))
    closing = min(1.0, recipe.trainer.close_epochs / recipe.trainer.epochs)
    ahead = steps_ahead(ahead, batches, accumulate)
    return Aims(warmup, recipe.trainer.val_every, closing, an_epoch, recipe.trainer.max_steps, ahead)


def check_time(minutes: float, left: float, pace: Pace, aims: Aims) -> str:
    """Return what the time is planned for, as a line.

    Args:
        minutes: what was given.
        left: seconds of it that are left.
        pace: the machine's speed, guessed.
        aims: what the recipe wants.

    Raises:
        UserError: it is too short for one pass over the images, or to learn anything.
    """
    planned = plan(0, left, pace, aims)
    epochs = planned.total / aims.steps_an_epoch
    if not fits_an_epoch(planned, aims) or planned.total < LEAST:
        if aims.max_steps and planned.total >= aims.max_steps:
            return f"{minutes:g} minutes: {planned.total} steps, the limit"
        steps = max(LEAST, aims.steps_an_epoch)
        needed = 60 * minutes - left + steps * pace.step + pace.evaluation + pace.finish
        raise UserError(
            f"{minutes:g} minutes are too short: they allow about {planned.total} steps here ({pace.step:.2g} s "
            f"each), and one epoch takes {aims.steps_an_epoch}.",
            where="--minutes",
            expected="time for one epoch, an evaluation, and the work before and after",
            fix=f"--minutes {_rounded_up(1.2 * needed / 60):g} or more; a smaller --size or --model is faster; "
            "--trainer.preflight false tries anyway",
        )
    return (
        f"{minutes:g} minutes: about {planned.total} steps or {epochs:.1f} epochs, evaluated every "
        f"{'epoch' if planned.every == 1 else f'{planned.every} epochs'}; updated as the speed is measured"
    )


def _rounded_up(minutes: float) -> float:
    """Return a number of minutes that can be told: 0.5, 1, 2, ... or tens of them."""
    step = 0.5 if minutes < 2 else 1.0 if minutes < 20 else 10.0
    return -(-minutes // step) * step


def _fastest(work: Callable[[], None], warm: int) -> float:
    """Return the seconds that something takes after so many times."""
    times = []
    for _ in range(warm + 2):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times[warm:])
