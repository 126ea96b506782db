"""What a run resumes from, on disk: the last state and the one before, and the best weights; verified before use."""

from __future__ import annotations

import contextlib
import os
import shlex
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eyas.artifacts import layout
from eyas.artifacts.card import hash_file
from eyas.artifacts.run import RunFolder
from eyas.errors import UserError
from eyas.files import atomic_path, read_json, write_json
from eyas.models.public_form import from_public_state

KNOWN = 3  # hashes that are remembered: of both files, and of the one that is on its way out
STATES, BEST_WEIGHTS = "sha256", "weights"  # in the file of hashes: whose they are
OLD_AVERAGE = "ema_net."
PARTS = ("state_dict", "optimizer_states", "loops", "callbacks", "global_step")


@dataclass(frozen=True)
class SavedState:
    """A state that was found whole.

    Attributes:
        path: its file.
        state: what it holds.
        notes: what there is to say about it, a line each.
    """

    path: Path
    state: dict[str, Any]
    notes: tuple[str, ...] = ()


def write_state(folder: Path, save: Callable[[Path], None]) -> None:
    """Save a state as the run's last one, and keep the one before.

    Whenever this is cut short, one of both files is whole and its hash is known: a new file's hash is written before
    the file has its name, beside the hashes that are still needed.

    Args:
        folder: the run's folder.
        save: writes the state to the path it is given.
    """
    last, previous = RunFolder(folder).checkpoint, RunFolder(folder).previous_checkpoint
    with atomic_path(last) as temporary:
        save(temporary)
        _remember(folder, STATES, hash_file(temporary))
        if last.is_file():
            _take_name(last, previous)


def write_weights(folder: Path, save: Callable[[Path], None]) -> None:
    """Save the run's weights, and remember their hash before the file has its name.

    Args:
        folder: the run's folder.
        save: writes the weights to the path it is given.
    """
    with atomic_path(RunFolder(folder).weights) as temporary:
        save(temporary)
        _remember(folder, BEST_WEIGHTS, hash_file(temporary))


def lost_weights(folder: Path) -> str:
    """Return what happened to the run's weights since they were saved, "" if nothing did, as far as is known."""
    path = RunFolder(folder).weights
    if not path.exists():
        return "is missing"
    known, _ = _hashes(folder, BEST_WEIGHTS)
    if known is None:
        return ""  # saved by an older Eyas
    try:
        return "" if hash_file(path) in known else "differs from what was saved (its SHA-256 does not match)"
    except OSError as error:
        return f"can't be read: {error.strerror}"


def find_state(folder: Path) -> SavedState | None:
    """Return the last state that is whole, None if there is none at all.

    Raises:
        UserError: there are states, and none of them is whole or can be read.
    """
    paths = [RunFolder(folder).checkpoint, RunFolder(folder).previous_checkpoint]
    if not any(path.exists() for path in paths):
        return None
    known, notes = _hashes(folder)
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            problems.append(f"{path.name} is missing")
            continue
        state = _read(path, known)
        if isinstance(state, str):
            problems.append(f"{path.name} {state}")
            continue
        told = [f"{problem}; resuming from the state saved before it, {path.name}" for problem in problems]
        return SavedState(path, state, (*told, *notes))
    raise UserError(
        "The run can't be resumed: " + ", and ".join(problems) + ".",
        where=str(paths[0].parent),
        fix="restore one of these files, or " + anew(folder),
    )


def settle(folder: Path, found: SavedState) -> None:
    """Make the state that was found the run's last one: a damaged one must not be kept as good."""
    last = RunFolder(folder).checkpoint
    if found.path != last:
        found.path.replace(last)
    if _hashes(folder)[0] is None:
        _remember(folder, STATES, hash_file(last))


def upgrade(state: dict[str, Any]) -> None:
    """Bring a state that an older Eyas saved into today's form, in place: its weight average was part of the module."""
    if "averaged_steps" not in state:
        return
    weights = state["state_dict"]
    names = [name for name in weights if name.startswith(OLD_AVERAGE)]
    average = {name.removeprefix(OLD_AVERAGE): weights.pop(name) for name in names}
    state["callbacks"]["WeightAverage"] = {"steps": state.pop("averaged_steps"), "net": average}


def check_fits(found: SavedState, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """Raise a UserError unless the state is one of a network with these weights."""
    saved = from_public_state(found.state["state_dict"])  # older runs' states have what networks no longer hold
    shapes = {name: tuple(value.shape) for name, value in saved.items()}
    if shapes == {name: tuple(value.shape) for name, value in weights.items()}:
        return
    raise UserError(
        f"{found.path.name} is the state of a different network than {layout.CONFIG} describes.",
        where=str(found.path),
        expected="the state saved by this run",
        fix="restore the run's own files, or " + anew(folder),
    )


def anew(folder: Path, data: str = "") -> str:
    """Return how to train again from what there is of a run, as an instruction with a command that works."""
    root = shlex.quote(data) if data else "ROOT"
    if RunFolder(folder).weights.is_file():
        return f"start a new run from its best weights: eyas train --data {root} --weights {shlex.quote(str(folder))}"
    return f"start a new run: eyas train --data {root}"


def _read(path: Path, known: list[str] | None) -> dict[str, Any] | str:
    """Return what a saved state holds, or what is wrong with it.

    Raises:
        UserError: the file can't be read at all, so that none could be saved in its place either.
    """
    if not path.is_file():
        raise UserError(f"{path.name} is not a file.", where=str(path), fix="move it away")
    try:
        if known is not None and hash_file(path) not in known:
            return "differs from what was saved (its SHA-256 does not match)"
        if known is None and _damaged_archive(path):
            return "is damaged"
    except PermissionError as error:
        raise UserError(f"{path.name} can't be read: {error.strerror}.", where=str(path)) from None
    except OSError as error:
        return f"can't be read: {error.strerror}"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # torch raises nearly anything for a damaged file, with advice to load it unsafely
        return "is not the state of a run"
    if not isinstance(state, dict) or any(part not in state for part in PARTS):
        return "is not the state of a run"
    upgrade(state)
    return state


def _damaged_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is not None
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError):
        return True


def _hashes(folder: Path, whose: str = STATES) -> tuple[list[str] | None, tuple[str, ...]]:
    """Return the hashes of what was saved, None if they are not known, and what there is to say of that."""
    path = RunFolder(folder).checkpoint_hashes
    if not path.exists():
        note = f"the run has no {path.name} (an older Eyas made it): its state can't be fully verified"
        return None, (note,)
    try:
        hashes = read_json(path, max_bytes=1 << 16)[whose]
        assert isinstance(hashes, list)
        return [str(one) for one in hashes], ()
    except (UserError, KeyError, TypeError, AssertionError):
        return None, (f"{path.name} is damaged: the state can't be fully verified",)


def _remember(folder: Path, whose: str, sha256: str) -> None:
    hashes = {kind: known for kind in (STATES, BEST_WEIGHTS) if (known := _hashes(folder, kind)[0]) is not None}
    hashes[whose] = [sha256, *(one for one in hashes.get(whose, ()) if one != sha256)][:KNOWN]
    write_json(RunFolder(folder).checkpoint_hashes, hashes)


def _take_name(last: Path, previous: Path) -> None:
    """Make `previous` what `last` is; `last` stays until it is replaced, where the file system can do that."""
    temporary = previous.with_name(f".{previous.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(last, temporary)
    except OSError:  # no hard links here, or a symbolic link to another disk
        last.replace(previous)
        return
    try:
        temporary.replace(previous)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)  # renaming onto another name of the same file does nothing
