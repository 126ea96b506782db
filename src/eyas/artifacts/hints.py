"""Hints for a path given instead of the folder of a run or bundle."""

from __future__ import annotations

import shlex
from pathlib import Path

from eyas.artifacts.layout import CONFIG, MANIFEST, run_of
from eyas.errors import UserError

# What other tools write their weights into, and their graphs.
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")
GRAPHS = (".onnx", ".xml", ".bin", ".engine", ".plan", ".trt", ".tflite")


def refuse_file(path: Path, *, bundle: bool = False) -> None:
    """Raise a UserError with a hint if the path is a file instead of the folder of a run or bundle.

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
            f"{path} is a file inside a run, not the run.",
            expected=f"the folder of {kind}",
            fix=compile_command(owner) if bundle else f"give the run's folder: {owner}",
        )
    if path.suffix in CHECKPOINTS:
        run, built = (shlex.quote(str(_free(above, path.stem))) for above in ("runs", "bundles"))
        fix = f"eyas import {shlex.quote(str(path))} --out {run}"
        if bundle:
            fix += f" && eyas compile {run} --measure 0 --out {built}"
        raise UserError(
            f"{path} is a checkpoint, not {kind}, and must be imported first.",
            expected=f"the folder of {kind}",
            fix=fix,
        )
    if (path.parent / MANIFEST).is_file():
        raise UserError(
            f"{path} is a file inside a bundle, not the bundle.",
            expected=f"the folder of {kind}",
            fix=f"give the bundle's folder: {path.parent}",
        )
    if path.suffix in GRAPHS:
        raise UserError(
            f"{path} is a graph from another tool and records neither its classes nor its input processing.",
            expected=f"the folder of {kind}",
            fix="import the .pth file that it was exported from; see eyas import --help",
        )
    raise UserError(f"{path} is a file.", expected=f"the folder of {kind}")


def compile_command(run: Path) -> str:
    """Return the command that makes a bundle of a run, "" if the folder is none."""
    if not (run / CONFIG).is_file():
        return ""
    return f"eyas compile {shlex.quote(str(run))} --out {shlex.quote(str(_free('bundles', run.resolve().name)))}"


def _free(above: str, name: str) -> Path:
    number, folder = 1, Path(above) / name
    while folder.exists():
        number += 1
        folder = Path(above) / f"{name}-{number}"
    return folder
