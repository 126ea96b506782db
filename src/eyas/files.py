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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it is flushed and renamed over `path`, else removed.

    Raises:
        UserError: the disk is full. The file that stood at `path` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"The disk is full: {path.name} could not be saved; the last good one is untouched.",
                where=str(path),
                fix="free some space and run the same command again (training: with --resume)",
            ) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically (UTF-8)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


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
