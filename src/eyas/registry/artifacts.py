"""The registry's copies of bundles: a folder for each, named by its card's SHA-256, never changed once it stands."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import CARD, Card
from eyas.artifacts.hints import refuse_file
from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError

_TEMPORARY = ".adding-"
_STALE_SECONDS = 24 * 3600.0


class Artifacts:
    """Copies of bundles below one folder.

    Args:
        folder: where they lie; made when the first one comes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Return where the bundle of that hash lies, if it does."""
        return self.folder / sha256

    def add(self, bundle: Path) -> tuple[Card, Manifest]:
        """Copy the bundle here unless a good copy stands here already; a spoiled one is replaced.

        Raises:
            UserError: it is no bundle, its bytes are not those of its card, or the disk is full.
        """
        card, manifest = check_bundle(bundle)
        try:
            self.verify(card.sha256)
        except UserError:
            self.fill(card.sha256, lambda folder: _copy(bundle, folder, card))
        return card, manifest

    def fill(self, sha256: str, write: Callable[[Path], None]) -> None:
        """Let `write` put a bundle's files into a folder, and take that over if it is the bundle of that hash.

        Raises:
            UserError: it is not, or the disk is full; nothing of it is left then.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
            staged = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
        except OSError as error:
            raise _not_written(error, self.folder) from error
        try:
            write(staged)
            if (found := check_bundle(staged)[0].sha256) != sha256:
                raise UserError(
                    f"The files do not match the bundle: {found[:12]}, not {sha256[:12]}.", where=str(staged)
                )
            _sync(staged)
            staged.chmod(0o755)  # a temporary folder is its owner's only; a server may be another user
            self._move(staged, self.path(sha256))
        except OSError as error:
            raise _not_written(error, self.folder) from error
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what processes left that were ended while they copied; what is younger may be at work."""
        for left in self.folder.glob(f"{_TEMPORARY}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                    shutil.rmtree(left, ignore_errors=True)

    def _move(self, staged: Path, target: Path) -> None:
        """Give the folder its name; what was there is spoiled, or the same, written by another process meanwhile."""
        try:
            staged.rename(target)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            spoiled = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.folder))
            target.rename(spoiled / "spoiled")
            staged.rename(target)
            shutil.rmtree(spoiled, ignore_errors=True)

    def verify(self, sha256: str) -> Card:
        """Return the card of the copy, each byte of which is what it was.

        Raises:
            UserError: the copy is missing, incomplete or changed.
        """
        folder = self.path(sha256)
        mend = "add the bundle again: eyas registry add BUNDLE --name NAME"
        if not folder.is_dir():
            raise UserError("The registry's copy of the bundle is missing.", where=str(folder), fix=mend)
        try:
            card, _ = check_bundle(folder)
        except UserError as error:
            raise UserError(
                f"The registry's copy of the bundle is damaged: {error.problem}", where=error.where, fix=mend
            ) from None
        if card.sha256 != sha256:
            raise UserError(
                "The registry's copy of the bundle is damaged: it is a different bundle.", where=str(folder), fix=mend
            )
        return card


def check_bundle(folder: Path) -> tuple[Card, Manifest]:
    """Return the card and the manifest of a bundle, all of whose files have the bytes that the card says.

    Raises:
        UserError: it is no bundle with a card, or was changed.
    """
    refuse_file(folder, bundle=True)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.", expected="a bundle written by 'eyas compile'")
    try:
        bundle = Bundle(folder, Manifest.read(folder, verify=False))
        return bundle.verify(), bundle.manifest
    except OSError as error:
        raise UserError(f"The bundle can't be read: {error.strerror}.", where=str(error.filename or folder)) from None


def _copy(bundle: Path, folder: Path, card: Card) -> None:
    """Copy the card and what it names; nothing else that lies in the bundle's folder."""
    for name in (CARD, *card.files):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle / name, target)


def _sync(folder: Path) -> None:
    """Wait until the files are on the disk: the name that they get promises that they are whole."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _not_written(error: OSError, folder: Path) -> UserError:
    """Return the error for a copy that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            "The disk is full: the bundle could not be copied; the registry is unchanged.",
            where=str(folder),
            fix="free some space and add it again",
        )
    return UserError(f"The bundle could not be copied: {error.strerror}.", where=str(error.filename or folder))
