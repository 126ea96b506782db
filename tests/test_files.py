"""Writing is all or nothing: the last good file survives errors and a full disk, and no litter is left."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.files import atomic_path, read_json, remove_unfinished, write_bytes, write_json, write_text, writing


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "new" and names(path.parent) == ["a.txt"]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    """It is killed while it writes; files of others that end in .tmp stay."""
    code = (
        "import os, sys, pathlib; from eyas.files import atomic_path\n"
        "with atomic_path(pathlib.Path(sys.argv[1])) as path: path.touch(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "deep" / "a.txt")], check=False)
    assert len(names(tmp_path / "deep")) == 1
    for name in ("a.tmp", ".mine.tmp", "b.1.tmp"):
        (tmp_path / "deep" / name).touch()
    remove_unfinished(tmp_path)
    assert names(tmp_path / "deep") == [".mine.tmp", "a.tmp", "b.1.tmp"]


@pytest.mark.parametrize("error", [ValueError("a fault"), KeyboardInterrupt(), OSError(errno.EIO, "broken disk")])
def test_the_old_file_survives_whatever_happens(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
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


@pytest.mark.parametrize("name", ["caf\udce9.jpg", "half \ud83d", "ü 猫"])
def test_names_that_no_encoding_holds_come_back_from_json(tmp_path: Path, name: str) -> None:
    write_json(tmp_path / "a.json", {name: [name]})
    assert read_json(tmp_path / "a.json") == {name: [name]}
    assert ("ü" in name) == ("ü" in (tmp_path / "a.json").read_bytes().decode("utf-8"))


def test_text_with_half_a_character_is_written_as_an_escape(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "caf\udce9")
    assert (tmp_path / "a.txt").read_bytes() == b"caf\\udce9"


def test_a_full_disk_is_told_by_the_place_that_was_written_to(tmp_path: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(UserError, match="disk is full") as caught:
            write_bytes(tmp_path / "a.bin", bytes(2000))
        with pytest.raises(UserError, match="gone"), writing(tmp_path / "b", "it is gone"):
            (tmp_path / "b").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.where == str(tmp_path / "a.bin") and names(tmp_path) == ["b"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32-be"])
def test_json_in_any_of_its_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.json").write_text('{"ü": 1}', encoding=encoding)
    assert read_json(tmp_path / "a.json") == {"ü": 1}


@pytest.mark.parametrize("link", [False, True])
def test_a_pipe_is_written_to_and_never_replaced(tmp_path: Path, link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    place = pipe
    if link:
        place = tmp_path / "link"
        place.symlink_to(pipe)
    write_text(place, "words")
    assert os.read(reader, 100) == b"words"
    os.close(reader)
    assert pipe.is_fifo() and place.is_symlink() == link


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    device = tmp_path / "null"
    device.symlink_to("/dev/null")
    write_text(device, "words")
    assert device.is_char_device() and device.is_symlink()


def test_a_device_that_is_full_is_told(tmp_path: Path) -> None:
    device = tmp_path / "full"
    device.symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk is full"):
        write_text(device, "words")
    assert device.is_char_device()


@pytest.mark.parametrize("place", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_the_output_of_the_process_may_be_a_file(tmp_path: Path, place: str) -> None:
    code = f"from pathlib import Path; from eyas.files import write_text; write_text(Path({place!r}), 'words')"
    with (tmp_path / "out").open("wb") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
        assert os.fstat(out.fileno()).st_nlink == 1
    assert Path(place).is_symlink() and (tmp_path / "out").read_text() == "words"
