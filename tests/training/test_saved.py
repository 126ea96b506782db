"""Saved states on disk: cut short anywhere, damaged in any way, and still one that is whole or a clear word."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eyas.artifacts import layout
from eyas.errors import UserError
from eyas.training import saved
from eyas.training.saved import check_fits, find_state, settle, write_state

LAST, PREVIOUS, HASHES = layout.CHECKPOINT, layout.PREVIOUS_CHECKPOINT, layout.CHECKPOINT_HASHES


def save(folder: Path, step: int) -> None:
    """Save a state that is told from others by its step."""
    parts = {
        "state_dict": {"w": torch.full((5000,), float(step))},
        "optimizer_states": [],
        "loops": {},
        "callbacks": {},
    }
    write_state(folder, lambda path: torch.save({**parts, "global_step": step}, path))


def step_of(folder: Path) -> int:
    """Return the step of the state that a resumed run would go on from."""
    found = find_state(folder)
    assert found is not None
    return int(found.state["global_step"])


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a folder with the states of steps 1, 2 and 3 saved, of which two are kept."""
    for step in (1, 2, 3):
        save(tmp_path, step)
    return tmp_path


def test_the_last_two_are_kept(run: Path) -> None:
    assert sorted(path.name for path in (run / LAST).parent.iterdir()) == ["hashes.json", "last.ckpt", "previous.ckpt"]
    found = find_state(run)
    assert found is not None and found.notes == () and step_of(run) == 3
    (run / LAST).unlink()
    assert step_of(run) == 2


def flip(path: Path, count: int, start: int = 0) -> None:
    data = bytearray(path.read_bytes())
    for i in range(count):
        data[start + i * (len(data) - start) // count] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "one bit": lambda path: flip(path, 1, 3000),
    "400 bits": lambda path: flip(path, 400),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a byte short": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "text": lambda path: path.write_text("not the state"),
    "another run's": lambda path: torch.save({"state_dict": {}, "global_step": 9}, path),
    "a dead link": lambda path: (path.unlink(), path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_noticed_and_the_one_before_it_goes_on(run: Path, kind: str) -> None:
    DAMAGE[kind](run / LAST)
    found = find_state(run)
    assert found is not None and found.state["global_step"] == 2
    assert any("last.ckpt" in note and "previous.ckpt" in note for note in found.notes)
    settle(run, found)
    assert step_of(run) == 2
    save(run, 3)  # what was damaged is not kept as the state before
    (run / LAST).unlink()
    assert step_of(run) == 2


@pytest.mark.parametrize("kind", DAMAGE)
def test_both_damaged_is_refused_with_what_is_wrong_and_a_way_on(run: Path, kind: str) -> None:
    for name in (LAST, PREVIOUS):
        DAMAGE[kind](run / name)
    if kind == "a dead link":
        assert find_state(run) is None
        return
    with pytest.raises(UserError, match=r"can't be resumed: last.ckpt .*, and previous.ckpt ") as caught:
        find_state(run)
    assert "eyas train --data" in caught.value.fix and "weights_only" not in str(caught.value)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "a dead link"])
def test_a_run_of_an_older_eyas_has_no_hashes_and_damage_is_noticed_still(run: Path, kind: str) -> None:
    (run / HASHES).unlink()
    (run / PREVIOUS).unlink()
    found = find_state(run)
    assert found is not None and found.state["global_step"] == 3 and "can't be fully verified" in found.notes[0]
    DAMAGE[kind](run / LAST)
    with pytest.raises(UserError, match="can't be resumed"):
        find_state(run)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sha256": 3}', "{}"])
def test_damaged_hashes_are_told_and_the_state_is_checked_without(run: Path, text: str) -> None:
    (run / HASHES).write_text(text)
    found = find_state(run)
    assert found is not None and found.state["global_step"] == 3 and "hashes.json is damaged" in found.notes[0]
    settle(run, found)
    found = find_state(run)
    assert found is not None and not found.notes


def test_links_to_another_place_are_followed_and_what_is_no_file_is_refused(run: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (run / LAST).rename(elsewhere)
    (run / LAST).symlink_to(elsewhere)
    assert step_of(run) == 3
    save(run, 4)
    assert step_of(run) == 4
    (run / LAST).unlink()
    assert step_of(run) == 3
    (run / LAST).mkdir()
    with pytest.raises(UserError, match="is not a file"):
        find_state(run)


def test_a_file_that_may_not_be_read_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(saved, "hash_file", refuse)  # root may read everything
    with pytest.raises(UserError, match=r"last\.ckpt can't be read: Permission denied"):
        find_state(run)


class Killed(BaseException):
    """The process is gone at this point."""


CALLS = ("hash_file", "write_json", "link", "replace")


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("saves", [0, 1, 3])
def test_killed_anywhere_while_it_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, after: bool, number: int, saves: int
) -> None:
    """Before and after each thing done to a file: the newest state that had its name is found, or the new one."""
    for step in range(1, saves + 1):
        save(tmp_path, step)
    place = {"hash_file": saved, "write_json": saved, "link": os, "replace": Path}[call]
    real, calls = getattr(place, call), []

    def cut(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == number and not after:
            raise Killed
        result = real(*args, **kwargs)
        if len(calls) == number:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(place, call, cut)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # a dead process tidies nothing up
        with contextlib.suppress(Killed):
            save(tmp_path, saves + 1)
    found = find_state(tmp_path)
    steps = None if found is None else found.state["global_step"]
    assert steps in ({None, 1} if saves == 0 else {saves, saves + 1})
    if found is not None:
        settle(tmp_path, found)
    for step in (10, 11):
        save(tmp_path, step)
    assert step_of(tmp_path) == 11
    (tmp_path / LAST).unlink()
    assert step_of(tmp_path) == 10


def test_without_hard_links_the_states_are_renamed(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save(run, 4)
    assert step_of(run) == 4
    (run / LAST).unlink()
    assert step_of(run) == 3


def test_the_state_of_another_network_is_refused(run: Path) -> None:
    found = find_state(run)
    assert found is not None
    check_fits(found, {"w": torch.zeros(5000)}, run)
    for other in ({"w": torch.zeros(6)}, {"v": torch.zeros(5000)}, {}):
        with pytest.raises(UserError, match="a different network"):
            check_fits(found, other, run)
