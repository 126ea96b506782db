"""Where engines keep what they worked out for this machine, so that the next start is quick."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder(engine: str) -> Path | None:
    """Return an engine's folder in EYAS_CACHE, else in the user's cache folder; None where it can't be made."""
    given = os.environ.get("EYAS_CACHE")
    if given is not None:
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home())) / "eyas"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "eyas"
    folder = base / engine
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
