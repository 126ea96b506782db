"""Writing the registry's records: by MLflow, into its SQLite file or to its server. The first write loads MLflow."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from eyas.errors import UserError, missing_extra
from eyas.files import atomic_path
from eyas.serve.registry.artifacts import Artifacts
from eyas.serve.registry.base import Version
from eyas.serve.registry.records import PATIENCE, database_error, has_rows, server_errors, sqlite_errors

EXPERIMENT = "eyas-bundles"  # on a server: holds the runs that the bundles' files hang on
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is gone is told of after seconds; MLflow's own numbers are seven tries in some four minutes, and a
    # server that is back would be found as late.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # Standard output is ours, and nobody looks at bars in a server's log.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_FOLDER = "bundle"
# What the system says -> what SQLite says of the same.
_WORDS = {errno.EACCES: "readonly", errno.EPERM: "readonly", errno.EROFS: "readonly", errno.ENOSPC: "disk is full"}
_STEP = 0.02  # seconds between two tries to get the lock


class Writer(Protocol):
    """Changes the records; `writing` is held around whatever reads, decides and writes."""

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out, as far as this place can."""
        ...

    def add_model(self, name: str) -> None:
        """Make the model's name known."""
        ...

    def add_version(self, name: str, sha256: str, tags: Mapping[str, str]) -> str:
        """Add a version with the bundle of that hash, and return its number."""
        ...

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias point to the version."""
        ...

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of the model."""
        ...


