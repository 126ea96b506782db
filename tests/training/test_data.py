"""Feeding a training: processes that live from its first step to its end, evaluation made ready, batches as before."""

from __future__ import annotations

import dataclasses
import zlib

import lightning as L
import pytest
import torch
from tests.data.scenes import all_same

from eyas.data.augment.config import AugmentPolicy
from eyas.data.loading import worker_group as workers
from eyas.data.loading.batch import Batch
from eyas.data.loading.eval_loader import EvalLoader
from eyas.training.data import DetectionData
from eyas.training.recipe import Recipe
from eyas.training.timetable import Planning, Timetable


class Notes(L.LightningModule):
    """Notes the checksum of every batch of training and of evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained: list[int] = []
        self.evaluated: list[list[int]] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.trained.append(zlib.crc32(batch.images.numpy().tobytes() + batch.boxes.numpy().tobytes()))
        return self.weight.sum()

    def on_validation_epoch_start(self) -> None:
        self.evaluated.append([])

    def validation_step(self, batch: Batch, _: int) -> None:
        self.evaluated[-1] += batch.indices.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(recipe: Recipe, workers: int, every: int = 1, reload: int = 0) -> tuple[Notes, DetectionData]:
    """Train three epochs of four batches; evaluate after each `every`-th."""
    notes = Notes()
    data = DetectionData(dataclasses.replace(recipe.data, workers=workers), recipe.augment, epochs=3, close_epochs=1)
    trainer = L.Trainer(
        max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        check_val_every_n_epoch=every, reload_dataloaders_every_n_epochs=reload,
    )  # fmt: skip
    trainer.fit(notes, data)
    return notes, data


@pytest.mark.parametrize("reload", [0, 1])
def test_processes_are_started_once_and_evaluations_are_ready(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, reload: int
) -> None:
    started: list[int] = []
    prepared: list[int] = []
    ended: list[int] = []
    start, prepare, end = workers._start, EvalLoader.prepare, workers.Member.end
    monkeypatch.setattr(workers, "_start", lambda *arguments: started.append(1) or start(*arguments))
    monkeypatch.setattr(EvalLoader, "prepare", lambda loader: prepared.append(1) or prepare(loader))
    monkeypatch.setattr(workers.Member, "end", lambda member: ended.append(1) or end(member))
    notes, data = trained(tiny, workers=1, reload=reload)
    expected, _ = trained(tiny, workers=0)
    assert notes.trained == expected.trained and len(set(notes.trained)) == 12
    assert notes.evaluated == expected.evaluated == [list(range(8))] * 3
    assert len(started) == 2  # one that trains, one that evaluates
    assert len(prepared) == 6  # of both trainings
    assert len(ended) == 1  # training's, with the training; the other one can be used for a further evaluation
    data.close()
    assert len(ended) == 2


def test_where_no_evaluation_follows_none_is_prepared(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared: list[EvalLoader] = []
    monkeypatch.setattr(EvalLoader, "prepare", lambda loader: prepared.append(loader))
    notes, _ = trained(tiny, workers=0, every=2)
    assert len(prepared) == len(notes.evaluated) == 1


def test_a_second_training_begins_at_the_beginning(tiny: Recipe) -> None:
    data = DetectionData(tiny.data, tiny.augment, epochs=1)
    seen = []
    for _ in range(2):
        notes = Notes()
        trainer = L.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, num_sanity_val_steps=0, use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(notes, data)
        seen.append(notes.trained)
    assert seen[0] == seen[1] and len(seen[0]) == 4


def test_a_run_that_was_given_a_time_ends_its_mosaics_at_a_step(tiny: Recipe) -> None:
    def batches(data: DetectionData) -> list[Batch]:
        loader = data.train_dataloader()
        return [batch for _ in range(3) for batch in loader]

    policy = AugmentPolicy()
    timed = DetectionData(tiny.data, policy, epochs=1, close_epochs=1, accumulate=3)
    timed.timetable = Timetable([Planning(0, 6, 1, 1, 3, 0)])
    usual = batches(DetectionData(tiny.data, policy, epochs=3))
    single = batches(DetectionData(tiny.data, policy.closing(), epochs=3))
    # Of four batches three are a step, and the last one is one: step 3 begins with the eighth.
    assert all_same(batches(timed), usual[:7] + single[7:]) and not all_same(usual, single)
    without = DetectionData(tiny.data, policy, epochs=1)
    without.timetable = Timetable([Planning(0, 6, 1, 1, 3, 0)])
    assert all_same(batches(without), usual)
