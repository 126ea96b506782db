"""A real cluster of nodes on this machine: it grows under load, and loses a node without losing a request."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.meta.source import ROOT
from tests.serve.bundles import jpeg, write_bundle

from eyas.cli.main import main as command

# What may happen to a request without a time of its own: an answer, or a refusal for load before it is accepted.
DECLARED = {"200", "429"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles and an image."""
    pytest.importorskip("ray.serve", reason="pip install 'eyas[cluster]'")
    folder = tmp_path_factory.mktemp("cluster")
    # Large networks: few requests a second are a load then, and the cores do not spend their time on sending them.
    write_bundle(folder / "shapes", size=2048)
    write_bundle(folder / "next", size=2048, scale=0.5)
    write_bundle(folder / "other", scale=0.5)
    (folder / "image.jpg").write_bytes(jpeg(200, 100, 480, 640))
    return folder


def drive(folder: Path, *words: str) -> dict[str, Any]:
    """Return what happened on the cluster; a minute or two of two cores."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster.drive_cluster", str(folder), *words],
        cwd=ROOT,
        env=environment | {"PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    """What happened on a cluster that grew to two replicas and lost the node of one."""
    return drive(folder)


@pytest.fixture(scope="module")
def report_of_all_lost(folder: Path) -> dict[str, Any]:
    """What happened on a cluster that lost the node of both its replicas."""
    return drive(folder, "all")


def test_the_cluster_asks_for_its_token(report: dict[str, Any]) -> None:
    assert report["open_to_all"] is False


def test_rest_and_grpc_give_the_models_answer(report: dict[str, Any]) -> None:
    red, blue = report["scores"]["rest"]  # the image covers three quarters of the frame, the margin is grey
    assert [red, blue] == pytest.approx([(0.75 * each + 0.25 * 114) / 255 for each in (200, 100)], abs=0.02)
    assert report["scores"]["grpc"] == pytest.approx([red, blue], abs=1e-4)


def test_replicas_with_room_for_one_model_serve_two(report: dict[str, Any]) -> None:
    assert report["other"] == ["200"] * 4


def test_little_load_needs_one_replica(report: dict[str, Any]) -> None:
    assert set(report["calm"]["outcomes"]) == {"200"} and report["calm"]["replicas"] == 1


def test_replicas_are_added_under_load(report: dict[str, Any]) -> None:
    assert report["scaled_up_after"] >= 0.0
    assert set(report["scaling"]["outcomes"]) <= DECLARED, report["scaling"]


def check_nothing_was_lost(report: dict[str, Any]) -> None:
    killed = report["node_killed"]
    assert set(killed["outcomes"]) <= DECLARED and killed["outcomes"]["200"] > 0, killed["failed"]
    assert report["restored_after"] >= 0.0


def test_no_accepted_request_is_lost_with_a_node(report: dict[str, Any]) -> None:
    check_nothing_was_lost(report)


def test_no_accepted_request_is_lost_with_the_node_of_all_replicas(report_of_all_lost: dict[str, Any]) -> None:
    check_nothing_was_lost(report_of_all_lost)


def test_a_version_takes_anothers_place_under_load_and_new_replicas_know(report_of_all_lost: dict[str, Any]) -> None:
    flipped = report_of_all_lost["flipped"]
    assert set(flipped["outcomes"]) <= DECLARED and set(flipped["versions"]) == {"1", "2"}, flipped
    assert set(report_of_all_lost["node_killed"]["versions"]) == {"2"}


def test_no_accepted_request_is_lost_at_the_end(report: dict[str, Any]) -> None:
    # The port refuses connections once it is closed; a connection that was taken is answered, the last ones with 503.
    assert set(report["ended"]) <= DECLARED | {"503", "refused"} and report["ended"]["200"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replicas", "many"], "MIN:MAX"),
        (["--replicas", "3:2"], "not a range"),
        (["--replica-models", "0"], "at least 1"),
        (["--admin-port", "9000"], "admin"),
    ],
)
def test_the_command_refuses_what_means_nothing(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["serve", str(write_bundle(tmp_path / "shapes")), "--on", "ray", *options]) == 2
    assert words in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_told_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{taken.getsockname()[1]}")
        monkeypatch.setenv("RAY_AUTH_MODE", "token")  # what the command sets is undone with this
        monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        assert command(["serve", str(write_bundle(tmp_path / "shapes")), "--on", "ray"]) == 2
    assert "RAY_ADDRESS=127.0.0.1" in capsys.readouterr().err
