"""MLflow: in the SQLite file of the model registry, or wherever MLFLOW_TRACKING_URI says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.mlflow_store import DATABASE, is_server, location_of, locked_store, open_store, quiet_mlflow, store_uri
from eyas.training.loggers.base import Destination, LoggedRow, RunInfo, Status

EXPERIMENT = "eyas"
FILES = "runs"  # beside the SQLite file: what belongs to runs
_METRICS, _ENTRIES = 1000, 100  # that MLflow takes at once
_LONGEST = 5000  # characters of a value that every MLflow takes
_LONGEST_DIGEST = 36
_STATUS: Mapping[Status, str] = MappingProxyType({"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"})


class MlflowLogger:
    """Writes a run with MLflow's client; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME are heeded."""

    def __init__(self) -> None:
        self._client: Any = None
        self._id = ""

    def start(self, run: RunInfo, known: Destination | None) -> tuple[Destination, bool]:
        """Begin the run, or go on with it; see `RunLogger.start`."""
        uri, files = tracking_store()
        quiet_mlflow()
        from mlflow import MlflowClient

        self._client = MlflowClient(tracking_uri=uri)
        anew = known is None or not self._has(known.id)
        if anew or known is None:
            created = self._client.create_run(
                self._experiment(files), start_time=round(run.started * 1000), run_name=run.name
            )
            self._id = created.info.run_id
        else:
            self._id = known.id
            self._client.update_run(self._id, status="RUNNING")
        return Destination(self._id, uri.partition("?")[0]), anew

    def describe(self, run: RunInfo) -> None:
        """Write the recipe as parameters, the datasets as inputs, the facts as tags; what is there already stays."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        for part in _parts((Param(name, str(value)[:_LONGEST]) for name, value in run.recipe.items()), _ENTRIES):
            self._client.log_batch(self._id, params=part)
        inputs = []
        for parent in run.parents:
            if parent["kind"] == "dataset":
                source = json.dumps({"uri": parent["path"]})
                data = Dataset(Path(parent["path"]).name, parent["sha256"][:_LONGEST_DIGEST], "local", source)
                inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", parent.get("split", ""))]))
        self._client.log_inputs(self._id, inputs)
        for part in _parts((RunTag(name, value[:_LONGEST]) for name, value in run.facts.items()), _ENTRIES):
            self._client.log_batch(self._id, tags=part)

    def metrics(self, rows: Sequence[LoggedRow]) -> None:
        """Write numbers; those that are there already, of the same time, stay as they are."""
        from mlflow.entities import Metric

        numbers = (
            Metric(name, value, round(row.time * 1000), row.step) for row in rows for name, value in row.values.items()
        )
        for part in _parts(numbers, _METRICS):
            self._client.log_batch(self._id, metrics=part)

    def image(self, name: str, path: Path, step: int, time: float) -> None:
        """Keep the image among the run's files, below `images`."""
        self._client.log_artifact(self._id, str(path), "images")

    def artifacts(self, paths: Sequence[Path]) -> None:
        """Keep the files below `run`."""
        for path in paths:
            self._client.log_artifact(self._id, str(path), "run")

    def finish(self, status: Status, time: float) -> None:
        """Set the run's status and its end."""
        self._client.set_terminated(self._id, _STATUS[status], round(time * 1000))

    def close(self) -> None:
        """Do nothing: each call was a request of its own."""

    def _has(self, run_id: str) -> bool:
        """Return whether the run is there and was not deleted."""
        from mlflow.exceptions import MlflowException

        try:
            return bool(self._client.get_run(run_id).info.lifecycle_stage == "active")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False

    def _experiment(self, files: str | None) -> str:
        """Return the id of the experiment, made if it is new; another run may make it this very moment."""
        from mlflow.exceptions import MlflowException

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        if found := self._client.get_experiment_by_name(name):
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artifact_location=files))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            return str(self._client.get_experiment_by_name(name).experiment_id)


def tracking_store() -> tuple[str, str | None]:
    """Return MLflow's address of where runs are kept, and of where their files go, None where that place decides.

    A local SQLite file gets its tables here, as the registry makes them.
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri, None
    location = location_of()
    if is_server(location):
        return location, None
    database = Path(location) / DATABASE
    with locked_store(database):
        open_store(database).engine.dispose()
    return store_uri(database), (database.parent / FILES).resolve().as_uri()


def _parts(values: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while part := list(islice(values, size)):
        yield part
