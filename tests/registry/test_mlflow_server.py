"""The registry on a real MLflow server, in an environment of its own: written, followed under load, lost and found."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.registry.test_follow import WORKERS, Load, until
from tests.serve import bundles as detecting
from tests.serve.clients.environment import python_with
from tests.serve.gated import free_port
from tests.serve.started import started

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST
from eyas.cli.main import main as command
from eyas.errors import UserError
from eyas.registry import open_registry

# What the server takes of the whole of MLflow, which is half a gigabyte more and does not go with our constraints.
NEEDED = (f"mlflow-skinny=={version('mlflow-skinny')}", "sqlalchemy", "alembic", "flask", "flask-cors", "aiohttp")
PACKAGES = (*NEEDED, "pandas", "numpy")


class Server:
    """An MLflow server that can be killed and started again with what it had."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._port = folder, free_port()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        words = ["--host", "127.0.0.1", "--port", str(self._port), "--workers", "1", "--serve-artifacts"]
        stores = ["--backend-store-uri", "sqlite:///mlflow.db", "--artifacts-destination", "./files"]
        python = str(python_with("mlflow", PACKAGES))
        with (self._folder / "log.txt").open("a") as log:
            self._process = subprocess.Popen(
                [python, "-m", "mlflow", "server", *words, *stores],
                cwd=self._folder,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(self._answers, "the server starts")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log.txt").read_text()
        with suppress(httpx.TransportError):
            return bool(httpx.get(f"{self.url}/health").status_code == 200)
        return False

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with nothing in it yet; copies of its files are kept in the test's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mlflow").mkdir()
    found = Server(tmp_path / "mlflow")
    found.start()
    yield found
    found.kill()


@pytest.fixture
def versions(tmp_path: Path) -> list[str]:
    folders = [detecting.write_bundle(tmp_path / f"v{number}", scale=1.0 / number) for number in (1, 2)]
    for folder in folders:
        Card.write(folder, "bundle", [MANIFEST, "model.onnx"], version="0", created="2026-01-01T00:00:00+00:00")
    return [str(folder) for folder in folders]


def test_it_is_filled_followed_lost_and_found(
    server: Server, versions: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = ["--registry", server.url]
    for folder in versions:
        assert command(["registry", "add", folder, "--name", "cars", *place]) == 0
    assert command(["registry", "promote", "cars", "1", *place]) == 0
    assert "View run" not in capfd.readouterr().out
    registry = open_registry(server.url)
    registry._writer.add_model("somebody's")  # type: ignore[attr-defined]
    assert [model.name for model in registry.list()] == ["cars", "somebody's"]
    with started(tmp_path, *place, "--model", "cars@champion", *WORKERS) as eyas:
        with Load(url := eyas.address("REST")) as load:
            for wanted in "21":
                registry.promote("cars", wanted)
                until(lambda wanted=wanted: load.answers[-1:] == [(200, wanted)], f"version {wanted} is served")
            server.kill()
            until(lambda: not httpx.get(f"{url}/readyz").json()["registry"]["readable"], "the loss is told")
            count = len(load.answers)
            until(lambda: len(load.answers) > count + 5, "it serves on")
            server.start()
            registry.promote("cars", "2")
            until(lambda: load.answers[-1:] == [(200, "2")], "what was promoted after the server came back is served")
            assert registry.rollback("cars").key.version == "1"
            until(lambda: load.answers[-1:] == [(200, "1")], "the rollback is served")
        assert {status for status, _ in load.answers} == {200}
        assert eyas.errors.read_text().count("can't be read") == 1, "told once"
        eyas.process.send_signal(signal.SIGTERM)
        assert eyas.process.wait(60) == 0


def test_a_server_that_is_not_there_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"server can't do this.*[Cc]onnection") as found:
        open_registry(f"http://127.0.0.1:{free_port()}").list()
    assert " at 0x" not in str(found.value)
