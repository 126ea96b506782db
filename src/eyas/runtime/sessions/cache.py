"""Where engines keep what they worked out for this machine, so that the next start is quick.

What lies there is run, or believed: the folders are the user's own, and each bundle's bytes have their own.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path


def cache_folder(*parts: str) -> Path | None:
    """Return a folder in EYAS_CACHE, else in the user's cache folder; None where there is none to trust.

    Args:
        parts: the engine, and perhaps what it keeps things of.
    """
    given = os.environ.get("EYAS_CACHE")
    if given is not None:
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home())) / "eyas"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eyas"
    folder = base
    try:
        base.mkdir(parents=True, exist_ok=True)
        for part in parts:
            folder /= part
            folder.mkdir(mode=0o700, exist_ok=True)
            if not _is_own(folder):
                warnings.warn(f"{folder} is writable by other users, so the cache is not used.", stacklevel=2)
                return None
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _is_own(folder: Path) -> bool:
    if sys.platform == "win32":
        return True
    about = folder.stat()
    return about.st_uid == os.geteuid() and not about.st_mode & stat.S_IWOTH


def bundle_key(files: Mapping[str, str]) -> str:
    """Return a name for a bundle's bytes: what was worked out for them holds for no others.

    Args:
        files: relative path of each file -> SHA-256 of its bytes, the manifest's.
    """
    return hashlib.sha256(repr(sorted(files.items())).encode("utf-8", "backslashreplace")).hexdigest()[:32]
