"""Opening a model from disk: checks that its bytes are what its card says, then picks the engine."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from eyas.card import CARD, verify_card
from eyas.decode import MAX_PIXELS
from eyas.errors import UserError, suggest
from eyas.runfolder import read_config
from eyas.runtime.detector import Detector
from eyas.runtime.sessions import torch as torch_session
from eyas.runtime.sessions.base import Session
from eyas.types import RunConfig, Thresholds

# Engine -> what opens a run with it: (folder, config, device) -> session. The first one is what "auto" takes.
RUN_SESSIONS: Mapping[str, Callable[[Path, RunConfig, str], Session]] = MappingProxyType(
    {"torch": torch_session.open_run}
)


def load(
    path: str | Path,
    *,
    session: str = "auto",
    device: str = "auto",
    thresholds: Thresholds | None = None,
    size: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Detector:
    """Return a detector of the trained run in a folder.

    Args:
        path: the run's folder.
        session: the engine, "torch", or "auto" for the best one.
        device: "cpu", "cuda", or "auto" for a GPU if there is one.
        thresholds: what a prediction must pass; None takes the run's own.
        size: the network's input side in pixels, a multiple of 32; None takes the size it was trained with.
        size: side of the network's square input in pixels, a multiple of 32; None takes the run's own.
        max_pixels: pictures with more pixels are refused before they are decoded.

    Raises:
        UserError: the folder is missing, is no run, its bytes were changed, the engine or device is not here,
            or the size is not one that the network takes.
    """
    folder = Path(path)
    if not folder.exists():
        near = suggest(folder.name, _neighbours(folder))
        raise UserError(f"There is no run at {folder}{near}.", expected="a folder that 'eyas train' wrote")
    config = read_config(folder)
    if (folder / CARD).is_file():
        verify_card(folder)
    else:
        warnings.warn(f"{folder} has no {CARD}: its weights could not be checked for changes.", stacklevel=2)
    if thresholds is not None:
        config = replace(config, thresholds=thresholds)
    if size is not None:
        config = replace(config, input=replace(config.input, height=size, width=size))
    if size is not None:
        config = replace(config, input=replace(config.input, height=size, width=size))
    opener = RUN_SESSIONS[_session_name(session)]
    return Detector(
        opener(folder, config, device), config.classes, config.input, config.thresholds, max_pixels=max_pixels
    )


def _session_name(session: str) -> str:
    """Return the engine that the word means."""
    if session == "auto":
        return next(iter(RUN_SESSIONS))
    if session not in RUN_SESSIONS:
        raise UserError(
            f"Unknown session '{session}'{suggest(session, RUN_SESSIONS)}.",
            where="session",
            expected="auto or one of " + ", ".join(RUN_SESSIONS),
        )
    return session


def _neighbours(folder: Path) -> list[str]:
    """Return the names beside a folder that is not there."""
    return [entry.name for entry in folder.parent.iterdir()] if folder.parent.is_dir() else []
