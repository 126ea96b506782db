"""Writing the registry's records: by MLflow, into its SQLite file or to its server. The first write loads MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from eyas.mlflow_store import LOCK_PATIENCE, PATIENCE, locked_store, open_store, quiet_mlflow
from eyas.registry.artifacts import Artifacts
from eyas.registry.base import Version
from eyas.registry.record_reader import server_errors

EXPERIMENT = "eyas-bundles"  # on a server: holds the runs that the bundles' files hang on
_FOLDER = "bundle"


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
        self, path: Path, artifacts: Artifacts, patience: float = PATIENCE, lock_patience: float = LOCK_PATIENCE
    ) -> None:
        self._path = path
        self._artifacts = artifacts
        self._patience = patience
        self._lock_patience = lock_patience
        self._store: Any = None

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out; the lock goes with the process that holds it, however that ends."""
        with locked_store(self._path, self._patience, self._lock_patience):
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

    def _opened(self) -> Any:
        if self._store is None:
            self._store = open_store(self._path, self._patience)
        return self._store


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