class SqliteWriter:
    """Writes MLflow's SQLite file. Writers on one machine wait for each other.

    Args:
        path: the file, made with its tables when the first writer comes.
        artifacts: the copies of the bundles.
        patience: seconds to wait for another program that has the file locked.
        lock_patience: seconds to wait for another writer of ours, which may be making the tables.
    """

    def __init__(
        self, path: Path, artifacts: Artifacts, patience: float = PATIENCE, lock_patience: float = 60.0
    ) -> None:
        self._path = path
        self._artifacts = artifacts
        self._patience = patience
        self._lock_patience = lock_patience
        self._store: Any = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out; the lock goes with the process that holds it, however that ends."""
        quiet_mlflow()
        import mlflow.store.model_registry.sqlalchemy_store  # noqa: F401  # takes seconds: before others have to wait

        with _lock_file(self._path) as file:
            deadline = time.monotonic() + self._lock_patience
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise database_error("locked", self._path) from None
                    time.sleep(_STEP)
            with self._told():
                self._probe()
                yield

    def add_model(self, name: str) -> None:
        """Make the model's name known."""
        self._opened().create_registered_model(name)

    def add_version(self, name: str, sha256: str, tags: Mapping[str, str]) -> str:
        """Add a version with the bundle of that hash, and return its number."""
        from mlflow.entities.model_registry import ModelVersionTag

        listed = [ModelVersionTag(key, value) for key, value in {**tags, "sha256": sha256}.items()]
        source = self._artifacts.path(sha256).resolve().as_uri()
        return str(self._opened().create_model_version(name, source, tags=listed).version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias point to the version."""
        self._opened().set_registered_model_alias(name, alias, version)

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of the model."""
        from mlflow.entities.model_registry import RegisteredModelTag

        self._opened().set_registered_model_tag(name, RegisteredModelTag(key, value))

    def _probe(self) -> None:
        """Find a locked, damaged or read-only file before MLflow meets it: MLflow tries for minutes, and tells less."""
        if self._path.is_file() and self._path.stat().st_size:
            with sqlite_errors(self._path), closing(sqlite3.connect(self._path, timeout=self._patience)) as database:
                database.execute("BEGIN IMMEDIATE")
                database.rollback()

    def _opened(self) -> Any:
        if self._store is None:
            # Without a row in it nothing is lost, whether its making came to its end or not.
            if not has_rows(self._path, self._patience):
                self._make()
            self._store = _store_at(self._path, self._patience)
        return self._store

    def _make(self) -> None:
        """Make the file with its tables: aside, and under its name when it is whole.

        It takes MLflow many steps, after each of which the process may be ended; it can't go on from where it was.
        """
        for left in self._path.parent.glob(f".{self._path.name}.*.tmp*"):  # of processes that were ended
            left.unlink(missing_ok=True)
        with atomic_path(self._path) as temporary:
            _store_at(temporary, self._patience).engine.dispose()
            for end in ("-journal", "-wal", "-shm"):  # an unfinished file's, which would be played into the new one
                self._path.with_name(self._path.name + end).unlink(missing_ok=True)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell MLflow's and SQLAlchemy's errors in words."""
        try:
            yield
        except (UserError, OSError):
            raise
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
                raise
            raise database_error(str(error), self._path) from error


def _lock_file(path: Path) -> IO[str]:
    """Return the opened file whose lock writers hold; the registry's folder is made where it is missing.

    Raises:
        UserError: the folder, or what lies in it, can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.with_suffix(".lock").open("a")
    except OSError as error:
        raise database_error(_WORDS.get(error.errno or 0, str(error)), path) from error


def _store_at(path: Path, patience: float) -> Any:
    """Return MLflow's store in a file, with all tables."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(f"sqlite:///{path.resolve()}?timeout={patience:g}")


class ServerWriter:
    """Writes to an MLflow server. A bundle's files hang on a run, so they go wherever that server keeps such files.

    Args:
        client: an `mlflow.MlflowClient`.
        artifacts: the local copies, from which the files are sent.
    """

    def __init__(self, client: Any, artifacts: Artifacts) -> None:
        self._client = client
        self._artifacts = artifacts

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep nobody out: each change is one request, and the history of an alias only ever grows."""
        with server_errors():
            yield

    def add_model(self, name: str) -> None:
        """Make the model's name known; somebody else may have done so this very moment."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def add_version(self, name: str, sha256: str, tags: Mapping[str, str]) -> str:
        """Send the files, add a version with them, and return its number."""
        found = self._client.get_experiment_by_name(EXPERIMENT)
        experiment = found.experiment_id if found else self._client.create_experiment(EXPERIMENT)
        run = self._client.create_run(experiment, run_name=f"{name}-{sha256[:12]}").info
        self._client.log_artifacts(run.run_id, str(self._artifacts.path(sha256)), _FOLDER)
        self._client.set_terminated(run.run_id)
        source = f"{run.artifact_uri}/{_FOLDER}"
        listed = {**tags, "sha256": sha256}
        return str(self._client.create_model_version(name, source, run_id=run.run_id, tags=listed).version)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Let the alias point to the version."""
        self._client.set_registered_model_alias(name, alias, version)

    def set_tag(self, name: str, key: str, value: str) -> None:
        """Set a tag of the model."""
        self._client.set_registered_model_tag(name, key, value)

    def fetch(self, version: Version, folder: Path) -> None:
        """Get the version's files from the server into the folder."""
        with server_errors():
            run_id = self._client.get_model_version(version.key.name, version.key.version).run_id
            self._client.download_artifacts(run_id, _FOLDER, str(folder))
        for path in (folder / _FOLDER).iterdir():
            path.rename(folder / path.name)
        (folder / _FOLDER).rmdir()


def server_client(url: str) -> Any:
    """Return MLflow's client of a server."""
    quiet_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=url, registry_uri=url)


def quiet_mlflow() -> None:
    """Load MLflow, set up for a program that others wait for: see `_DEFAULTS`; what the user has set is kept.

    Raises:
        UserError: it is not installed.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import alembic  # noqa: F401
        import mlflow
        import sqlalchemy  # noqa: F401
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "mlflow", "registry") from None
    # It sets its own when it is imported, and logs each error with its traceback before it raises it.
    logging.getLogger(mlflow.__name__).setLevel(logging.CRITICAL)
