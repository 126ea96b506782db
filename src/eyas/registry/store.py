"""The registry itself: what may be added and promoted, over records that MLflow keeps and copies of the bundles."""

from __future__ import annotations

import getpass
import json
import os
import secrets
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from eyas.artifacts.card import Card
from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError, suggest
from eyas.mlflow_store import DATABASE, is_server, location_of
from eyas.registry.artifacts import Artifacts
from eyas.registry.base import CHAMPION, Event, Model, Registry, Resolved, Version, check_alias, check_name
from eyas.registry.record_reader import EVENT, Records, ServerRecords, SqliteRecords, event_tag
from eyas.registry.record_writer import ServerWriter, SqliteWriter, Writer, server_client

ARTIFACTS = "artifacts"
_LONGEST_TAG = 5000  # characters that every MLflow takes


class BundleRegistry:
    """A `Registry`, see there.

    Args:
        location: where it is, for a person.
        records: where models are read from.
        writer: what changes them.
        artifacts: the copies of the bundles.
        fetch: what gets a version's files into a folder when there is no copy here; None where all copies are here.
    """

    def __init__(
        self,
        location: str,
        records: Records,
        writer: Writer,
        artifacts: Artifacts,
        fetch: Callable[[Version, Path], None] | None = None,
    ) -> None:
        self._location = location
        self._records = records
        self._writer = writer
        self._artifacts = artifacts
        self._fetch = fetch

    @property
    def location(self) -> str:
        """Return where it is, for a person."""
        return self._location

    def add(self, bundle: Path, name: str) -> Version:
        """Keep a copy of the bundle as the model's next version; see `Registry.add`."""
        check_name(name)
        card, manifest = self._artifacts.add(bundle)
        with self._writer.writing():
            model = self._records.model(name)
            same = [one for one in model.versions if one.sha256 == card.sha256] if model else []
            if same:
                return same[-1]
            if model is None:
                self._writer.add_model(name)
            number = self._writer.add_version(name, card.sha256, tags_of(card, manifest))
        return self._version(self.show(name), number)

    def list(self, names: Collection[str] | None = None) -> tuple[Model, ...]:
        """Return all models, or those of the names, by name; see `Registry.list`."""
        if names is None:
            return self._records.models()
        return tuple(model for name in sorted(names) if (model := self._records.model(name)) is not None)

    def show(self, name: str) -> Model:
        """Return one model; see `Registry.show`."""
        model = self._records.model(check_name(name))
        if model is None:
            known = [one.name for one in self.list()]
            raise UserError(
                f"The registry has no model '{name}'{suggest(name, known)}.",
                where=self.location,
                expected="one of " + ", ".join(known) if known else "",
                fix=f"eyas registry add BUNDLE --name {name}",
            )
        return model

    def promote(self, name: str, version: str, alias: str = CHAMPION) -> Version:
        """Let the alias point to the version from now on; see `Registry.promote`."""
        check_alias(alias)
        found = self._version(self.show(name), version)
        self._files(found)
        with self._writer.writing():
            model = self.show(name)
            if model.aliases.get(alias) != version:
                self._set(model, alias, version, "promote")
        return found

    def rollback(self, name: str, alias: str = CHAMPION) -> Version:
        """Let the alias point to where it pointed before; see `Registry.rollback`."""
        check_alias(alias)
        with self._writer.writing():
            model = self.show(name)
            stack = model.stack(alias)
            if len(stack) < 2:
                present = f"version {stack[0]} is its first" if stack else "it is not set"
                raise UserError(
                    f"The alias '{alias}' of {name} has no previous version: {present}.",
                    fix=f"eyas registry promote {name} VERSION --alias {alias}",
                )
            found = self._version(model, stack[-2])
            self._files(found)
            self._set(model, alias, found.key.version, "rollback")
        return found

    def resolve(self, name: str, reference: str = f"@{CHAMPION}") -> Resolved:
        """Return a version and its files, held against their hashes; see `Registry.resolve`."""
        model = self.show(name)
        number = reference
        if reference.startswith("@"):
            alias = check_alias(reference[1:])
            if alias not in model.aliases:
                known = ", ".join(f"@{one}" for one in sorted(model.aliases)) or "none is set"
                raise UserError(
                    f"{name} has no alias '{alias}'{suggest(alias, model.aliases)}.",
                    expected=known,
                    fix=f"eyas registry promote {name} VERSION --alias {alias}",
                )
            number = model.aliases[alias]
        version = self._version(model, number)
        card = self._files(version)
        return Resolved(version, self._artifacts.path(version.sha256), card.files)

    def _version(self, model: Model, number: str) -> Version:
        found = model.version(number)
        if found is None:
            known = ", ".join(one.key.version for one in model.versions[-10:])
            raise UserError(f"{model.name} has no version {number}.", where=self.location, expected=known or "none yet")
        return found

    def _files(self, version: Version) -> Card:
        """Return the card of the version's files, after holding each against its hash."""
        if not version.sha256:
            raise UserError(
                f"{version.key.name} version {version.key.version} was not added by Eyas: it has no hash.",
                where=version.source,
                fix=f"eyas registry add BUNDLE --name {version.key.name}",
            )
        fetch = self._fetch
        if fetch is not None:
            try:
                return self._artifacts.verify(version.sha256)
            except UserError:  # not fetched yet, or spoiled here
                self._artifacts.fill(version.sha256, lambda folder: fetch(version, folder))
        return self._artifacts.verify(version.sha256)

    def _set(self, model: Model, alias: str, version: str, action: Literal["promote", "rollback"]) -> None:
        """Write down what is done, then do it: a writer that ends between the two has changed nothing."""
        event = Event(alias, version, action, now(), _user())
        self._writer.set_tag(model.name, f"{EVENT}{time.time_ns():020d}.{secrets.token_hex(4)}", event_tag(event))
        self._writer.set_alias(model.name, alias, version)


