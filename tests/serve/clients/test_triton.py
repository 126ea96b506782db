"""The real tritonclient, HTTP and gRPC, finds here what it finds at a Triton; bad requests are told better."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.serve.clients.environment import clients_python
from tests.serve.fake import FakeEngine, encoded
from tests.serve.running import running

DRIVER = Path(__file__).with_name("drive_triton.py")
TOKEN = "a token of the admin's"
ONE = {"boxes": [[[8, 4, 40, 24]]], "labels": [[0]], "num_detections": [1]}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    python = clients_python()
    image = tmp_path_factory.mktemp("image") / "a.png"
    image.write_bytes(encoded())
    with running(FakeEngine, admin_port=0, admin_grpc_port=0, admin_token=TOKEN) as server:
        at = server.addresses
        words = [str(python), str(DRIVER), at.rest, at.grpc, at.admin, at.admin_grpc, TOKEN, str(image)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_client_finds_a_server(found: Any, protocol: str) -> None:
    got = found[protocol]
    assert got["live"] and got["ready"] and got["model_ready"] == [True, True]
    assert got["server"]["name"] == "eyas"
    assert got["model"]["name"] == "shapes" and got["model"]["inputs"][0]["name"] == "images"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_pixels_and_files_are_answered(found: Any, protocol: str) -> None:
    got = found[protocol]
    assert {name: got["uint8"][name] for name in ONE} == ONE
    assert got["uint8"]["scores"][0][0] == pytest.approx(0.9)
    assert got["bytes"]["boxes"] == ONE["boxes"] * 2 and got["bytes"]["num_detections"] == [1, 1]
    assert [output["name"] for output in got["chosen"]["outputs"]] == ["labels"]
    assert got["strict"] == [0]


def test_json_and_asynchronous_calls_give_the_same(found: Any) -> None:
    assert found["http"]["json"] == found["http"]["uint8"] == found["http"]["async"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("case", "http", "grpc"),
    [
        ("unknown", "404", "StatusCode.NOT_FOUND"),
        ("wrong_input", "400", "StatusCode.INVALID_ARGUMENT"),
        ("wrong_type", "400", "StatusCode.INVALID_ARGUMENT"),
        ("wrong_output", "400", "StatusCode.INVALID_ARGUMENT"),
        ("repository", "404", "StatusCode.UNIMPLEMENTED"),
    ],
)
def test_refusals_reach_the_client_with_words(found: Any, protocol: str, case: str, http: str, grpc: str) -> None:
    status, message = found[protocol][case]
    assert status == (http if protocol == "http" else grpc) and len(message) > 10


def test_a_stream_answers_each_request(found: Any) -> None:
    assert found["stream"] == [["0", [1]], "error", ["2", [1]]]


@pytest.mark.parametrize("protocol", ["admin_http", "admin_grpc"])
def test_the_admin_unloads_and_loads(found: Any, protocol: str) -> None:
    got = found[protocol]
    assert got["denied"][0] in ("401", "StatusCode.UNAUTHENTICATED")
    rows = {name: got[name] if protocol == "admin_http" else got[name]["models"] for name in ("unloaded", "loaded")}
    assert {row["state"] for row in rows["unloaded"]} == {"UNAVAILABLE"}
    assert {row["state"] for row in rows["loaded"]} == {"READY"}
    assert got["gone"][0] == "StatusCode.NOT_FOUND"
