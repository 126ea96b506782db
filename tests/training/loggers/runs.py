"""The folder of a run, as training writes it, made without training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.files import write_json
from eyas.training.recipe import Recipe

STEP_FIELDS = "step,epoch,seconds,cpu_seconds,lr,loss,class,iou"
EPOCH_FIELDS = "epoch,step,seconds,cpu_seconds,images,lr,loss,class,iou,AP,AP50"
HASHES = {"train": "a" * 64, "val": "b" * 64}
STARTED = 1_800_000_000.0


def begin(folder: Path) -> Path:
    """Write what a run has before its first step."""
    folder.mkdir(parents=True)
    write_json(folder / layout.CONFIG, {"format": "eyas-run"})
    write_json(folder / layout.RECIPE, Recipe().to_dict())
    os.utime(folder / layout.RECIPE, (STARTED, STARTED))
    write_json(folder / layout.ENVIRONMENT, {"python": "3.11.7", "versions": {"torch": "2.13.0"}})
    parents = [
        {"kind": "dataset", "path": "data/shapes", "sha256": digest, "split": split} for split, digest in HASHES.items()
    ]
    write_json(folder / layout.ORIGIN, {"recipe": Recipe().to_dict(), "parents": parents})
    (folder / layout.STEPS).write_text(STEP_FIELDS + "\r\n", encoding="utf-8")
    (folder / layout.METRICS).write_text(EPOCH_FIELDS + "\r\n", encoding="utf-8")
    return folder


def train(folder: Path, epochs: range) -> None:
    """Write what epochs of 20 steps write; a row of steps.csv each 10 steps."""
    for epoch in epochs:
        with (folder / layout.STEPS).open("a", encoding="utf-8", newline="") as file:
            for step in (20 * epoch - 10, 20 * epoch):
                file.write(f"{step},{epoch - 1},{step / 2},{step / 4},0.001,{100 / step:.6g},{60 / step:.6g},0.25\r\n")
        with (folder / layout.METRICS).open("a", encoding="utf-8", newline="") as file:
            file.write(f"{epoch},{20 * epoch},{10 * epoch},5,240,0.001,1.5,1,0.5,{0.1 * epoch:.6g},\r\n")
        make_image(folder / layout.CURVES, epoch)
        make_image(folder / layout.SHEETS / f"epoch_{epoch:03d}.jpg", epoch)


def end(folder: Path, stopped: str = "", trackers: Mapping[str, Mapping[str, str]] | None = None) -> None:
    """Write what a run has when it ends."""
    (folder / layout.WEIGHTS).write_bytes(b"weights")
    names = [layout.CONFIG, layout.RECIPE, layout.WEIGHTS]
    recipe = {"stopped": stopped, "trackers": dict(trackers or {})}
    Card.write(folder, "run", names, version="0", created="2026-01-01T00:00:00+00:00", recipe=recipe)


def rewind(folder: Path, epochs: int) -> None:
    """Take the tables back to the end of an epoch, as a resumed run does that was killed later."""
    for name, kept in ((layout.STEPS, 2 * epochs), (layout.METRICS, epochs)):
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        (folder / name).write_bytes(b"".join(lines[: 1 + kept]))


def make_image(path: Path, number: int) -> None:
    """Write an image that no other number has."""
    path.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(path), np.full((12, 16, 3), 10 * number, np.uint8))