def open_registry(location: str | Path | None = None) -> Registry:
    """Return the registry at a place; nothing is made or loaded before it is needed.

    Args:
        location: a folder, or the address of an MLflow server (http or https); None takes the environment's
            `EYAS_REGISTRY`, else the folder "registry".
    """
    place = location_of(location)
    if is_server(place):
        client = server_client(place)
        artifacts = Artifacts(_cache())
        server = ServerWriter(client, artifacts)
        return BundleRegistry(place, ServerRecords(client), server, artifacts, server.fetch)
    folder = Path(place)
    if "://" in place or (folder.exists() and not folder.is_dir()):
        raise UserError(
            f"'{place}' is not a registry.", expected="a folder, or the address of an MLflow server: https://..."
        )
    artifacts = Artifacts(folder / ARTIFACTS)
    database = folder / DATABASE
    return BundleRegistry(place, SqliteRecords(database), SqliteWriter(database, artifacts), artifacts)


def tags_of(card: Card, manifest: Manifest) -> dict[str, str]:
    """Return what a version tells of its bundle without its files."""
    fields = asdict(card)
    text = json.dumps(fields, ensure_ascii=False)
    if len(text) > _LONGEST_TAG:
        text = json.dumps({key: fields[key] for key in ("kind", "version", "created")}, ensure_ascii=False)
    tags = {"card": text, "target": manifest.target, "precision": manifest.precision}
    if manifest.accuracy is not None:
        tags["mAP"] = f"{manifest.accuracy.map:.4f}"
    if manifest.latency:
        first = manifest.latency[0]
        tags["latency"] = f"{first.median_ms:.2f} ms ({first.device}, {first.threads_told}, batch {first.batch})"
    return tags


def now() -> str:
    """Return the time as ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _user() -> str:
    with suppress(OSError, KeyError):  # a container's user may have no name
        return getpass.getuser()
    return ""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "eyas" / "bundles"
