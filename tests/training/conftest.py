"""A tiny dataset and tiny runs, made once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from eyas.data.shapes import make_shapes
from eyas.losses.detection import DetectionCriterion
from eyas.training.config_overrides import override
from eyas.training.fit import fit
from eyas.training.recipe import Recipe, evolve
from eyas.training.recipes import named


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of 24 training and 8 validation images of 96 px."""
    return make_shapes(tmp_path_factory.mktemp("shapes") / "data", train=24, val=8, size=96, seed=1)


@pytest.fixture(scope="session")
def tiny(shapes: Path) -> Recipe:
    """Return a recipe of three epochs of four steps."""
    fields = {
        "data.root": str(shapes), "data.size": 96, "data.batch_size": 6, "data.workers": 0, "trainer.epochs": 3,
        "trainer.close_epochs": 1, "trainer.preflight": False, "trainer.sheets": 2, "trainer.accelerator": "cpu",
        "trainer.precision": "32-true",  # the same on a processor that computes in bf16
    }  # fmt: skip
    return override(named("quick"), fields)


@pytest.fixture(scope="session")
def short(tiny: Recipe) -> Recipe:
    """Return a recipe of two epochs of four steps, each evaluated in two batches."""
    return evolve(tiny, data={"size": 64}, trainer={"epochs": 2, "sheets": 1})


@pytest.fixture
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: half a second an epoch."""
    monkeypatch.setattr("eyas.training.callbacks.csv_logger.plot_results", lambda _: None)


@pytest.fixture
def nan_in_the_third_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the term dfl of the third step's loss be no number."""
    calls = []

    def poisoned(*args: Any) -> dict[str, torch.Tensor]:
        terms = forward(*args)
        calls.append(1)
        return {**terms, "dfl": terms["dfl"] * float("nan")} if len(calls) == 3 else terms

    forward = DetectionCriterion.forward
    monkeypatch.setattr(DetectionCriterion, "forward", poisoned)


def quiet() -> Console:
    """Return a console that prints into a buffer: `console.file.getvalue()`."""
    return Console(file=io.StringIO(), width=200)


@pytest.fixture(scope="session")
def finished(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a whole tiny run."""
    return fit(tiny, tmp_path_factory.mktemp("runs") / "whole", console=quiet())
