"""Which files are images, by name, and finding them in a folder: one list and one search for everything in Eyas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from eyas.decode import read_size
from eyas.errors import UserError, shorten

IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif",
    ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".pam",
})  # fmt: skip
# What lies beside images and is not meant to be one.
_COMPANIONS = frozenset({
    ".txt", ".xml", ".json", ".jsonl", ".geojson", ".yaml", ".yml", ".toml", ".csv", ".tsv", ".parquet", ".md", ".rst",
    ".html", ".htm", ".pdf", ".log", ".ini", ".cfg", ".db", ".cache", ".npy", ".npz", ".pkl", ".pt", ".pth", ".onnx",
    ".safetensors", ".zip", ".tar", ".gz", ".tgz", ".py", ".ipynb", ".sh", ".bat", ".names", ".data", ".sha256", ".md5",
})  # fmt: skip


@dataclass(frozen=True)
class Listing:
    """The files below a folder that were looked for, and those that may have been meant and were left out.

    Attributes:
        files: their paths, sorted.
        left_out: reason -> paths, sorted.
    """

    files: list[Path]
    left_out: Mapping[str, list[Path]] = field(default_factory=dict)

    def told(self) -> str:
        """Return what was left out and why as a phrase, "" if nothing was."""
        return "; ".join(
            f"{len(paths)} {reason} ({shorten([path.name for path in paths], 3)})"
            for reason, paths in self.left_out.items()
        )


def is_image(path: Path) -> bool:
    """Return whether the file's suffix is an image's."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def search_folder(folder: Path, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> Listing:
    """Return the files with these suffixes below the folder, to its depths, links to folders included.

    Hidden files and folders are left out. A folder that is reached in several ways is searched once, and a link to a
    folder that holds this one is not followed.
    """
    search = _Search(folder, suffixes)
    search.run()
    left_out = {reason: sorted(paths) for reason, paths in sorted(search.left_out.items())}
    return Listing(sorted(search.files), left_out)


class _Search:
    """One search: what was found, and which folders have been seen."""

    def __init__(self, folder: Path, suffixes: frozenset[str]) -> None:
        self.folder = folder
        self.suffixes = suffixes
        self.files: list[Path] = []
        self.left_out: dict[str, list[Path]] = {}
        self._seen: set[Path] = set()
        self._links: list[Path] = []

    def run(self) -> None:
        """Search all real folders first, then what links lead to: so an image has the name where it lies."""
        self._enter(self.folder)
        own = self.folder.resolve()
        while self._links:
            link = min(self._links)
            self._links.remove(link)
            target = link.resolve()
            if own.is_relative_to(target) or target in self._seen:
                self._leave("linked folders, which are searched through another path", link)
            else:
                self._enter(link)

    def _enter(self, folder: Path) -> None:
        """Look through a folder and the real folders in it."""
        waiting = [folder]
        while waiting:
            current = waiting.pop()
            place = current.resolve()
            if place in self._seen:
                continue
            self._seen.add(place)
            try:
                with os.scandir(current) as entries:
                    found = list(entries)
            except OSError:
                self._leave("folders that can't be opened", current)
                continue
            for entry in found:
                path = current / entry.name
                if not _leads_to(entry, "folder"):
                    self._file(path, entry)
                elif not entry.name.startswith("."):
                    (self._links if entry.is_symlink() else waiting).append(path)

    def _file(self, path: Path, entry: os.DirEntry[str]) -> None:
        """Take a file, or say why not."""
        suffix = path.suffix.lower()
        hidden = entry.name.startswith(".")
        is_file = _leads_to(entry, "file")
        if suffix not in self.suffixes:
            meant = is_file and not hidden and suffix not in _COMPANIONS and (suffix or _has_header(path))
            if meant:
                self._leave("with an unsupported suffix", path)
        elif hidden:
            self._leave("hidden", path)
        elif is_file:
            self.files.append(path)
        elif entry.is_symlink():
            self._leave("broken links", path)
        else:
            self._leave("that are not files", path)

    def _leave(self, reason: str, path: Path) -> None:
        self.left_out.setdefault(reason, []).append(path)


def _leads_to(entry: os.DirEntry[str], kind: Literal["file", "folder"]) -> bool:
    """Return whether the entry, or what it links to, is of the kind; links in a circle are neither."""
    try:
        return entry.is_file() if kind == "file" else entry.is_dir()
    except OSError:
        return False


def _has_header(path: Path) -> bool:
    try:
        read_size(path)
    except UserError:
        return False
    return True
