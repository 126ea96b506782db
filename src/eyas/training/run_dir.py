"""The run folder: claimed before the first step, finished with a card after the last."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from eyas.artifacts import layout
from eyas.artifacts.card import CARD, Card, hash_file
from eyas.artifacts.dataset import split_as_parent
from eyas.artifacts.run import Run, RunConfig, RunFolder
from eyas.data.record import hash_index
from eyas.errors import UserError
from eyas.files import remove_unfinished, write_json
from eyas.machine.cores import usable_cores
from eyas.models.heads import HEADS
from eyas.models.spec import YoloNasSpec
from eyas.training.build_model import backbone_start
from eyas.training.data import DetectionData
from eyas.training.origin import read_parents, write_origin
from eyas.training.recipe import Recipe
from eyas.training.teacher import teacher_as_parent
from eyas.types import DETECT

PACKAGES = ("eyas", "torch", "lightning", "numpy", "opencv-python-headless", "simplejpeg", "hotcoco", "safetensors")


def free_folder(recipe: Recipe, out: Path | None) -> Path:
    """Return the folder that a new run is to have; it is made when training begins.

    Raises:
        UserError: the wanted folder holds something already.
    """
    if out is not None:
        if out.is_dir() and any(out.iterdir()):
            begun = (out / layout.RECIPE).is_file()
            go_on = f", or resume that run: eyas train --resume {shlex.quote(str(out))}" if begun else ""
            raise UserError(f"The folder {out} is not empty.", fix=f"choose another --out{go_on}")
        return out
    stem = Path("runs") / f"{Path(recipe.data.root).stem or 'run'}-{recipe.name}"
    for number in range(1, 10_000):
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        if not folder.exists():
            return folder
    raise UserError("There are ten thousand runs with this name.", where=str(stem), fix="give --out")


def write_start(
    folder: Path, recipe: Recipe, model: dict[str, Any], data: DetectionData, precision: str, *, resumed: bool
) -> None:
    """Write what is known before the first step: config, recipe, origin, environment.

    A resumed run keeps all but the environment. It loses its card until it is finished: its weights will change, and a
    wrong hash would be refused. The recipe comes last: a run that has it can be resumed, and has the rest.
    """
    run = RunFolder(folder)
    (folder / CARD).unlink(missing_ok=True)
    if resumed:
        remove_unfinished(folder)
    else:
        config = RunConfig(
            model=model,
            classes=data.classes,
            input=recipe.data.input_spec(),
            thresholds=replace(DETECT, suppression=HEADS[YoloNasSpec.from_dict(model["spec"]).head].suppression),
        )
        Run(folder, config).write()
        write_origin(folder, recipe, data.train_index, data.val_index, parents(recipe, data))
        write_json(run.recipe, recipe.to_dict())
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = ""
    write_json(
        run.environment,
        {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "precision": precision,
            "versions": versions,
        },
    )


def finish_run(
    folder: Path, recipe: Recipe, data: DetectionData, *, stopped: str, trackers: Mapping[str, Mapping[str, str]]
) -> None:
    """Write the run's card.

    Args:
        folder: the run's folder.
        recipe: the run's settings.
        data: the run's images.
        stopped: why it ended before its time, "" if it did not.
        trackers: where it was sent to: name -> {"id", "where"}.
    """
    known = read_parents(folder)
    made_from = parents(recipe, data) if known is None else known
    told = {"trackers": trackers, "licence": "; ".join(one["licence"] for one in made_from if "licence" in one)}
    RunFolder(folder).seal(
        parents=made_from,
        recipe={**recipe.to_dict(), "stopped": stopped, **{name: value for name, value in told.items() if value}},
    )


def parents(recipe: Recipe, data: DetectionData) -> list[dict[str, str]]:
    """Return what the run was made from: the dataset, by the hash of its index, its weights' start, and its teacher.

    A parent's "licence" is that of its weights, where it is known: the run's own card says it too.
    """
    found = [
        split_as_parent(recipe.data.root, name, hash_index(index))
        for name, index in ((recipe.data.train, data.train_index), (recipe.data.val, data.val_index))
    ]
    if recipe.model.weights:
        path = Path(recipe.model.weights)
        if (path / CARD).is_file():
            card = Card.read(path)
            licence = card.recipe.get("licence")
            found.append({**card.as_parent(path), **({"licence": str(licence)} if licence else {})})
        else:
            weights = RunFolder(path).weights if path.is_dir() else path
            found.append({"kind": "weights", "path": str(path.resolve()), "sha256": hash_file(weights)})
    elif start := backbone_start(recipe.model):
        found.append(start.as_parent())
    if recipe.distill.teacher is not None:
        found.append(teacher_as_parent(Path(recipe.distill.teacher)))
    return found
