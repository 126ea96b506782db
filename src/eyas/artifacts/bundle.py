"""A compiled bundle: its manifest, its engine's files and its card, written together and held against each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk.

    Attributes:
        folder: where it lies.
        manifest: what it says of itself.
    """

    folder: Path
    manifest: Manifest

    @classmethod
    def read(cls, folder: Path) -> Bundle:
        """Return the bundle in `folder`, all of whose files have the bytes that its manifest, and its card, name.

        Raises:
            UserError: it is no bundle, see `Manifest.read`, or a file was changed, or its card does not speak of one.
        """
        manifest = Manifest.read(folder)
        if (folder / CARD).is_file():
            Card.verify(folder, known=manifest.files, needed=(MANIFEST, *manifest.files))
        return cls(folder, manifest)

    def verify(self) -> Card:
        """Return the card, if every file has the bytes that it names and the manifest names the same.

        Raises:
            UserError: a file is missing or was changed, or card and manifest disagree.
            OSError: a file can't be read.
        """
        card = Card.verify(self.folder)
        unnamed = [name for name in (MANIFEST, *self.manifest.files) if name not in card.files]
        if unnamed:
            raise UserError(f"The bundle's card does not list {unnamed[0]}.", where=str(self.folder / CARD))
        wrong = [name for name, value in self.manifest.files.items() if card.files[name] != value]
        if wrong:
            raise UserError(f"{wrong[0]} is not the file that the manifest lists.", where=str(self.folder / MANIFEST))
        return card

    def seal(self, *, parents: Iterable[dict[str, str]], recipe: dict[str, Any]) -> Card:
        """Write the manifest and the card for files already in the folder, and return the card; see `Card.write`."""
        self.manifest.write(self.folder)
        return Card.write(
            self.folder,
            "bundle",
            [MANIFEST, *self.manifest.files],
            version=self.manifest.eyas,
            created=self.manifest.created,
            parents=parents,
            recipe=recipe,
        )
