"""One process where one is asked for, else one a device, each with the whole network and a part of every batch."""

from __future__ import annotations

from eyas.training.recipe import TrainerRecipe


def automatic(trainer: TrainerRecipe) -> str:
    """Return Lightning's own choice for one process, data-parallel training for several."""
    return "auto" if trainer.devices * trainer.num_nodes == 1 else data_parallel(trainer)


def data_parallel(_: TrainerRecipe) -> str:
    """Return Lightning's name of training with the gradients averaged over processes."""
    return "ddp"
