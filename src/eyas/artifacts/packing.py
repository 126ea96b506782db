"""Bundles as bytes: the receiver needs only Eyas to run them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from eyas.artifacts.card import CARD
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest

Files = Mapping[str, bytes]  # relative path -> bytes


def pack(folder: Path, manifest: Manifest) -> dict[str, bytes]:
    """Return the bytes of a bundle's files."""
    names = [name for name in (CARD, MANIFEST, *manifest.files) if (folder / name).is_file()]
    return {name: (folder / name).read_bytes() for name in names}


def unpack(files: Files, folder: Path) -> Path:
    """Write a bundle's files, and return the folder. Whoever opens it checks its hashes."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def digest(files: Files) -> str:
    """Return what tells two bundles apart."""
    whole = hashlib.sha256()
    for name in sorted(files):
        whole.update(name.encode() + b"\0" + hashlib.sha256(files[name]).digest())
    return whole.hexdigest()
