"""Runs with the head "dual": how far they are reaches the loss, also when resumed and replayed, and what they leave."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.training.stopping import (
    At,
    Killed,
    along,
    assert_same,
    kill,
    rows,
)

from eyas.artifacts import layout
from eyas.artifacts.run import Run
from eyas.losses.dual import DualCriterion
from eyas.training.fit import fit, resume
from eyas.training.module import DetectionModule
from eyas.training.recipe import Recipe, evolve
from eyas.training.timetable import Planning, Timetable
from eyas.types import InputSpec

from .conftest import quiet
from .test_whole_step import on_gpu
from .tiny_detector import TinyDetector

pytestmark = pytest.mark.usefixtures("no_curves")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the criterion is told of how far the run is, call by call."""
    seen: list[float] = []
    own = DualCriterion.set_progress

    def noted(self: DualCriterion, progress: float) -> None:
        seen.append(progress)
        own(self, progress)

    monkeypatch.setattr(DualCriterion, "set_progress", noted)
    return seen


@pytest.mark.parametrize("kind", ["eager", "graphed"])
def test_killed_in_mid_epoch_it_goes_on_bit_identically(
    short: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, told: list[float]
) -> None:
    made = on_gpu(monkeypatch)
    recipe = evolve(short, model={"head": "dual"}, trainer={"step": kind})
    whole = fit(recipe, tmp_path / "whole", console=quiet())
    assert len(made) == (kind == "graphed") and all(graphs.captured and not graphs.why for graphs in made)
    assert told == pytest.approx([step / 8 for step in range(8)])
    with monkeypatch.context() as patch:
        along(patch, At("on_train_batch_end", 6, kill), last=True)
        with pytest.raises(Killed):
            fit(evolve(recipe, trainer={"save_minutes": 0.0}), tmp_path / "run", console=quiet())
    told.clear()
    assert_same(resume(tmp_path / "run", console=quiet()), whole)
    assert told == pytest.approx([6 / 8, 7 / 8])
    config = Run.read(whole).config
    assert config.thresholds.suppression == "none" and config.model["spec"]["head"] == "dual"
    columns = rows(whole / layout.METRICS)[-1]
    assert all(float(columns[name]) > 0 for name in ("class", "iou", "l1", "dense_class", "dense_iou", "dense_dfl"))


def test_a_run_of_a_given_time_is_as_far_as_its_timetable_says() -> None:
    table = Timetable([Planning(0, 100, 10, 1, 90, 0), Planning(50, 200, 10, 1, 90, 0)])
    module = DetectionModule(TinyDetector(), ("a", "b", "c"), InputSpec(64, 64), timetable=table)
    seen = []
    for step in (0, 25, 50, 125, 200):
        module.trainer = SimpleNamespace(global_step=step)  # type: ignore[assignment]
        seen.append(module.progress())
    assert seen == [0.0, 0.25, 0.5, 0.75, 1.0]
