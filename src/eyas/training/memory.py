"""How many images a batch may have: what fits by an estimate, and by measurement once a GPU's memory has run out."""

from __future__ import annotations

import contextlib
import copy
import gc
import traceback
from collections.abc import Callable, Iterator

import lightning as L
import torch

from eyas.data.loading.batch import Batch
from eyas.errors import UserError
from eyas.losses.criterion import Criterion
from eyas.training.batches import loss_terms
from eyas.training.data import DetectionData
from eyas.training.module import DetectionModule
from eyas.training.optim import make_optimizer
from eyas.training.recipe import Recipe

FEW = 4  # images of the trial batch, which are repeated to a batch of any size
Step = Callable[[int], None]  # does a whole training step on so many images


def advice(recipe: Recipe, fits: int) -> str:
    """Return what to do where at most `fits` images go into memory at once: as many images a step, in smaller batches.

    The batch is the largest that fits and divides them.
    """
    if fits < 1:
        return "not even one image fits: use a smaller --size or a smaller --model"
    images = recipe.data.batch_size * recipe.optim.accumulate
    batch = next(num for num in range(min(fits, images), 0, -1) if images % num == 0)
    options = f"--batch {batch} --optim.accumulate {images // batch}"
    return (
        f"at most {fits} {'image fits' if fits == 1 else 'images fit'}: use {options} to keep {images} images per "
        "optimizer step"
    )


@contextlib.contextmanager
def explained_memory(recipe: Recipe, step: Step) -> Iterator[None]:
    """Tell how many images fit, by trying, if a GPU's memory runs out inside.

    Args:
        recipe: the run that is inside.
        step: tries so many images; called when all that the run had on the GPU is gone.

    Raises:
        UserError: the memory ran out.
    """
    try:
        yield
        return
    except torch.cuda.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # what they hold is what fills the memory
        words = str(error).partition(". ")[0]
    batch = recipe.data.batch_size
    fits = largest_that_fits(step, batch)
    if fits < batch:
        fix = advice(recipe, fits)
    else:
        fix = f"{batch} images alone would fit: check what else uses the GPU (nvidia-smi), or use a smaller --batch"
    raise UserError(
        f"The GPU ran out of memory training with batches of {batch} images ({words}).",
        where="data.batch_size",
        expected=f"batches that fit; memory is tested with whole steps at {recipe.data.size} pixels",
        fix=fix,
    )


def largest_that_fits(step: Step, most: int) -> int:
    """Return the largest number of images up to `most` that a step can be done on; 0 if it can't on one."""
    low, high = 0, most + 1  # `low` fits, `high` does not, or is not asked for
    while high - low > 1:
        num = (low + high) // 2
        low, high = (num, high) if _fits(step, num) else (low, num)
    return low


def _fits(step: Step, num: int) -> bool:
    """Return whether a step on so many images finds memory, and give back what it took."""
    fine = True
    _give_back()
    try:
        step(num)
    except torch.cuda.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)
        fine = False
    _give_back()
    return fine


def _give_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def trial_step(trainer: L.Trainer, module: DetectionModule, data: DetectionData) -> Step:
    """Return what does a step of this training on copies of its parts, on its device and in its precision.

    It holds what a step in the midst of training holds: weights, their average, gradients, both averages of AdamW, and
    what autograd keeps. It runs in this process alone, whatever others train along.
    """

    def step(num: int) -> None:
        device = trainer.strategy.root_device
        net = copy.deepcopy(module.net).to(device).train()
        average = copy.deepcopy(net)
        criterion = copy.deepcopy(module.criterion).to(device)
        for part in criterion.modules():  # it may wrap another
            if isinstance(part, Criterion):
                part.reduce = lambda value: value
        optimizer = make_optimizer(net, module.optim_recipe, criterion.parameters())
        batch = repeated(data.trial_batch(FEW, epoch=0), num).to(device)
        for _ in range(2):  # in the second one gradients and averages are there from the beginning
            with trainer.precision_plugin.forward_context():
                loss = loss_terms(net, criterion, batch.images, batch, module.input_spec.scale).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        del average

    return step


def repeated(batch: Batch, num: int) -> Batch:
    """Return a batch of `num` images: those of `batch`, over and over."""
    rows = torch.arange(num) % len(batch)
    truth = [batch.truth(row) for row in rows.tolist()]
    return Batch(
        images=batch.images[rows],
        boxes=torch.cat([boxes for boxes, _ in truth]),
        labels=torch.cat([labels for _, labels in truth]),
        counts=batch.counts[rows],
        indices=batch.indices[rows],
        placements=batch.placements[rows],
        sizes=batch.sizes[rows],
        skipped=batch.skipped,
        extras={name: [values[row] for row in rows.tolist()] for name, values in batch.extras.items()},
    )
