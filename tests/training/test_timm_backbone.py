"""A run with a backbone of timm: trained, told and noted in its card, gone on from, and read without a hub."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.runtime.fakes import make_image
from tests.training.conftest import quiet

from eyas.artifacts.card import Card
from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.models.zoo import resolve
from eyas.runtime.loading import load
from eyas.training.build_model import backbone_start, resolve_spec
from eyas.training.config_overrides import override
from eyas.training.fit import fit, resume
from eyas.training.recipe import ModelRecipe, Recipe, evolve

timm = pytest.importorskip("timm", reason='timm is not installed: pip install "eyas[timm]"')

NAME = "resnet18.fb_swsl_ig1b_ft_in1k"  # weights that may not be sold


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    return path


def test_a_run_starts_from_a_file_and_its_card_says_the_licence(
    short: Recipe, weights: Path, tmp_path: Path, no_curves: None
) -> None:
    model = {"backbone": f"timm:{NAME}", "backbone_weights": str(weights)}
    recipe = evolve(short, model=model, trainer={"max_steps": 1})
    console = quiet()
    folder = fit(recipe, tmp_path / "run", console=console)
    told = console.file.getvalue()
    assert "the backbone starts from timm's" in told and "MAY NOT BE SOLD" in told and "cc-by-nc-4.0" in told
    card = Card.verify(folder)
    assert card.recipe["licence"].startswith(f"cc-by-nc-4.0 (timm's {NAME} from ")
    (parent,) = (each for each in card.parents if each["kind"] == "backbone")
    assert parent["path"] == str(weights) and len(parent["sha256"]) == 64
    spec = Run.read(folder).config.model["spec"]
    assert spec["backbone"] == f"timm:{NAME}"
    with load(folder) as detector:
        answer = detector([make_image(80, 120, (10, 10, 50, 60))])[0]
    assert np.isfinite(answer.boxes).all()

    # The next run has its weights, backbone and all, and its licence.
    console = quiet()
    later = evolve(short, model={"name": "auto", "weights": str(folder)}, trainer={"max_steps": 1})
    again = fit(later, tmp_path / "again", console=console)
    assert "cc-by-nc-4.0" in console.file.getvalue()
    assert Run.read(again).config.model["spec"] == spec
    assert Card.read(again).recipe["licence"] == card.recipe["licence"]


def test_a_run_that_is_resumed_needs_no_file_any_more_and_keeps_its_licence(
    short: Recipe, weights: Path, tmp_path: Path, no_curves: None
) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(weights.read_bytes())
    model = {"backbone": f"timm:{NAME}", "backbone_weights": str(own)}
    folder = fit(evolve(short, model=model, trainer={"max_steps": 1}), tmp_path / "run", console=quiet())
    card = Card.read(folder)
    own.unlink()
    resume(folder, console=quiet())  # it has ended: its card is written again from what it began with
    again = Card.verify(folder)
    assert again.recipe["licence"] == card.recipe["licence"] and again.parents == card.parents


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ({"backbone": "timm:resnet81"}, "no model 'resnet81'"),
        ({"backbone": "timm:vit_tiny_patch16_224"}, "no features of stride 4"),
        ({"backbone": "timm:resnet18", "backbone_weights": "gone.pth"}, "There are no weights at gone.pth"),
        ({"backbone_weights": "gone.pth"}, "apply only to a timm backbone"),
        ({"backbone": "timm:resnet18", "backbone_weights": "random", "weights": "runs/x"}, "and --weights"),
        ({"backbone": "resnet18"}, "There is no backbone 'resnet18'"),
    ],
)
def test_what_can_not_work_is_refused_before_the_data_set_is_read(
    model: dict[str, str], problem: str, short: Recipe, tmp_path: Path
) -> None:
    recipe = evolve(short, model=model, data={"root": str(tmp_path / "no dataset")})
    with pytest.raises(UserError, match=problem):
        fit(recipe, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


def test_the_backbone_takes_the_place_of_any_specs_own(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text(json.dumps(resolve("n").to_dict()), "utf-8")
    for model in (ModelRecipe(name="n"), ModelRecipe(spec=str(tmp_path / "spec.json")), ModelRecipe()):
        made = resolve_spec(ModelRecipe(**{**vars(model), "backbone": "timm:resnet18"}))
        assert made != resolve("n") and made == resolve_spec(ModelRecipe(name="n", backbone="timm:resnet18"))
    assert backbone_start(ModelRecipe(name="n")) is None
    assert backbone_start(ModelRecipe(backbone="timm:resnet18", backbone_weights="random")) is None


def test_a_recipe_from_before_backbones_could_be_named_is_read() -> None:
    recipe = override(Recipe(), {"model.name": "p", "model.layers": "plain"})
    assert (recipe.model.backbone, recipe.model.backbone_weights) == (None, "pretrained")
