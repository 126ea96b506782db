"""Every way to train with several processes: what Lightning is told."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from lightning.pytorch.strategies import ParallelStrategy

from eyas.errors import UserError
from eyas.training.config_overrides import override
from eyas.training.experiment import build, make_trainer
from eyas.training.recipe import Recipe, TrainerRecipe
from eyas.training.strategies import STRATEGIES


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_gives_several_processes_a_strategy_that_lightning_knows(name: str) -> None:
    trainer = TrainerRecipe(devices=4, strategy=name, accelerator="cpu")
    made = make_trainer(Recipe(trainer=trainer), Path("run"), []).strategy
    assert isinstance(made, ParallelStrategy) and made.num_processes == 4


@pytest.mark.parametrize(("devices", "num_nodes", "expected"), [(1, 1, "auto"), (4, 1, "ddp"), (1, 2, "ddp")])
def test_auto_takes_one_process_alone(devices: int, num_nodes: int, expected: str) -> None:
    assert STRATEGIES["auto"](dataclasses.replace(TrainerRecipe(), devices=devices, num_nodes=num_nodes)) == expected


def test_an_unknown_strategy_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="no strategy 'dpp' \\(did you mean 'ddp'"):
        build(override(Recipe(), {"trainer.strategy": "dpp", "data.root": "nowhere"}), Path("run"))
