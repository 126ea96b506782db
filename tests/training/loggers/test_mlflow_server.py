"""A run on a real MLflow server that is not there yet, that is lost in the middle and comes back, and that hangs."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from tests.registry.test_mlflow_server import Server
from tests.training.loggers import runs
from tests.training.loggers.readers import read_mlflow
from tests.training.loggers.test_loggers import check_series, place_of

from eyas.cli.main import main
from eyas.training.tracked import status_of
from eyas.training.tracking import FILES, Sync, reason


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server that was not started yet, where MLflow's own variable says."""
    (tmp_path / "mlflow").mkdir()
    found = Server(tmp_path / "mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.url)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    yield found
    found.kill()


def test_it_is_away_lost_and_found(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = runs.begin(tmp_path / "first")
    runs.train(folder, range(1, 2))
    sync = Sync("mlflow", folder)
    with pytest.raises(MlflowException) as caught:
        sync.send()
    assert "\n" not in reason(caught.value) and "0x" not in reason(caught.value)
    server.start()
    sync.send()
    server.kill()
    runs.train(folder, range(2, 3))
    with pytest.raises(MlflowException):
        sync.send()
    sync.close()  # as the process's end does
    runs.end(folder)
    assert main(["track", str(folder), "--logger", "mlflow"]) == 1
    assert "mlflow is missing data" in capfd.readouterr().err
    server.start()
    assert main(["track", str(folder)]) == 0
    found = read_mlflow(folder, place_of("mlflow", folder))
    check_series(found, 2)
    assert found.runs == 1 and found.status == "FINISHED" and found.files == set(FILES)
    assert place_of("mlflow", folder).where == server.url


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs.begin(tmp_path / "first")
    runs.end(folder)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Exception, match=r"timed out|timeout"):
            Sync("mlflow", folder).send(status_of(folder))
