"""Has each training step done as one unit, on a GPU as a CUDA graph, where recipe and circumstances allow it."""

from __future__ import annotations

from typing import Literal

import lightning as L
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from rich.console import Console

from eyas.terminal import open_console, tell
from eyas.training.graph import CudaGraphs
from eyas.training.module import DetectionModule
from eyas.training.parallel import first_process
from eyas.training.step import StepSettings, TrainingStep

StepKind = Literal["auto", "eager", "padded", "graphed"]
AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16}  # Lightning's names of the precisions that need no more


class WholeStep(L.Callback):
    """Gives the module its `whole_step`, or says why not.

    Args:
        wanted: the recipe's `trainer.step`.
        console: where to say it; standard error if None.

    Attributes:
        kind: what was chosen: eager, padded or graphed.
    """

    def __init__(self, wanted: StepKind = "auto", console: Console | None = None) -> None:
        self.wanted = wanted
        self.kind: StepKind = "eager"
        self._console = console or open_console(stderr=True)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Choose, before the optimizer is made."""
        if stage != "fit":
            return
        assert isinstance(pl_module, DetectionModule)
        on_gpu = trainer.strategy.root_device.type == "cuda"
        kind = self.wanted if self.wanted != "auto" else "graphed" if on_gpu else "eager"
        why = obstacle(trainer, pl_module, graphed=kind == "graphed") if kind != "eager" else ""
        if why and first_process():
            tell(self._console, f"trainer.step is eager, not {kind}: {why}")
        self.kind = "eager" if why else kind
        pl_module.fused_optimizer = self.kind == "graphed"

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the step, now that all tensors are on their device and hold what a resumed run goes on with."""
        if self.kind == "eager":
            return
        assert isinstance(pl_module, DetectionModule)
        device = pl_module.device
        settings = StepSettings(
            pl_module.input_spec.scale, float(trainer.gradient_clip_val or 0.0), AUTOCAST[trainer.precision]
        )
        graphs = CudaGraphs(device, lambda why: tell(self._console, why)) if self.kind == "graphed" else None
        pl_module.whole_step = TrainingStep(
            pl_module.net, pl_module.criterion, trainer.optimizers[0], pl_module.ema, settings, graphs
        )

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Let go of the graphs and their memory, also when the run ended by an error."""
        if stage == "fit":
            assert isinstance(pl_module, DetectionModule)
            pl_module.whole_step = None


def obstacle(trainer: L.Trainer, module: DetectionModule, *, graphed: bool) -> str:
    """Return why the step can't be one unit, or not a CUDA graph, in half a line; "" if it can."""
    device = trainer.strategy.root_device.type
    found = {
        f"CUDA graphs need a GPU; this run is on {device}": graphed and device != "cuda",
        f"several processes share the work ({type(trainer.strategy).__name__})": not isinstance(
            trainer.strategy, SingleDeviceStrategy
        ),
        f"the gradients of {trainer.accumulate_grad_batches} batches are accumulated (optim.accumulate)": (
            trainer.accumulate_grad_batches > 1
        ),
        f"{trainer.precision} scales the loss and skips steps (trainer.precision)": (trainer.precision not in AUTOCAST),
        f"{type(module.criterion).__name__} does not declare static shapes": not module.criterion.static,
    }
    return next((why for why, true in found.items() if true), "")
