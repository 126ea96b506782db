"""The best epoch's weights of a run that is resumed: taken for them only if they are as they were saved."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.signals import StopSignals
from eyas.training.fit import fit, resume
from eyas.training.recipe import Recipe, evolve

from .conftest import quiet


@pytest.fixture(scope="module")
def stopped(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that was stopped in the epoch after its best one."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    recipe = evolve(tiny, data={"size": 64}, trainer={"epochs": 2, "sheets": 0})
    with pytest.MonkeyPatch.context() as patch, StopSignals() as signals:
        kills = iter([lambda: os.kill(os.getpid(), signal.SIGTERM)])
        patch.setattr("eyas.training.callbacks.csv_logger.plot_results", lambda _: next(kills, lambda: None)())
        fit(recipe, folder, console=quiet(), signals=signals)
    assert (folder / layout.WEIGHTS).read_bytes() == (folder / layout.LAST_WEIGHTS).read_bytes()
    return folder


def flip(path: Path) -> None:
    """Change one bit of the weights: the file can still be read."""
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, "is missing"),
    "a bit": (flip, "differs from what was saved (its SHA-256 does not match)"),
    "cut": (
        lambda path: os.truncate(path, path.stat().st_size // 2),
        "differs from what was saved (its SHA-256 does not match)",
    ),
}


@pytest.mark.parametrize("kind", [*DAMAGE, "none"])
def test_lost_weights_are_told_and_replaced(stopped: Path, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(stopped, tmp_path / "run")
    weights = folder / layout.WEIGHTS
    before = weights.read_bytes()
    if kind in DAMAGE:
        DAMAGE[kind][0](weights)
    console = quiet()
    resume(folder, console=console)
    said = console.file.getvalue()
    assert Card.verify(folder) and "best AP" in said
    if kind == "none":
        assert "are lost" not in said and weights.read_bytes() in (before, (folder / layout.LAST_WEIGHTS).read_bytes())
        return
    assert f"{layout.WEIGHTS} {DAMAGE[kind][1]}: the weights of the best epoch, 1, are lost" in said
    assert weights.read_bytes() == (folder / layout.LAST_WEIGHTS).read_bytes()  # of the only epoch since
    assert "at epoch 2" in said


def test_lost_weights_of_a_finished_run_become_its_last_ones(finished: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    last = (folder / layout.LAST_WEIGHTS).read_bytes()
    flip(folder / layout.WEIGHTS)
    flip(folder / layout.LAST_WEIGHTS)
    console = quiet()
    resume(folder, console=console)
    assert "are lost" in console.file.getvalue() and "best AP" not in console.file.getvalue()
    assert (folder / layout.WEIGHTS).read_bytes() == last and Card.verify(folder)


def test_stopped_twice_before_an_evaluation_the_newest_weights_are_the_runs(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eyas.training.callbacks.checkpoint import Stopper

    folder = tmp_path / "run"
    end = Stopper.on_train_batch_end

    def asked(self: Stopper, *args: object) -> None:
        self.ask()
        end(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Stopper, "on_train_batch_end", asked)
    fit(tiny, folder, console=quiet())
    first = (folder / layout.WEIGHTS).read_bytes()
    resume(folder, console=quiet())
    assert first != (folder / layout.WEIGHTS).read_bytes() == (folder / layout.LAST_WEIGHTS).read_bytes()
