"""Recipes: their names, overrides, round trip, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.train.override import flatten, nest, override, read_config
from eyas.train.recipe import Recipe, dotted_fields, evolve
from eyas.train.recipes import RECIPES, named


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_its_own_json(name: str) -> None:
    recipe = named(name)
    assert recipe.name == name
    saved = json.loads(json.dumps(recipe.to_dict()))
    assert override(Recipe(), flatten(saved)) == recipe


def test_the_published_recipe_has_the_published_numbers() -> None:
    recipe = named("yolo_nas_coco")
    assert recipe.trainer.epochs == 300 and recipe.trainer.devices * recipe.data.batch_size == 256
    assert (recipe.optim.lr, recipe.optim.weight_decay, recipe.optim.final_factor) == (2e-4, 1e-5, 0.1)
    assert recipe.optim.lr * recipe.optim.warmup_factor == pytest.approx(1e-6)
    assert recipe.optim.warmup_steps == 1000 and recipe.optim.ema == 0.9997
    assert recipe.augment.mosaic == 0.0 and recipe.augment.mixup == 0.5 and recipe.augment.swap == 0.5
    assert recipe.data.input_spec().margin == 4 and recipe.data.size == 640


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


def test_flatten_and_nest_are_inverse() -> None:
    fields = dotted_fields(Recipe())
    assert flatten(nest(fields)) == fields


def test_config_files(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("optim:\n  lr: 0.01\ntrainer: {epochs: 3}\n")
    assert read_config(good) == {"optim.lr": 0.01, "trainer.epochs": 3}
    with pytest.raises(UserError, match="no file"):
        read_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("- a\n- b\n")
    with pytest.raises(UserError, match="no mapping"):
        read_config(bad)
    bad.write_text("a: [1\n")
    with pytest.raises(UserError, match="valid YAML"):
        read_config(bad)


def test_evolve_replaces_inside_a_part() -> None:
    recipe = evolve(Recipe(), optim={"lr": 0.5}, name="mine")
    assert recipe.optim.lr == 0.5 and recipe.name == "mine" and recipe.data == Recipe().data
