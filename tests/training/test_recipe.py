"""Recipes: their names, overrides, round trip, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.training.config_overrides import flatten, override, read_config
from eyas.training.recipe import Recipe, dotted_fields, evolve
from eyas.training.recipes import RECIPES, named


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_own_json(name: str) -> None:
    recipe = named(name)
    assert recipe.name == name
    saved = json.loads(json.dumps(recipe.to_dict()))
    assert override(Recipe(), flatten(saved)) == recipe


# Field -> what the recipe files of super-gradients 3.7.1 say (coco2017_yolo_nas_s and what it is composed of).
PUBLISHED = {
    "model.name": "s",
    "data.size": 640,
    "data.batch_size": 32,
    "data.margin": 4,  # evaluation: longest side 636, centred in 640
    "data.drop_empty": True,  # ignore_empty_annotations
    "augment.mosaic": 0.0,
    "augment.mixup": 0.5,
    "augment.flip": 0.5,
    "augment.scale": (0.5, 1.5),
    "augment.translate": 0.25,
    "augment.degrees": 0.0,
    "augment.shear": 0.0,
    "augment.gain": 0.0,
    "augment.offset": 0.0,
    "augment.saturation": 0.0,
    "augment.hue": 0.0,
    "augment.tint": 0.0,
    "augment.gamma": 0.0,
    "augment.swap": 0.5,  # DetectionRGB2BGR
    "augment.hsv": (18.0, 30.0, 30.0),
    "augment.hsv_chance": 0.5,
    "augment.within": "image",  # DetectionRandomAffine at the image's size, DetectionPaddedRescale
    "augment.min_size": 2.0,  # wh_thr
    "augment.min_area": 0.0,
    "augment.min_visible": 0.0,
    "augment.min_ratio": 0.1,  # area_thr
    "augment.max_aspect": 20.0,  # ar_thr
    "optim.optimizer": "adamw",
    "optim.lr": 2e-4,
    "optim.backbone_factor": 1.0,
    "optim.weight_decay": 1e-5,
    "optim.beta1": 0.9,
    "optim.beta2": 0.999,
    "optim.clip_norm": 0.0,
    "optim.accumulate": 1,
    "optim.warmup_steps": 1000,
    "optim.warmup_epochs": 1.0,
    "optim.flat": 0.0,
    "optim.final_factor": 0.1,
    "optim.ema": 0.9997,
    "loss.class_weight": 1.0,
    "loss.iou_weight": 2.5,
    "loss.dfl_weight": 0.5,
    "loss.classification": "varifocal",
    "loss.extra": {},
    "loss.weighting": "fixed",
    "loss.assignment": "task_aligned",
    "loss.assigner.top_k": 13,
    "loss.assigner.alpha": 1.0,
    "loss.assigner.beta": 6.0,
    "loss.assigner.conflicts": "all",
    "trainer.epochs": 300,
    "trainer.close_epochs": 0,
    "trainer.devices": 8,
    "trainer.val_every": 1,
    "trainer.patience": 0,
    "trainer.average_best": 10,  # average_best_models
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipe_has_the_published_numbers(name: str) -> None:
    assert dotted_fields(named("yolo_nas_coco"))[name] == PUBLISHED[name]


def test_the_published_warm_up_starts_at_a_millionth() -> None:
    optim = named("yolo_nas_coco").optim
    assert optim.lr * optim.warmup_factor == pytest.approx(1e-6)


def test_every_field_of_the_published_augmentation_and_loss_is_pinned() -> None:
    parts = ("augment.", "loss.", "optim.")
    fields = {name for name in dotted_fields(named("yolo_nas_coco")) if name.startswith(parts)}
    of_another_head = {name for name in fields if name.startswith("loss.dual.")}
    assert fields - set(PUBLISHED) - of_another_head == {"optim.warmup_factor"}


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "yolo_nas_coco"])
def test_other_recipes_use_nothing_of_the_published_one(name: str) -> None:
    fields = dotted_fields(named(name))
    assert (fields["augment.within"], fields["augment.hsv_chance"], fields["loss.assigner.conflicts"]) == (
        "frame", 0.0, "takers",
    )  # fmt: skip
    assert not (fields["data.drop_empty"] or fields["trainer.average_best"] or fields["optim.warmup_epochs"])


def test_overrides_are_typed_and_leave_the_rest() -> None:
    recipe = override(named("scratch"), {"optim.lr": "1e-3", "augment.scale": [0.4, 1.2], "model.name": "s"})
    assert recipe.optim.lr == 1e-3 and recipe.augment.scale == (0.4, 1.2) and recipe.model.name == "s"
    changed = {"optim.lr", "augment.scale", "model.name"}
    before, after = dotted_fields(named("scratch")), dotted_fields(recipe)
    assert all(before[name] == after[name] for name in before.keys() - changed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optim.lrr": 1.0}, "did you mean 'optim.lr'"),
        ({"lr": 1.0}, "did you mean 'optim.lr'"),
        ({"optim.lr": "fast"}, "optim.lr"),
        ({"optim.lr": -1.0}, "above 0"),
        ({"trainer.epochs": 2.5}, "trainer.epochs"),
        ({"trainer.epochs": 0}, "at least 1"),
        ({"data.cache": "disk"}, "cache"),
        ({"augment.flip": 1.5}, "from 0 to 1"),
    ],
)
def test_wrong_overrides_are_named(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        override(named("scratch"), changes)


def test_an_unknown_recipe_suggests_the_near_one() -> None:
    with pytest.raises(UserError, match="did you mean 'finetune'"):
        named("fine-tune")


def test_config_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("optim:\n  lr: 0.01\ntrainer: {epochs: 3}\n")
    assert read_config(good) == {"optim.lr": 0.01, "trainer.epochs": 3}
    with pytest.raises(UserError, match="no file"):
        read_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("- a\n- b\n")
    with pytest.raises(UserError, match="not a mapping"):
        read_config(bad)
    bad.write_text("a: [1\n")
    with pytest.raises(UserError, match="valid YAML"):
        read_config(bad)


def test_evolve_replaces_inside_a_part() -> None:
    recipe = evolve(Recipe(), optim={"lr": 0.5}, name="mine")
    assert recipe.optim.lr == 0.5 and recipe.name == "mine" and recipe.data == Recipe().data
