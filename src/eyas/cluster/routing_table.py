"""Bundles as bytes: a node needs nothing but Eyas to serve them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.artifacts.packing import digest, pack
from eyas.serve.api import ModelStatus
from eyas.serve.engine.routing import with_aliases

NAMESPACE = "eyas"  # of the cluster's actors


@dataclass(frozen=True)
class Entry:
    """A version of a model, without its bytes.

    Attributes:
        key: name and version.
        manifest: of its bundle.
        digest: of its files.
    """

    key: ModelKey
    manifest: Manifest
    digest: str

    @property
    def id(self) -> str:
        """The name by which a replica is asked for it."""
        return model_id(self.key)


def model_id(key: ModelKey) -> str:
    """Return the name by which a replica is asked for a version."""
    return f"{key.name}/{key.version}"


def read_entry(key: ModelKey, folder: Path) -> tuple[Entry, dict[str, bytes]]:
    """Return a bundle under its name and version, and its files.

    Raises:
        UserError: it is no bundle, or was changed.
    """
    manifest = Manifest.read(folder)
    files = pack(folder, manifest)
    return Entry(key, manifest, digest(files)), files


@dataclass(frozen=True)
class Table:
    """What a cluster serves, as every ingress and replica is told it: as a whole, so that a change is there at once.

    Attributes:
        number: of the change; the greater one counts.
        entries: the versions.
        aliases: model -> alias -> version.
    """

    number: int = 0
    entries: tuple[Entry, ...] = ()
    aliases: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the versions as a server tells them, sorted."""
        return with_aliases(
            (ModelStatus(each.key, "ready", manifest=each.manifest) for each in self.entries), self.aliases
        )

    def first(self, number: int) -> list[Entry]:
        """Return what a replica with room for so many versions holds first: what aliases point to, then the newest."""
        newest = sorted(self.entries, key=lambda entry: entry.key, reverse=True)
        pointed = {ModelKey(name, version) for name, each in self.aliases.items() for version in each.values()}
        return sorted(newest, key=lambda entry: entry.key not in pointed)[:number]
