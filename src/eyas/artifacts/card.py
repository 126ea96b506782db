"""Lineage: a `card.json` in every artefact records its hashes and what it was made from."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.checks import MAX_NAME, shown
from eyas.errors import UserError
from eyas.files import open_regular, read_json, real, write_json

CARD = "card.json"
_HASH = re.compile(r"[0-9a-f]{64}")
MOST_ANCESTORS = 1000  # artefacts in a lineage; cards that name each other over and over would make it endless
MAX_BYTES = 64 * 2**20  # of a card; one that names a million files has 100 MB of names, and none has


@dataclass(frozen=True)
class Card:
    """The identity and origin of an artefact.

    Attributes:
        kind: "dataset", "run", "search" or "bundle".
        version: Eyas's version that wrote it.
        files: relative path of each file that counts -> SHA-256 of its bytes.
        parents: for each artefact it was made from: {"kind", "path", "sha256"}.
        recipe: how it was made, free-form JSON.
        created: ISO 8601 time, UTC.
    """

    kind: str
    version: str
    files: dict[str, str]
    parents: list[dict[str, str]]
    recipe: dict[str, Any]
    created: str

    @property
    def sha256(self) -> str:
        """Return the hash of the artefact: of its files' names and hashes, in order of names."""
        digest = hashlib.sha256()
        for name, value in sorted(self.files.items()):
            digest.update(f"{name}\0{value}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Return the card of the artefact in `folder`.

        Raises:
            UserError: there is no card, or it is not one.
        """
        path = folder / CARD
        fields = read_json(path, max_bytes=MAX_BYTES, strict=True)
        try:
            fields.pop("sha256", None)
            card = cls(**fields)
            _check(card)
        except (AttributeError, TypeError, ValueError) as error:
            raise UserError(f"{CARD} is not a valid Eyas card: {error}.", where=str(path)) from None
        return card

    @classmethod
    def write(
        cls,
        folder: Path,
        kind: str,
        files: Iterable[str],
        *,
        version: str = "",
        created: str = "",
        parents: Iterable[dict[str, str]] = (),
        recipe: dict[str, Any] | None = None,
    ) -> Card:
        """Hash `files` (relative to `folder`), write `card.json` there and return the card.

        Args:
            folder: the artefact.
            kind: what it is, see `Card`.
            files: those that count.
            version: that made it; this one by default.
            created: when; now by default.
            parents: what it was made from.
            recipe: how.
        """
        hashes = {name: hash_file(folder / name) for name in sorted(files)}
        card = cls(kind, version or this_version(), hashes, list(parents), recipe or {}, created or now())
        card.save(folder)
        return card

    @classmethod
    def extend(cls, folder: Path, files: Iterable[str]) -> Card:
        """Let the card in `folder` speak of further files, or anew of those that were rewritten, and return it."""
        card = cls.read(folder)
        hashes = {**card.files, **{name: hash_file(folder / name) for name in files}}
        card = replace(card, files=dict(sorted(hashes.items())))
        card.save(folder)
        return card

    @classmethod
    def verify(
        cls, folder: Path, *, known: Mapping[str, str] = MappingProxyType({}), needed: Iterable[str] = ()
    ) -> Card:
        """Return the card in `folder` if every file it names still has the bytes it had.

        Args:
            folder: the artefact.
            known: hashes that its files were just found to have, see `check_files`.
            needed: files that the card must speak of: what is read of the folder.

        Raises:
            UserError: a file is missing, was changed, or is not among those that the card names.
        """
        card = cls.read(folder)
        unnamed = [name for name in needed if name not in card.files]
        if unnamed:
            raise UserError(
                f"The card does not list {unnamed[0]}, so it can't be checked for changes.",
                where=str(folder / CARD),
                fix="copy the folder again from its source, or create it again",
            )
        check_files(folder, card.files, "card", known=known)
        return card

    def as_parent(self, folder: Path) -> dict[str, str]:
        """Return the entry by which artefacts made from this one, in `folder`, refer to it."""
        return {"kind": self.kind, "path": str(folder.resolve()), "sha256": self.sha256}

    def save(self, folder: Path) -> None:
        """Write the card as it is, without looking at the files that it speaks of."""
        write_json(folder / CARD, {**asdict(self), "sha256": self.sha256})


def hash_file(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def this_version() -> str:
    """Return the version of Eyas that is running."""
    return importlib.metadata.version("eyas")


def now() -> str:
    """Return the time as an artefact notes it: ISO 8601 to the second, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _check(card: Card) -> None:
    """Raise a ValueError unless the fields of a card that was read are of their kinds."""
    texts = {"kind": card.kind, "version": card.version, "created": card.created}
    for name, value in texts.items():
        if not isinstance(value, str) or len(value) > MAX_NAME:
            raise ValueError(f"{name} is {shown(value)}")
    if not isinstance(card.files, dict) or not isinstance(card.recipe, dict) or not isinstance(card.parents, list):
        raise ValueError("files, recipe or parents have the wrong type")
    for name, value in card.files.items():
        _check_path(name)
        check_hash(value)
    for parent in card.parents:
        if not isinstance(parent, dict) or not all(isinstance(value, str) for value in parent.values()):
            raise ValueError(f"a parent is {shown(parent)}")
        _check_path(parent.get("path", ""))


def _check_path(path: str) -> None:
    encoded = os.fsencode(path)
    if b"\0" in encoded or len(encoded) > 4000 or any(len(part) > 255 for part in encoded.split(b"/")):
        raise ValueError(f"a path is {shown(path)}")


def check_hash(value: object) -> None:
    """Raise a ValueError unless the value is a SHA-256 in hex."""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise ValueError(f"a SHA-256 is {shown(value)}")


def check_files(
    folder: Path, files: Mapping[str, str], owner: str, *, known: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Hold files against their hashes.

    Args:
        folder: where they lie.
        files: relative path -> SHA-256, in hex.
        owner: who names them, for the error: "card" or "manifest".
        known: hashes that files were just found to have; these are not read again.

    Raises:
        UserError: a file lies outside the folder (by its name or through a link), is missing, or was changed.
    """
    for name, expected in files.items():
        path = folder / name
        if not real(path).is_relative_to(real(folder)):
            raise UserError(f"The {owner} lists a file outside its folder: {name}.", where=str(path))
        if not path.is_file():
            raise UserError(f"{name} is missing.", where=str(folder), fix="copy the whole folder, or create it again")
        if (known.get(name) or hash_file(path)) != expected:
            raise UserError(
                f"{name} was changed after it was written: its SHA-256 differs from the {owner}'s.",
                where=str(path),
                fix="copy the folder again from its source, or create it again",
            )


def lineage(folder: Path) -> Iterator[tuple[int, Path, Card]]:
    """Yield (depth, folder, card) of the artefact and of each ancestor that can be found, depth first.

    A folder that was used again, so that it is its own ancestor by name, is not entered twice on one path.

    Raises:
        UserError: a card is not one, or there are more than `MOST_ANCESTORS`.
    """
    stack: list[tuple[Path, ...]] = [(folder,)]
    seen = 0
    while stack:
        trail = stack.pop()
        seen += 1
        if seen > MOST_ANCESTORS:
            raise UserError(f"The lineage has more than {MOST_ANCESTORS} artefacts.", where=str(folder / CARD))
        card = Card.read(trail[-1])
        yield len(trail) - 1, trail[-1], card
        above = {path.resolve() for path in trail}
        for parent in reversed(card.parents):
            path = Path(parent.get("path", ""))
            if (path / CARD).is_file() and path.resolve() not in above:
                stack.append((*trail, path))
