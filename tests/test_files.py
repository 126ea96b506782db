"""Writing is all or nothing: the last good file survives errors and a full disk, and no litter is left."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.files import atomic_path, read_json, write_json, write_text


def names(folder: Path) -> list[str]:
    """Return the names in the folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_the_old_file_survives_whatever_happens(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_the_old_file_survives(tmp_path: Path, number: int) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(UserError, match="disk is full") as caught, atomic_path(tmp_path / "a.txt"):
        raise OSError(number, "full")
    assert "a.txt" in str(caught.value) and "free some space" in caught.value.fix
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_disk_that_is_full_at_the_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("value", [{"a": [1, 2.5, None, "ü"]}, [], "text", 3])
def test_json_there_and_back(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("\n")


def test_json_that_is_missing_or_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file a\.json"):
        read_json(tmp_path / "a.json")
    for data in (b"", b"{", b"\xff\xfe\x00"):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(UserError, match="not valid JSON"):
            read_json(tmp_path / "a.json")
