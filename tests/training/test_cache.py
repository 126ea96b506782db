"""Training from images that a device keeps: the same run but for rounding, resumable, else refused early."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from eyas.artifacts import layout
from eyas.data.device import choice
from eyas.errors import UserError
from eyas.training.data import DetectionData, training_gpu
from eyas.training.fit import fit
from eyas.training.recipe import Recipe, evolve

from .conftest import quiet


@pytest.fixture
def processor_as_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have images kept where tensors of the processor are."""
    monkeypatch.setattr("eyas.training.data.training_gpu", lambda _: torch.device("cpu"))


def data_of(recipe: Recipe) -> DetectionData:
    """Return the data of a run, as it is made."""
    return DetectionData(recipe.data, recipe.augment, epochs=recipe.trainer.epochs, close_epochs=1, seed=3)


def losses(folder: Path) -> list[float]:
    with (folder / layout.METRICS).open(newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.usefixtures("processor_as_gpu")
def test_a_run_learns_the_same_from_images_on_a_device(tiny: Recipe, finished: Path, tmp_path: Path) -> None:
    folder = fit(evolve(tiny, data={"cache": "gpu"}), tmp_path / "run", console=quiet())
    assert losses(folder) == pytest.approx(losses(finished), rel=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_without_a_gpu_it_is_refused_before_anything_is_made(tiny: Recipe, tmp_path: Path) -> None:
    assert training_gpu(None) is None
    with pytest.raises(UserError, match="training uses no GPU"):
        fit(evolve(tiny, data={"cache": "gpu"}), tmp_path / "run", console=quiet())
    assert not (tmp_path / "run" / layout.CONFIG).exists()


@pytest.mark.usefixtures("processor_as_gpu")
def test_what_does_not_fit_is_refused_before_anything_is_made(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "free_memory", lambda _: 100_000)
    with pytest.raises(UserError, match="do not fit into GPU memory: 24 decoded images need") as error:
        fit(evolve(tiny, data={"cache": "gpu"}), tmp_path / "run", console=quiet())
    assert error.value.fix.startswith("--data.cache decoded")
    assert not (tmp_path / "run" / layout.CONFIG).exists()


def test_auto_says_what_it_chose_and_why(tiny: Recipe, capfd: pytest.CaptureFixture[str]) -> None:
    loader = data_of(evolve(tiny, data={"cache": "auto"})).train_dataloader()
    assert loader.chosen.kind in ("decoded", "none") and loader.chosen.why
    assert f"data.cache auto: {loader.chosen.told()}" in capfd.readouterr().err.replace("\n", "")
