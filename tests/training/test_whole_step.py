"""Runs whose steps are done as one unit: the eager run's numbers, resumed to the bit, and eager where it must be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from tests.training.stopping import (
    At,
    Killed,
    along,
    assert_same,
    kill,
)

from eyas.artifacts import layout
from eyas.losses.detection import DetectionCriterion
from eyas.training.callbacks import essential, whole_step
from eyas.training.callbacks.finite import DivergedError
from eyas.training.callbacks.whole_step import StepKind, WholeStep, obstacle
from eyas.training.fit import fit, resume
from eyas.training.graph import CudaGraphs
from eyas.training.module import DetectionModule
from eyas.training.recipe import OptimRecipe, Recipe, evolve
from eyas.types import InputSpec

from .conftest import quiet
from .emulated_graph import emulate
from .tiny_detector import Loader, TinyDetector, batches

pytestmark = pytest.mark.usefixtures("no_curves")


class Losses(L.Callback):
    """Keeps each step's terms and learning rate, as a callback reads them."""

    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self.seen.append([trainer.global_step, pl_module.learning_rate(), *pl_module.terms.tolist()])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fifty_steps_of_a_trainer_of_ones_own_are_the_eager_ones(precision: str, tmp_path: Path) -> None:
    def trained(kind: StepKind) -> tuple[list[list[float]], DetectionModule]:
        torch.manual_seed(0)
        module = DetectionModule(TinyDetector(), ("a", "b", "c"), InputSpec(64, 64), OptimRecipe(warmup_steps=10))
        losses = Losses()
        trainer = L.Trainer(
            callbacks=[*essential(), WholeStep(kind, quiet()), losses], max_steps=50, max_epochs=-1, accelerator="cpu",
            precision=precision, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, default_root_dir=tmp_path, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, Loader(batches(10)))
        assert trainer.global_step == len(losses.seen) == 50
        assert (module.ema and module.ema.steps) == 50
        return losses.seen, module

    (eager, one), (padded, other) = trained("eager"), trained("padded")
    tolerance = 1e-6 if precision == "32-true" else 1e-2
    torch.testing.assert_close(torch.tensor(padded), torch.tensor(eager), rtol=tolerance, atol=tolerance)
    if precision == "32-true":
        for name, value in one.ema_net.state_dict().items():
            torch.testing.assert_close(other.ema_net.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def on_gpu(monkeypatch: pytest.MonkeyPatch) -> list[CudaGraphs]:
    """Have graphs made on this CPU, and return those that are."""
    made: list[CudaGraphs] = []

    def graphs(device: torch.device, tell: Callable[[str], None]) -> CudaGraphs:
        made.append(CudaGraphs(device, tell))
        return made[-1]

    emulate(monkeypatch)
    monkeypatch.setattr(whole_step, "obstacle", lambda *_, **__: "")
    monkeypatch.setattr(whole_step, "CudaGraphs", graphs)
    return made


@pytest.mark.parametrize("kind", ["padded", "graphed"])
def test_killed_in_mid_epoch_it_goes_on_bit_identically(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = on_gpu(monkeypatch)
    recipe = evolve(short, trainer={"step": kind})
    whole = fit(recipe, tmp_path / "whole", console=quiet())
    recipe = evolve(recipe, trainer={"save_minutes": 0.0})
    assert len(made) == (kind == "graphed") and all(graphs.captured and not graphs.why for graphs in made)
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_end", 6, kill), last=True)
        with pytest.raises(Killed):
            fit(recipe, tmp_path / "run", console=quiet())
    state = torch.load(tmp_path / "run" / layout.CHECKPOINT, weights_only=True)
    assert state["global_step"] == 6
    assert [group["lr"] > 0 for group in state["optimizer_states"][0]["param_groups"]] == [True, True]
    assert_same(resume(tmp_path / "run", console=quiet()), whole)


@pytest.mark.usefixtures("nan_in_the_third_step")
def test_a_loss_that_is_no_number_ends_a_padded_run_at_its_step(short: Recipe, tmp_path: Path) -> None:
    recipe = evolve(short, trainer={"step": "padded", "save_minutes": 0.0})
    with pytest.raises(DivergedError, match="term dfl at step 2"):
        fit(recipe, tmp_path / "run", console=quiet())
    state = torch.load(tmp_path / "run" / layout.CHECKPOINT, weights_only=True)
    assert state["global_step"] == 2  # a state that can be gone on from


@pytest.mark.parametrize(
    ("changed", "graphed", "why"),
    [
        ({}, True, "CUDA graphs need a GPU; this run is on cpu"),
        ({}, False, ""),
        ({"precision": "32-true"}, False, ""),
        ({"precision": "16-mixed"}, False, "16-mixed scales the loss"),
        ({"accumulate_grad_batches": 4}, False, "the gradients of 4 batches are accumulated (optim.accumulate)"),
        ({"strategy": DDPStrategy()}, False, "several processes share the work (DDPStrategy)"),
    ],
)
def test_what_stands_in_the_way_is_named(changed: dict[str, Any], graphed: bool, why: str) -> None:
    usual = {
        "strategy": SingleDeviceStrategy(torch.device("cpu")),
        "accumulate_grad_batches": 1,
        "precision": "bf16-mixed",
    }
    trainer = SimpleNamespace(**{**usual, **changed})
    if "strategy" in changed:
        trainer.strategy.parallel_devices = [torch.device("cpu")]
        trainer.strategy.cluster_environment = SimpleNamespace(local_rank=lambda: 0)
    found = obstacle(trainer, SimpleNamespace(criterion=DetectionCriterion()), graphed=graphed)
    assert found.startswith(why) and bool(found) == bool(why)


def test_a_criterion_that_is_not_static_is_trained_eagerly_and_told(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DetectionCriterion, "static", False)
    console = quiet()
    recipe = evolve(short, trainer={"step": "padded", "max_steps": 2})
    folder = fit(recipe, tmp_path / "run", console=console)
    said = [line for line in console.file.getvalue().splitlines() if "trainer.step" in line]
    assert len(said) == 1 and "DetectionCriterion does not declare static shapes" in said[0]
    assert (folder / layout.WEIGHTS).is_file()


def test_auto_is_eager_on_a_cpu_without_a_word(short: Recipe, tmp_path: Path) -> None:
    console = quiet()
    fit(evolve(short, trainer={"max_steps": 1}), tmp_path / "run", console=console)
    assert "trainer.step" not in console.file.getvalue()
