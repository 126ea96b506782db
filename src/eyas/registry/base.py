"""The interface of the registry: models, versions, aliases and their history."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError

CHAMPION = "champion"
CHALLENGER = "challenger"

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,127}", re.ASCII)
_ALIAS = re.compile(r"(?!latest$|v\d+$)[a-z][\w-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Version:
    """A bundle under a model's name.

    Attributes:
        key: the model's name and the version, "1" for the first.
        sha256: the hash of the bundle's card: the bundle itself, whatever it is called.
        created: ISO 8601 time, UTC, when it was added.
        tags: "card", "target", "precision", and where they were measured "mAP" and "latency".
        source: where the files were put, for a person; see `Registry.resolve` for the files.
    """

    key: ModelKey
    sha256: str
    created: str
    tags: Mapping[str, str]
    source: str = ""


@dataclass(frozen=True)
class Event:
    """An alias that was set.

    Attributes:
        alias: which.
        version: to which version.
        action: by a promotion, or by taking one back.
        at: ISO 8601 time, UTC.
        by: the user's name on that machine.
    """

    alias: str
    version: str
    action: Literal["promote", "rollback"]
    at: str
    by: str


@dataclass(frozen=True)
class Model:
    """A name with its versions.

    Attributes:
        name: the name.
        versions: oldest first.
        aliases: alias -> version, as they point now.
        events: what was done to the aliases, oldest first.
    """

    name: str
    versions: tuple[Version, ...]
    aliases: Mapping[str, str]
    events: tuple[Event, ...] = ()

    def version(self, number: str) -> Version | None:
        """Return the version of that number, None if there is none."""
        return next((one for one in self.versions if one.key.version == number), None)

    def stack(self, alias: str) -> list[str]:
        """Return the versions that the alias had, the present one last; rolled-back ones are not included."""
        present = self.aliases.get(alias)
        if present is None:
            return []
        events = [event for event in self.events if event.alias == alias]
        stack = _replay(events)
        if stack[-1:] != [present]:  # the last one was written down, and its writer ended before the alias was set
            stack = _replay(events[:-1])
        if stack[-1:] != [present]:  # somebody set the alias with another program
            stack.append(present)
        return stack


def _replay(events: list[Event]) -> list[str]:
    """Return what is left of the versions: a promotion adds one, a rollback takes away down to where it went."""
    stack: list[str] = []
    for event in events:
        if event.action == "rollback" and event.version in stack:
            del stack[len(stack) - stack[::-1].index(event.version) :]
        elif stack[-1:] != [event.version]:
            stack.append(event.version)
    return stack


@dataclass(frozen=True)
class Resolved:
    """A version whose files are available locally and verified against their hashes.

    Attributes:
        version: which.
        bundle: the bundle's folder.
        hashes: relative path of each file -> SHA-256 of its bytes.
    """

    version: Version
    bundle: Path
    hashes: Mapping[str, str]


class Registry(Protocol):
    """Names, versions and aliases of bundles. Every method may raise a UserError: unreadable, locked, disk full."""

    @property
    def location(self) -> str:
        """Return where it is, for a person."""
        ...

    def add(self, bundle: Path, name: str) -> Version:
        """Keep a copy of the bundle as the model's next version; the very same bundle again gives its version back.

        Raises:
            UserError: it is no bundle, or its bytes are not those of its card.
        """
        ...

    def list(self, names: Collection[str] | None = None) -> tuple[Model, ...]:
        """Return all models, by name; of these names only, as far as there are such, if they are given."""
        ...

    def show(self, name: str) -> Model:
        """Return one model.

        Raises:
            UserError: there is no model of that name.
        """
        ...

    def promote(self, name: str, version: str, alias: str = CHAMPION) -> Version:
        """Point the alias to the version, after verifying its files.

        Raises:
            UserError: there is no such version, or its files are missing or were changed; the alias is as it was.
        """
        ...

    def rollback(self, name: str, alias: str = CHAMPION) -> Version:
        """Let the alias point to where it pointed before its last promotion.

        Raises:
            UserError: it pointed nowhere before, or those files are missing or were changed.
        """
        ...

    def resolve(self, name: str, reference: str = f"@{CHAMPION}") -> Resolved:
        """Return a version and its files, held against their hashes.

        Args:
            name: the model.
            reference: a version as "3", or an alias as "@champion".

        Raises:
            UserError: there is no such version, or its files are missing or were changed.
        """
        ...


def check_name(name: str) -> str:
    """Return the model's name.

    Raises:
        UserError: it is none.
    """
    if not _NAME.fullmatch(name):
        raise UserError(
            f"'{name}' is not a valid model name.",
            expected="letters, digits, '.', '-' and '_', starting with a letter or digit, at most 128",
        )
    return name


def check_alias(alias: str) -> str:
    """Return the alias.

    Raises:
        UserError: it is none.
    """
    if not _ALIAS.fullmatch(alias):
        raise UserError(
            f"'{alias}' is not a valid alias.",
            expected=f"lowercase letters, digits, '-' and '_', such as {CHAMPION} or {CHALLENGER}; not 'latest' or "
            "'v1'",
        )
    return alias


def parse_reference(text: str) -> tuple[str, str]:
    """Return (name, reference for `Registry.resolve`) of "NAME", "NAME:3" or "NAME@champion"; "" where none is given.

    Raises:
        UserError: a part of it can't be one.
    """
    name, at, alias = text.partition("@")
    if at:
        return check_name(name), f"@{check_alias(alias)}"
    name, colon, version = text.partition(":")
    if colon and not version.isdecimal():
        raise UserError(f"'{version}' is not a version.", expected=f"a number, such as {name or 'NAME'}:3", where=text)
    return check_name(name), version
