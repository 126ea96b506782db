"""The folder of a run: its file names, and reading and writing `config.json`."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from eyas.artifacts.card import CARD, verify_card
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
FORMAT_VERSION = 2  # the newest that is read; of the field "version", see `write_config`


# What other tools write their weights into, and their graphs.
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
GRAPHS = (".onnx", ".xml", ".bin", ".engine", ".plan", ".trt", ".tflite")


def refuse_file(path: Path, *, bundle: bool = False) -> None:
    """Raise a UserError if a file stands where the folder of a run or a bundle belongs; it says what to give instead.

    Args:
        path: what was given.
        bundle: only a bundle will do.
    """
    if not path.is_file():
        return
    owner = run_of(path)
    kind = "a bundle" if bundle else "a run"
    if owner is not None and path.suffix in CHECKPOINTS:
        raise UserError(
            f"{path} is a file of a run, not the run.",
            expected=f"the folder of {kind}",
            fix=compile_command(owner) if bundle else f"give the run's folder: {owner}",
        )
    if path.suffix in CHECKPOINTS:
        run, built = (shlex.quote(str(_free(above, path.stem))) for above in ("runs", "bundles"))
        fix = f"eyas import {shlex.quote(str(path))} --out {run}"
        if bundle:
            fix += f" && eyas compile {run} --measure 0 --out {built}"
        raise UserError(
            f"{path} is a checkpoint, not {kind}: import it first.", expected=f"the folder of {kind}", fix=fix
        )
    if (path.parent / "manifest.json").is_file():
        raise UserError(
            f"{path} is a file of a bundle, not the bundle.",
            expected=f"the folder of {kind}",
            fix=f"give the bundle's folder: {path.parent}",
        )
    if path.suffix in GRAPHS:
        raise UserError(
            f"{path} is a graph of another tool, which says neither its classes nor how pictures are fed.",
            expected=f"the folder of {kind}",
            fix="take the .pth file that it was exported from, and import that: eyas import --help",
        )
    raise UserError(f"{path} is a file.", expected=f"the folder of {kind}")


def run_of(path: Path) -> Path | None:
    """Return the folder of the run that a file lies in, directly or among its saved states; None if it is in none."""
    for folder in (path.parent, path.parent.parent):
        try:
            fields = read_json(folder / CONFIG, max_bytes=1 << 24) if (folder / CONFIG).is_file() else None
        except UserError:
            fields = None
        if isinstance(fields, dict) and fields.get("format") == FORMAT:
            return folder
    return None


def compile_command(run: Path) -> str:
    """Return the command that makes a bundle of a run, "" if the folder is none."""
    if not (run / CONFIG).is_file():
        return ""
    return f"eyas compile {shlex.quote(str(run))} --out {shlex.quote(str(_free('bundles', run.resolve().name)))}"


def _free(above: str, name: str) -> Path:
    """Return a folder of that name, or with a number after it, that is not there yet."""
    number, folder = 1, Path(above) / name
    while folder.exists():
        number += 1
        folder = Path(above) / f"{name}-{number}"
    return folder


def write_config(folder: Path, config: RunConfig) -> None:
    """Write `config.json` into the run's folder, in the oldest format whose readers know all that it says.

    That is 2 where nothing is to be suppressed, else 1.
    """
    version = 2 if config.thresholds.suppression == "none" else 1
    fields: dict[str, Any] = {"format": FORMAT, "version": version, **dataclasses.asdict(config)}
    write_json(folder / CONFIG, fields)


def read_config(folder: Path) -> RunConfig:
    """Return what `config.json` of the run in `folder` says.

    Raises:
        UserError: the folder is no run, one made by a newer Eyas, or its settings are not what a run has.
    """
    refuse_file(folder)
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


def read_names(path: Path) -> tuple[str, ...]:
    """Return the class names that a text file has, one a line; empty lines at its end are left out.

    Raises:
        UserError: there is no such file, it is no text, or has no name.
    """
    if not path.is_file():
        raise UserError(f"There is no file {path}.", expected="a text file of class names, one a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path.name} is no text in UTF-8.", where=str(path)) from None
    names = tuple(line.strip() for line in text.rstrip().splitlines())
    if not names or not all(names):
        raise UserError(f"A line of {path.name} has no name.", where=str(path), expected="one class name a line")
    return names
