"""The folder of a run: its file names, and reading and writing `config.json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from eyas.card import CARD, verify_card
from eyas.checks import check_class_names, check_whole, shown
from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.types import InputSpec, RunConfig, Thresholds, checked_fields

CONFIG = "config.json"
RECIPE = "recipe.json"
WEIGHTS = "model.safetensors"  # the best EMA weights: what is evaluated, deployed, resumed from
LAST_WEIGHTS = "last.safetensors"
CHECKPOINT = "checkpoints/last.ckpt"  # for --resume only, as are the next four
PREVIOUS_CHECKPOINT = "checkpoints/previous.ckpt"
CHECKPOINT_HASHES = "checkpoints/hashes.json"
ORIGIN = "origin.json"
PICTURES = "pictures.csv"
METRICS = "metrics.csv"
ENVIRONMENT = "env.json"
MAX_BYTES = 64 * 2**20  # of config.json
FORMAT = "eyas-run"
FORMAT_VERSION = 1


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `config.json` into the run's folder."""
    fields: dict[str, Any] = {"format": FORMAT, "version": FORMAT_VERSION, **dataclasses.asdict(config)}
    write_json(folder / CONFIG, fields)


def read_config(folder: Path) -> RunConfig:
    """Return what `config.json` of the run in `folder` says.

    Raises:
        UserError: the folder is no run, one made by a newer Eyas, or its settings are not what a run has.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run: it has no {CONFIG}.",
            expected="a folder that 'eyas train' wrote",
            fix="give the run's folder, for example runs/quickstart",
        )
    fields = read_json(path, max_bytes=MAX_BYTES, strict=True)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise UserError(f"{CONFIG} is not a run's.", where=str(path), expected=f'"format": "{FORMAT}"')
    version = fields.pop("version", None)
    check_whole("The format's version", version, 0, 10**6, str(path))
    if version > FORMAT_VERSION:
        raise UserError(
            f"The run was made by a newer Eyas (format {version}, this one reads {FORMAT_VERSION}).",
            where=str(path),
            fix="pip install --upgrade eyas",
        )
    fields = checked_fields(RunConfig, fields, str(path))
    for name, kind in (("model", dict), ("classes", list), ("input", dict), ("thresholds", dict)):
        if name not in fields:
            raise UserError(f"{CONFIG} lacks the field '{name}'.", where=str(path))
        if not isinstance(fields[name], kind):
            raise UserError(f"The field '{name}' is {shown(fields[name])}.", where=str(path))
    check_class_names(fields["classes"], str(path))
    return RunConfig(
        model=fields["model"],
        classes=tuple(fields["classes"]),
        input=InputSpec(**checked_fields(InputSpec, fields["input"], f"{path}, input")),
        thresholds=Thresholds(**checked_fields(Thresholds, fields["thresholds"], f"{path}, thresholds")),
    )


def verify_run(folder: Path) -> bool:
    """Hold what a run's folder is opened for, its settings and weights, against its card.

    Returns:
        False where there is no card: nothing could be checked.

    Raises:
        UserError: a file was changed or is missing, or the card does not speak of it.
    """
    if not (folder / CARD).is_file():
        return False
    verify_card(folder, needed=[name for name in (CONFIG, WEIGHTS) if (folder / name).exists()])
    return True
