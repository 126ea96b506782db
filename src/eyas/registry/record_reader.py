"""Reading the registry's records: out of MLflow's SQLite tables without loading MLflow, or from MLflow's server.

A server asks every second where the aliases point; MLflow takes three seconds and 200 MB to import, these tables
a millisecond to read. They are only read here: everything that is written is written by MLflow.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.mlflow_store import PATIENCE, is_unmade, sqlite_errors
from eyas.registry.base import Event, Model, Version

EVENT = "eyas.event."  # + nanoseconds and a random number: the tag of a model that keeps an `Event`


class Records(Protocol):
    """Where models are read from."""

    def models(self) -> tuple[Model, ...]:
        """Return all models, by name."""
        ...

    def model(self, name: str) -> Model | None:
        """Return one model, None if there is none of that name."""
        ...


class SqliteRecords:
    """Models out of MLflow's SQLite file.

    Args:
        path: the file; one that does not exist has no models.
        patience: seconds to wait while another program has it locked.
    """

    def __init__(self, path: Path, patience: float = PATIENCE) -> None:
        self._path = path
        self._patience = patience

    def models(self) -> tuple[Model, ...]:
        """Return all models, by name."""
        if is_unmade(self._path, self._patience):
            return ()
        with sqlite_errors(self._path), closing(self._open()) as database:
            names = [row[0] for row in database.execute("SELECT name FROM registered_models ORDER BY name")]
            return tuple(_read(database, name) for name in names)

    def model(self, name: str) -> Model | None:
        """Return one model, None if there is none of that name."""
        if is_unmade(self._path, self._patience):
            return None
        with sqlite_errors(self._path), closing(self._open()) as database:
            known = database.execute("SELECT 1 FROM registered_models WHERE name = ?", (name,)).fetchone()
            return _read(database, name) if known else None

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(f"{self._path.resolve().as_uri()}?mode=ro", uri=True, timeout=self._patience)
        database.execute("BEGIN")  # all that follows sees one moment
        return database


def _read(database: sqlite3.Connection, name: str) -> Model:
    """Return the model of that name."""
    tags: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for number, key, value in database.execute(
        "SELECT version, key, value FROM model_version_tags WHERE name = ?", (name,)
    ):
        tags[number][key] = value or ""
    rows = database.execute(
        "SELECT version, creation_time, source FROM model_versions WHERE name = ? AND current_stage IS NOT "
        "'Deleted_Internal' ORDER BY version",
        (name,),
    )
    versions = [_version(name, number, created, source, tags[number]) for number, created, source in rows]
    aliases = database.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", (name,))
    pointing = {str(alias): str(version) for alias, version in aliases}
    notes = database.execute("SELECT key, value FROM registered_model_tags WHERE name = ?", (name,))
    return Model(name, tuple(versions), pointing, events_of(dict(notes)))


class ServerRecords:
    """Models from an MLflow server.

    Args:
        client: an `mlflow.MlflowClient`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def models(self) -> tuple[Model, ...]:
        """Return all models, by name."""
        found: list[Model] = []
        token = None
        with server_errors():
            while True:
                page = self._client.search_registered_models(max_results=100, page_token=token)
                found += [self._model(one) for one in page]
                token = page.token
                if not token:
                    return tuple(sorted(found, key=lambda model: model.name))

    def model(self, name: str) -> Model | None:
        """Return one model, None if there is none of that name."""
        with server_errors():
            found = self._client.search_registered_models(filter_string=_named(name))
            return self._model(found[0]) if found else None

    def _model(self, record: Any) -> Model:
        versions = [
            _version(record.name, one.version, one.creation_timestamp, one.source, dict(one.tags))
            for one in self._client.search_model_versions(_named(record.name), max_results=10_000)
        ]
        pointing = {str(alias): str(version) for alias, version in dict(record.aliases).items()}
        ordered = sorted(versions, key=lambda version: version.key)
        return Model(record.name, tuple(ordered), pointing, events_of(dict(record.tags)))


def _named(name: str) -> str:
    """Return MLflow's filter for a name; other programs may have made names with quotes in them."""
    quote = '"' if "'" in name else "'"
    return f"name = {quote}{name}{quote}"


def _version(name: str, number: object, created_ms: int, source: str, tags: Mapping[str, str]) -> Version:
    created = datetime.fromtimestamp(created_ms / 1000, UTC).isoformat(timespec="seconds")
    others = {key: value for key, value in sorted(tags.items()) if key != "sha256"}
    return Version(ModelKey(name, str(number)), tags.get("sha256", ""), created, others, source or "")


def event_tag(event: Event) -> str:
    """Return the value of the tag that keeps the event."""
    return json.dumps(vars(event))


def events_of(tags: Mapping[str, str]) -> tuple[Event, ...]:
    """Return what the model's tags tell of its aliases, oldest first; other tags are somebody else's."""
    return tuple(_events((key, tags[key]) for key in sorted(tags) if key.startswith(EVENT)))


def _events(pairs: Iterable[tuple[str, str]]) -> Iterator[Event]:
    for key, value in pairs:
        try:
            yield Event(**json.loads(value))
        except (TypeError, ValueError):
            raise UserError(
                f"The registry's tag {key} differs from what was written.", fix=f"delete the tag {key}"
            ) from None


@contextmanager
def server_errors() -> Iterator[None]:
    """Tell MLflow's errors about its server in words.

    Raises:
        UserError: for whatever MLflow raised inside.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        # Without the addresses of objects in it the same fault is the same text each time.
        words = re.sub(r"<[^<>]* object at 0x[0-9a-f]+>:? ?", "", str(error).splitlines()[0])
        raise UserError(
            f"The registry's server can't do this: {words}",
            fix="check the address, that the server runs, and your access (MLFLOW_TRACKING_TOKEN)",
        ) from error
