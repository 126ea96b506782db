"""The folder of a run: its file names, and reading and writing `config.json`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.types import InputSpec, RunConfig, Thresholds, checked_fields

CONFIG = "config.json"
RECIPE = "recipe.json"
WEIGHTS = "model.safetensors"  # the best EMA weights: what is evaluated, deployed, resumed from
LAST_WEIGHTS = "last.safetensors"
CHECKPOINT = "checkpoints/last.ckpt"  # for --resume only
METRICS = "metrics.csv"
ENVIRONMENT = "env.json"
FORMAT = "eyas-run"
FORMAT_VERSION = 1


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `config.json` into the run's folder."""
    fields: dict[str, Any] = {"format": FORMAT, "version": FORMAT_VERSION, **dataclasses.asdict(config)}
    write_json(folder / CONFIG, fields)


def read_config(folder: Path) -> RunConfig:
    """Return what `config.json` of the run in `folder` says.

    Raises:
        UserError: the folder is no run, or one made by a newer Eyas.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise UserError(
            f"{folder} is not a run: it has no {CONFIG}.",
            expected="a folder that 'eyas train' wrote",
            fix="give the run's folder, for example runs/quickstart",
        )
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
        raise UserError(f"{CONFIG} is not a run's.", where=str(path), expected=f'"format": "{FORMAT}"')
    version = fields.pop("version", 0)
    if version > FORMAT_VERSION:
        raise UserError(
            f"The run was made by a newer Eyas (format {version}, this one reads {FORMAT_VERSION}).",
            where=str(path),
            fix="pip install --upgrade eyas",
        )
    fields = checked_fields(RunConfig, fields, str(path))
    try:
        return RunConfig(
            model=fields["model"],
            classes=tuple(fields["classes"]),
            input=InputSpec.from_dict(fields["input"]),
            thresholds=Thresholds(**checked_fields(Thresholds, fields["thresholds"], str(path))),
        )
    except KeyError as error:
        raise UserError(f"{CONFIG} lacks the field {error}.", where=str(path)) from None
