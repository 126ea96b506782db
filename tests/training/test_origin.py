"""A run is resumed with what it began with, or what is different is named and nothing is changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eyas.artifacts import layout
from eyas.errors import UserError
from eyas.training.fit import fit, resume
from eyas.training.recipe import Recipe, evolve

from .conftest import quiet


@pytest.fixture(scope="module")
def stopped(tiny: Recipe, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `data`, and `run`, which was trained on it for one step."""
    root = tmp_path_factory.mktemp("origin")
    shutil.copytree(shapes, root / "data")
    recipe = evolve(tiny, data={"root": str(root / "data")}, trainer={"max_steps": 1})
    fit(recipe, root / "run", console=quiet())
    return root


@pytest.fixture
def place(stopped: Path, tmp_path: Path) -> Path:
    """Return a copy of `stopped` whose run trains on the copy's data."""
    shutil.copytree(stopped, tmp_path, dirs_exist_ok=True)
    for name in (layout.RECIPE, layout.ORIGIN):
        path = tmp_path / "run" / name
        path.write_text(path.read_text().replace(str(stopped), str(tmp_path)))
    return tmp_path


def edit(path: Path, change: Callable[[Any], object]) -> None:
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def both(change: Callable[[Any], object]) -> Callable[[Path], None]:

    def apply(place: Path) -> None:
        for split in ("train", "val"):
            edit(place / "data" / "annotations" / f"instances_{split}.json", change)

    return apply


def train_only(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """Return what changes the annotations of the training split."""
    return lambda place: edit(place / "data" / "annotations" / "instances_train.json", change)


def swap(fields: Any) -> None:
    first, second = fields["categories"][:2]
    first["name"], second["name"] = second["name"], first["name"]


def drop_image(fields: Any) -> None:
    gone = fields["images"].pop(3)["id"]
    fields["annotations"] = [one for one in fields["annotations"] if one["image_id"] != gone]


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes exchanged": (both(swap), "moved: "),
    "class renamed": (both(lambda fields: fields["categories"][0].update(name="other")), "renamed: .* is now 'other'"),
    "class added": (both(lambda fields: fields["categories"].append({"id": 99, "name": "new"})), "added: 'new'"),
    "box moved": (
        train_only(lambda fields: fields["annotations"][0]["bbox"].__setitem__(0, 1.0)),
        "1 image with different labels",
    ),
    "label changed": (
        train_only(lambda fields: [a.update(category_id=fields["categories"][0]["id"]) for a in fields["annotations"]]),
        "images with different labels",
    ),
    "image left out": (train_only(drop_image), r"1 image removed \(train: "),
    "order": (train_only(lambda fields: fields["images"].reverse()), "the order of the images"),
    "a different file": (
        lambda place: next(iter(sorted((place / "data/val").glob("*.jpg")))).open("ab").write(b"x"),
        r"1 image with a different file \(val: ",
    ),
}  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("kind", CHANGES)
def test_changed_data_is_named_and_the_run_stays_as_it_is(place: Path, kind: str) -> None:
    change, words = CHANGES[kind]
    change(place)
    before = contents(place / "run")
    with pytest.raises(UserError, match=words) as caught:
        resume(place / "run", console=quiet())
    assert f"eyas train --data {place / 'data'} --weights {place / 'run'}" in caught.value.fix
    assert contents(place / "run") == before


RECIPES: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "learning rate": (layout.RECIPE, lambda f: f["optim"].update(lr=1.0), "optim.lr was 0.01, now 1.0"),
    "epochs": (layout.RECIPE, lambda f: f["trainer"].update(epochs=9), "trainer.epochs was 3, now 9"),
    "split": (layout.RECIPE, lambda f: f["data"].update(val="train"), "data.val was val, now train"),
    "range": (layout.RECIPE, lambda f: f["augment"].update(scale=[1.0, 1.0]), "augment.scale was"),
    "model": (layout.RECIPE, lambda f: f["model"].update(name="n"), "model.name was p, now n"),
    "size": (layout.RECIPE, lambda f: f["data"].update(size=128), "disagree about the input"),
    "config's size": (layout.CONFIG, lambda f: f["input"].update(height=128), "disagree about the input"),
    "config's classes": (layout.CONFIG, lambda f: f["classes"].reverse(), "moved: "),
    "a different network": (
        layout.CONFIG,
        lambda f: f["model"]["spec"].update(stem_width=24),
        "the state of a different network",
    ),
    "no such field": (layout.RECIPE, lambda f: f["optim"].update(lrr=1), "no field 'optim.lrr'"),
    "a list": (layout.RECIPE, None, "is not a recipe"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("kind", RECIPES)
def test_changed_settings_are_named(place: Path, kind: str) -> None:
    name, change, words = RECIPES[kind]
    if change is None:
        (place / "run" / name).write_text("[]")
    else:
        edit(place / "run" / name, change)
    with pytest.raises(UserError, match=words):
        resume(place / "run", console=quiet())


def test_weights_that_the_run_began_with_may_be_gone(tiny: Recipe, finished: Path, tmp_path: Path) -> None:
    """A resumed run has its own; what it began with stands in its card still."""
    shutil.copytree(finished, tmp_path / "start")
    recipe = evolve(tiny, model={"weights": str(tmp_path / "start")}, trainer={"max_steps": 1, "epochs": 1})
    folder = fit(recipe, tmp_path / "run", console=quiet())
    parents = json.loads((folder / "card.json").read_text())["parents"]
    shutil.rmtree(tmp_path / "start")
    resume(folder, console=quiet())
    assert json.loads((folder / "card.json").read_text())["parents"] == parents and len(parents) == 3


def test_a_run_of_an_older_eyas_is_resumed_as_before(place: Path) -> None:
    for name in (layout.ORIGIN, layout.IMAGES, layout.CHECKPOINT_HASHES):
        (place / "run" / name).unlink()
    console = quiet()
    resume(place / "run", console=console)
    assert "an older Eyas made it" in console.file.getvalue()
    both(swap)(place)
    with pytest.raises(UserError, match="moved: "):
        resume(place / "run", console=quiet())
