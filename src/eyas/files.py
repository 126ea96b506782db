"""Writing files so that a full disk or a power cut never destroys the last good one."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.errors import UserError
from eyas.text import json_text, to_utf8

# The disk is full, the user's share of it is, or a file may not become as large as this.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

TEMPORARY = re.compile(r"\..+\.\d+\.tmp")  # as `atomic_path` names them

OUTSIDE = "The file is outside the folders that may be read."


@contextmanager
def writing(path: Path, lost: str = "the output so far may be incomplete") -> Iterator[None]:
    """Tell of a full disk by the place that was written to, which the system's own error does not name.

    Args:
        path: the file or folder that is being written.
        lost: what has become of it.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(
            f"The disk is full: {path.name} could not be saved; {lost}.",
            where=str(path),
            fix="free some space and run the same command again (training: with --resume)",
        ) from error


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed and renamed over `path`, else removed.

    What is no file, as /dev/stdout, is never replaced: the whole text is written to it at the end.

    Raises:
        UserError: the disk is full. The file that stood at `path` before is untouched.
    """
    if _takes_bytes(path):
        with _passing_on(path) as temporary:
            yield temporary
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, "the last good one is unchanged"):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a process left anywhere in a folder which was killed while it wrote."""
    for path in folder.rglob(".*.tmp"):
        if TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _takes_bytes(path: Path) -> bool:
    """Return whether what stands at the path is written to, not replaced: a device, a pipe, an open file's own name."""
    try:
        about = path.stat()
    except OSError:
        return False
    if not stat.S_ISREG(about.st_mode):
        return not stat.S_ISDIR(about.st_mode)
    # /dev/stdout, /dev/fd/1 and /proc/self/fd/1 are links to whatever is open there, which may be a file.
    return path.is_symlink() and str(real(path.parent)).startswith(("/dev", "/proc/"))


@contextmanager
def _passing_on(path: Path) -> Iterator[Path]:
    """Give a temporary path elsewhere; on success its bytes are written to `path`."""
    with tempfile.TemporaryDirectory(prefix="eyas-") as folder:
        temporary = Path(folder, "file")
        yield temporary
        with (
            writing(path, "the output so far is incomplete"),
            temporary.open("rb") as file,
            path.open("ab") as out,
        ):
            shutil.copyfileobj(file, out)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8; half characters in names become escapes)."""
    write_bytes(path, to_utf8(text).encode())


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json_text(value, indent=2) + "\n")


@contextmanager
def open_regular(
    path: str | Path, *, max_bytes: int | None = None, below: Sequence[Path] = ()
) -> Iterator[io.BufferedReader | io.BytesIO]:
    """Give a file that is one, opened for reading: no device, pipe or socket, which have no end or make one wait.

    What is given has a descriptor only if the file is not empty.

    Args:
        path: the file, or a link to it.
        max_bytes: a larger one is refused before it is read.
        below: where the file itself must lie, whatever leads to it: below one of these folders, whose links were
            followed; anywhere if there are none.

    Raises:
        UserError: it is no regular file, too large, or lies elsewhere.
        OSError: it is missing, or may not be read.
    """
    try:
        descriptor = os.open(
            path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
        )
    except ValueError:  # a zero byte, or half a character, in its name
        raise UserError("No file can have that name.", where=ascii(str(path))) from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _not_regular("a socket", path) from None
        raise
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            raise _not_regular(_KINDS.get(stat.S_IFMT(about.st_mode), "something else"), path)
        if max_bytes is not None and about.st_size > max_bytes:
            raise UserError(
                f"{Path(path).name} has {about.st_size / 2**20:.0f} MiB.",
                where=str(path),
                expected=f"at most {max_bytes / 2**20:.0f} MiB",
            )
        if below and not any(_real(descriptor, path).is_relative_to(root) for root in below):
            raise UserError(
                OUTSIDE,
                where=str(path),
                expected="a file below " + " or ".join(str(root) for root in below),
            )
        # The kernel's own files say that they have no bytes, and may have no end: they have none then.
        yield file if about.st_size else io.BytesIO()


def read_regular(path: str | Path, *, max_bytes: int | None = None) -> bytes:
    """Return the bytes of a file that is one; see `open_regular` for the errors."""
    with open_regular(path, max_bytes=max_bytes) as file:
        return file.read()


_KINDS: Mapping[int, str] = MappingProxyType(
    {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
)


def _not_regular(kind: str, path: str | Path) -> UserError:
    return UserError(f"{Path(path).name} is {kind}.", where=str(path), expected="a file")


def _real(descriptor: int, path: str | Path) -> Path:
    """Return where an open file really lies; Linux tells of the very file, whatever its name leads to by now."""
    with suppress(OSError):
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    return real(path)


def real(path: str | Path) -> Path:
    """Return where a path leads to; of links in a circle, as far as they can be followed (`Path.resolve` fails)."""
    return Path(os.path.realpath(path))


def read_json(path: Path, *, max_bytes: int | None = None, strict: bool = False) -> Any:
    """Return what the JSON file holds.

    Args:
        path: the file.
        max_bytes: a larger file is refused before it is read; for files that somebody else may have made.
        strict: refuse objects with a key twice, and numbers that are none: readers do not agree on what these mean.

    Raises:
        UserError: the file is missing, too large, or no JSON that Python can hold.
    """
    hooks: dict[str, Any] = {"object_pairs_hook": _once, "parse_constant": _no_number} if strict else {}
    try:
        return json.loads(read_regular(path, max_bytes=max_bytes), **hooks)  # UTF-8, UTF-16 or UTF-32, marked or not
    except FileNotFoundError:
        raise UserError(f"There is no file {path.name}.", where=str(path.parent)) from None
    except ValueError as error:  # of the syntax, the encoding, or a number of thousands of digits
        raise UserError(f"{path.name} is not valid JSON: {error}.", where=str(path)) from None
    except RecursionError:
        raise UserError(f"{path.name} is not valid JSON: it is nested too deeply.", where=str(path)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in fields if keys.count(key) > 1)[:100]!a} occurs twice")
    return fields


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is not allowed: a number is NaN or infinite")
