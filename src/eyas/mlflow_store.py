"""The folder or server where MLflow keeps what Eyas gives it, models and training runs alike, and how it is opened.

In a folder that is one SQLite file. Its tables are made whole or not at all, under a lock, and SQLite's errors are told
in words.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

from eyas.errors import UserError, missing_extra
from eyas.files import atomic_path

LOCATION = "registry"  # the folder, where nothing else is said
VARIABLE = "EYAS_REGISTRY"
DATABASE = "registry.db"
PATIENCE = 5.0  # seconds to wait for another program that has the database locked
LOCK_PATIENCE = 60.0  # seconds to wait for another writer of ours, which may be making the tables
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
# What the system says -> what SQLite says of the same.
_WORDS = {errno.EACCES: "readonly", errno.EPERM: "readonly", errno.EROFS: "readonly", errno.ENOSPC: "disk is full"}
_STEP = 0.02  # seconds between two tries to get the lock


def location_of(given: str | Path | None = None) -> str:
    """Return the folder, or the server's address, that is meant: the given one, the environment's, or the default."""
    return str(given or os.environ.get(VARIABLE) or LOCATION)


def is_server(location: str) -> bool:
    """Return whether a location is the address of an MLflow server."""
    return location.startswith(("http://", "https://"))


@contextmanager
def locked_store(path: Path, patience: float = PATIENCE, lock_patience: float = LOCK_PATIENCE) -> Iterator[None]:
    """Keep other writers out of MLflow's SQLite file; the lock goes with the process that holds it, however it ends.

    Args:
        path: the file; `open_store` makes it.
        patience: seconds to wait for another program that has the file locked.
        lock_patience: seconds to wait for another writer of ours.

    Raises:
        UserError: for whatever MLflow, SQLAlchemy or SQLite raised inside.
    """
    quiet_mlflow()
    import mlflow.store.model_registry.sqlalchemy_store  # noqa: F401  # takes seconds: before others have to wait

    with _lock_file(path) as file:
        deadline = time.monotonic() + lock_patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise database_error("locked", path) from None
                time.sleep(_STEP)
        with _told(path):
            _probe(path, patience)
            yield


def open_store(path: Path, patience: float = PATIENCE) -> Any:
    """Return MLflow's store of models in a file, with all tables; to be called inside `locked_store`."""
    # Without a row in it nothing is lost, whether its making came to its end or not.
    if not has_rows(path, patience):
        _make(path, patience)
    return _store_at(path, patience)


def store_uri(path: Path, patience: float = PATIENCE) -> str:
    """Return MLflow's address of a SQLite file."""
    return f"sqlite:///{path.resolve()}?timeout={patience:g}"


def is_unmade(path: Path, patience: float = PATIENCE) -> bool:
    """Return whether there is no registry yet: no file, an empty one, or one whose making was ended midway.

    Raises:
        UserError: it is a file of another kind, or can't be read.
    """
    if not path.is_file() or not path.stat().st_size:
        return True
    with _looking(path, patience) as database:
        return not _tables(database) >= {"registered_models", "model_versions", "registered_model_aliases"}


def has_rows(path: Path, patience: float = PATIENCE) -> bool:
    """Return whether there is a database with anything in it that would be lost with it.

    Raises:
        UserError: it is a file of another kind, or can't be read.
    """
    if not path.is_file() or not path.stat().st_size:
        return False
    with _looking(path, patience) as database:
        kept = _tables(database) - {"alembic_version"}
        return any(database.execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone() for table in sorted(kept))


@contextmanager
def sqlite_errors(path: Path) -> Iterator[None]:
    """Tell SQLite's errors in words.

    Raises:
        UserError: for whatever SQLite raised inside.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise database_error(str(error), path) from error


def database_error(message: str, path: Path) -> UserError:
    """Return the error for what SQLite, or MLflow on top of it, says of the file."""
    known = (
        ("locked", "Another program has locked the registry.", "stop that program, or try again later"),
        ("disk is full", "The disk is full: the registry is unchanged.", "free some space and run the command again"),
        ("readonly", "The registry can't be written.", "make the folder and its files writable"),
        ("unable to open", "The registry can't be opened.", "check the folder's permissions"),
        (
            "no such table",
            "The registry lacks required tables.",
            "use the MLflow that created it, or a backup",
        ),
        ("not a database", "The registry's file is damaged: it is not a database.", "restore it from a backup"),
        ("malformed", "The registry's file is damaged.", "restore it from a backup"),
        ("out-of-date", "The registry was made by an older MLflow.", f"mlflow db upgrade sqlite:///{path}"),
        ("Can't locate revision", "The registry was made by a newer MLflow.", "pip install --upgrade mlflow-skinny"),
    )
    for words, problem, fix in known:
        if words in message:
            return UserError(problem, where=str(path), fix=fix)
    return UserError(f"The registry failed: {message.splitlines()[0]}", where=str(path))


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


@contextmanager
def _looking(path: Path, patience: float) -> Iterator[sqlite3.Connection]:
    """Give the database; where a writer was ended in the middle of a change, opening it so takes that back."""
    address = f"{path.resolve().as_uri()}?mode=rw"
    with sqlite_errors(path), closing(sqlite3.connect(address, uri=True, timeout=patience)) as database:
        yield database


def _tables(database: sqlite3.Connection) -> set[str]:
    return {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _probe(path: Path, patience: float) -> None:
    """Find a locked, damaged or read-only file before MLflow meets it: MLflow tries for minutes, and tells less."""
    if path.is_file() and path.stat().st_size:
        with sqlite_errors(path), closing(sqlite3.connect(path, timeout=patience)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.rollback()


def _make(path: Path, patience: float) -> None:
    """Make the file with its tables: aside, and under its name when it is whole.

    It takes MLflow many steps, after each of which the process may be ended; it can't go on from where it was.
    """
    for left in path.parent.glob(f".{path.name}.*.tmp*"):  # of processes that were ended
        left.unlink(missing_ok=True)
    with atomic_path(path) as temporary:
        _store_at(temporary, patience).engine.dispose()
        for end in ("-journal", "-wal", "-shm"):  # an unfinished file's, which would be played into the new one
            path.with_name(path.name + end).unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Tell MLflow's and SQLAlchemy's errors in words."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("mlflow", "sqlalchemy"):
            raise
        raise database_error(str(error), path) from error


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
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(store_uri(path, patience))
