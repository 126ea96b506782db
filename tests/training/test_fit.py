"""Whole runs: what they leave behind, that they repeat, resume, stop and fail as they should."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.reads import counted
from tests.training.stopping import (
    interrupt_at,
    rows,
    same_weights,
)

import eyas
from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.artifacts.run import Run
from eyas.decode import read_image
from eyas.errors import UserError
from eyas.models import zoo
from eyas.training.callbacks.best_epochs import BestEpochs
from eyas.training.callbacks.checkpoint import Saver
from eyas.training.callbacks.finite import DivergedError
from eyas.training.ema import Ema
from eyas.training.fit import fit, resume
from eyas.training.module import DetectionModule
from eyas.training.recipe import Recipe, evolve
from eyas.types import InputSpec

from .conftest import quiet


def test_a_run_folder_is_complete(finished: Path, tiny: Recipe) -> None:
    config = Run.read(finished).config
    assert config.input == tiny.data.input_spec() and config.model["name"] == "yolo_nas_p"
    card = Card.verify(finished)
    assert set(card.files) == {"config.json", "model.safetensors", "recipe.json"}
    assert [parent["kind"] for parent in card.parents] == ["dataset", "dataset"]
    epochs = rows(finished / layout.METRICS)
    assert [row["epoch"] for row in epochs] == ["1", "2", "3"] and epochs[-1]["step"] == "12"
    assert all(0 <= float(row["AP"]) <= 1 and float(row["loss"]) > 0 for row in epochs)
    assert float(epochs[-1]["seconds"]) > float(epochs[0]["seconds"]) > 0
    for name in ("results.png", "images/epoch_001.jpg", "images/epoch_003.jpg"):
        assert read_image(finished / name).std() > 5  # something is drawn
    assert "torch" in (finished / layout.ENVIRONMENT).read_text()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    tiny: Recipe, finished: Path, tmp_path: Path
) -> None:
    again = fit(tiny, tmp_path / "again", console=quiet())
    assert same_weights(again / layout.LAST_WEIGHTS, finished / layout.LAST_WEIGHTS)
    other = fit(evolve(tiny, trainer={"seed": 1}), tmp_path / "other", console=quiet())
    assert not same_weights(other / layout.LAST_WEIGHTS, finished / layout.LAST_WEIGHTS)


def test_ctrl_c_in_mid_epoch_then_resume_is_bit_identical(
    tiny: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = evolve(tiny, data={"workers": 2})
    with monkeypatch.context() as patch:
        interrupt_at(patch, 6)
        console = quiet()
        folder = fit(recipe, tmp_path / "run", console=console)
    assert "--resume" in console.file.getvalue()
    assert len(rows(folder / layout.METRICS)) == 1  # stopped in the middle of the second epoch
    assert (folder / layout.WEIGHTS).is_file() and Card.verify(folder)  # a usable run already
    resume(folder, console=quiet())
    assert [row["step"] for row in rows(folder / layout.METRICS)] == ["4", "8", "12"]
    assert same_weights(folder / layout.LAST_WEIGHTS, finished / layout.LAST_WEIGHTS)
    assert same_weights(folder / layout.WEIGHTS, finished / layout.WEIGHTS)


@pytest.mark.parametrize(("epochs", "every", "evaluated"), [(3, 2, [2, 3]), (1, 5, [1]), (2, 2, [2])])
def test_the_last_epoch_is_evaluated_whatever_lies_between(
    tiny: Recipe, tmp_path: Path, epochs: int, every: int, evaluated: list[int]
) -> None:
    recipe = evolve(tiny, data={"size": 64}, trainer={"epochs": epochs, "val_every": every, "sheets": 0})
    folder = fit(recipe, tmp_path / "run", console=quiet())
    assert [int(row["epoch"]) for row in rows(folder / layout.METRICS) if row.get("AP")] == evaluated


def test_max_steps_ends_the_run_within_an_epoch_and_leaves_a_usable_one(tiny: Recipe, tmp_path: Path) -> None:
    folder = fit(evolve(tiny, trainer={"max_steps": 6}), tmp_path / "run", console=quiet())
    assert Card.verify(folder) and len(rows(folder / layout.METRICS)) >= 1
    console = quiet()
    short = fit(evolve(tiny, trainer={"max_steps": 2}), tmp_path / "short", console=console)
    assert Card.verify(short) and "ended before an evaluation" in console.file.getvalue()
    state = torch.load(folder / layout.CHECKPOINT, weights_only=True)
    assert state["global_step"] == 6


@pytest.mark.usefixtures("nan_in_the_third_step")
def test_a_loss_that_is_no_number_names_term_and_images(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DivergedError) as caught:
        fit(tiny, tmp_path / "run", console=quiet())
    assert "term dfl at step 2" in str(caught.value) and str(caught.value).count(".jpg") == 6


def test_a_full_disk_keeps_the_last_good_checkpoint(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saves = []
    save = L.Trainer.save_checkpoint

    def full(self: L.Trainer, path: Path, *args: Any, **kwargs: Any) -> None:
        saves.append(path)
        if len(saves) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, *args, **kwargs)

    monkeypatch.setattr(L.Trainer, "save_checkpoint", full)
    with pytest.raises(UserError, match="disk is full"):
        fit(tiny, tmp_path / "run", console=quiet())
    state = torch.load(tmp_path / "run" / layout.CHECKPOINT, weights_only=True)
    assert state["global_step"] == 4  # the first epoch's, whole
    assert not list((tmp_path / "run").rglob("*.tmp"))
    monkeypatch.undo()
    resume(tmp_path / "run", console=quiet())
    assert rows(tmp_path / "run" / layout.METRICS)[-1]["step"] == "12"


def test_refusals_before_anything_is_made(tiny: Recipe, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not empty[^$]*eyas train --resume"):
        fit(tiny, finished, console=quiet())
    with pytest.raises(UserError, match="can't be resumed"):
        resume(tmp_path, console=quiet())
    with pytest.raises(UserError, match="keeps its length"):
        resume(finished, console=quiet(), epochs=5)
    with pytest.raises(UserError, match="There is no model 'x'"):
        fit(evolve(tiny, model={"name": "x"}), tmp_path / "a", console=quiet())
    with pytest.raises(UserError, match="multiple of 32"):
        fit(evolve(tiny, data={"size": 100}), tmp_path / "b", console=quiet())
    with pytest.raises(UserError, match="No dataset"):
        fit(evolve(tiny, data={"root": ""}), tmp_path / "c", console=quiet())
    with pytest.raises(UserError, match="The batch has 64"):
        fit(evolve(tiny, data={"batch_size": 64}), tmp_path / "d", console=quiet())
    with pytest.raises(UserError, match="not available"):
        fit(evolve(tiny, trainer={"accelerator": "tpu"}), tmp_path / "e", console=quiet())


def test_finetuning_starts_from_the_run(
    tiny: Recipe, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = {"weights": str(finished), "name": "auto"}
    recipe = evolve(tiny, model=model, optim={"lr": 1e-12}, trainer={"epochs": 1})
    with counted(monkeypatch) as opened:
        folder = fit(recipe, tmp_path / "run", console=quiet())
    assert opened[f"weights of {finished / layout.WEIGHTS}"] == 1
    assert opened[str(finished / layout.WEIGHTS)] == 1  # for its hash
    before, after = load_file(finished / layout.WEIGHTS), load_file(folder / layout.WEIGHTS)
    weights = [name for name in before if name.endswith("conv.weight")]
    assert weights and all(torch.allclose(before[n], after[n], atol=1e-6) for n in weights)
    parents = Card.verify(folder).parents
    assert [parent["kind"] for parent in parents] == ["dataset", "dataset", "run"]
    assert parents[2]["sha256"] == Card.verify(finished).sha256


def test_callbacks_of_ones_own_trainer(tiny: Recipe, tmp_path: Path) -> None:
    """The module and the datamodule work with a plain Trainer."""
    from eyas.models.zoo import build
    from eyas.training.callbacks import essential
    from eyas.training.data import DetectionData

    data = DetectionData(tiny.data, tiny.augment, epochs=1)
    module = DetectionModule(build("p", len(data.classes)), data.classes, tiny.data.input_spec())
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, use_distributed_sampler=False, default_root_dir=tmp_path, callbacks=essential(),
    )  # fmt: skip
    trainer.fit(module, datamodule=data)
    assert trainer.global_step == 4
    assert 0 <= float(trainer.callback_metrics["val/AP"]) <= 1
    assert np.isfinite(float(trainer.callback_metrics["train/loss"]))


def test_the_mean_is_the_runs_model_where_it_is_better(tmp_path: Path) -> None:
    module = DetectionModule(zoo.build("p", 3), ("a", "b", "c"), InputSpec(height=96, width=96))
    module.ema = Ema(module.net, 0.9)
    best = BestEpochs(tmp_path, 3)
    trainer = SimpleNamespace(is_global_zero=True, current_epoch=0)
    for epoch, (ap, value) in enumerate([(0.2, 1.0), (0.5, 2.0), (0.1, 3.0), (0.4, 4.0), (0.3, 9.0)]):
        trainer.current_epoch = epoch
        module.result = SimpleNamespace(ap=ap)  # type: ignore[assignment]
        for parameter in module.ema_net.parameters():
            parameter.fill_(value)
        best.on_train_epoch_end(trainer, module)  # type: ignore[arg-type]
    assert best.kept == [(0.5, 2), (0.4, 4), (0.3, 5)]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "epoch-2.safetensors", "epoch-4.safetensors", "epoch-5.safetensors",
    ]  # fmt: skip
    name = "heads.head1.cls_pred.weight"
    assert torch.equal(best.mean()[name], torch.full_like(module.ema_net.state_dict()[name], 5.0))
    saver = Saver(tmp_path)
    saver.best = 0.5

    def validate(module: DetectionModule, **_: Any) -> None:
        module.result = SimpleNamespace(ap=0.6)  # type: ignore[assignment]

    line = best.finish(SimpleNamespace(is_global_zero=True, validate=validate), module, None, saver)  # type: ignore[arg-type]
    assert "the average is the run's model" in line
    saved = load_file(tmp_path / layout.WEIGHTS)[name]
    assert torch.equal(saved, torch.full_like(saved, 5.0))
    best.path(2).touch()  # the process was killed before it removed this one
    line = best.finish(SimpleNamespace(is_global_zero=True), module, None, saver)  # type: ignore[arg-type]
    assert "model.safetensors stays" in line and not list((tmp_path / "checkpoints").glob("epoch-*"))
    assert torch.equal(load_file(tmp_path / layout.WEIGHTS)[name], saved)


def test_warm_up_takes_at_most_so_many_epochs(tiny: Recipe, tmp_path: Path) -> None:
    """Four steps an epoch: after the first one the rate is at its peak, whatever the number of warm-up steps."""
    changed = evolve(tiny, optim={"warmup_steps": 50, "warmup_epochs": 1.0, "warmup_factor": 0.0})
    run = fit(changed, tmp_path / "run", console=quiet())
    first = rows(run / layout.METRICS)[0]
    assert float(first["lr"]) == pytest.approx(tiny.optim.lr)


def test_images_without_a_box_are_left_out_and_counted(tiny: Recipe, shapes: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(shapes, tmp_path / "data")
    path = copied / "annotations" / "instances_train.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    gone = [image["id"] for image in content["images"][:3]]
    content["annotations"] = [one for one in content["annotations"] if one["image_id"] not in gone]
    path.write_text(json.dumps(content), encoding="utf-8")
    recipe = evolve(tiny, data={"root": str(copied), "drop_empty": True}, trainer={"max_steps": 2})
    console = quiet()
    fit(recipe, tmp_path / "run", console=console)
    empty = 24 - len({one["image_id"] for one in content["annotations"]})
    assert f"{empty} training images without boxes are left out" in console.file.getvalue()  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"only .* training images have boxes"):
        fit(evolve(recipe, data={"batch_size": 24}), tmp_path / "other", console=quiet())


def test_the_best_epoch_of_training_is_what_evaluate_measures(finished: Path, shapes: Path, tmp_path: Path) -> None:
    """What `eyas.detect` writes is held against `eyas.evaluate` with the command line's tests."""
    evaluated = eyas.evaluate(finished, shapes, split="val", out=tmp_path / "report")
    best = max(rows(finished / layout.METRICS), key=lambda row: float(row["AP"]))
    assert evaluated.ap > 0
    for name in ("AP", "AP50", "AP_small"):
        assert evaluated.metrics[name] == pytest.approx(float(best[name]), rel=1e-5, abs=1e-9)
