"""Writing files so that a full disk or a power cut never destroys the last good one."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.errors import UserError
from eyas.text import json_text, to_utf8

# The disk is full, the user's share of it is, or a file may not become as large as this.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def writing(path: Path, lost: str = "what was written until then may be incomplete") -> Iterator[None]:
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

    Raises:
        UserError: the disk is full. The file that stood at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, "the last good one is untouched"):
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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


def read_json(path: Path, *, max_bytes: int | None = None) -> Any:
    """Return what the JSON file holds.

    Args:
        path: the file.
        max_bytes: a larger file is refused before it is read; for files that somebody else may have made.

    Raises:
        UserError: the file is missing, too large, or no JSON that Python can hold.
    """
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise UserError(
                f"{path.name} has {path.stat().st_size / 2**20:.0f} MiB.",
                where=str(path),
                expected=f"at most {max_bytes / 2**20:.0f} MiB",
            )
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"There is no file {path.name}.", where=str(path.parent)) from None
    except ValueError as error:  # of the syntax, the encoding, or a number of thousands of digits
        raise UserError(f"{path.name} is not valid JSON: {error}.", where=str(path)) from None
    except RecursionError:
        raise UserError(f"{path.name} is not valid JSON: it is nested too deep.", where=str(path)) from None
