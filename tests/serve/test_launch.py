"""`eyas serve` as it is really started: a process with its workers, asked over REST and gRPC, and told to end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx2 as httpx
import numpy as np
import pytest
from tests.serve.bundles import write_bundle
from tests.serve.fake import encoded
from tests.serve.started import Started, started

from eyas.errors import UserError
from eyas.serve import launch
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.launch import greeting, serve
from eyas.serve.server import Addresses
from eyas.serve.server_settings import ServerSettings


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "colours")


@pytest.fixture
def server(bundle: Path, tmp_path: Path) -> Iterator[Started]:
    """A server of the bundle."""
    with started(tmp_path, f"colours={bundle}", "--workers", "1", "--threads", "1") as found:
        yield found


def test_a_bundle_is_served_and_the_end_is_clean(server: Started) -> None:
    process, rest, plain = server.process, server.address("REST"), server.address("gRPC")
    blue = np.zeros((40, 80, 3), np.uint8)
    blue[..., 2] = 200
    kind = {"content-type": "image/png"}  # conf: the grey padding around the image looks a little red
    asked = httpx.post(f"{rest}/v1/detect?conf=0.4", content=encoded(blue), headers=kind, timeout=60)
    assert [each["class"] for each in asked.json()["detections"]] == ["blue"]
    message = pb.ModelInferRequest(model_name="colours")
    message.inputs.add(name="images", datatype="UINT8", shape=[1, *blue.shape])
    message.raw_input_contents.append(blue.tobytes())
    message.parameters["confidence"].double_param = 0.4
    with grpc.insecure_channel(plain) as channel:
        method = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            pb.ModelInferRequest.SerializeToString,
            pb.ModelInferResponse.FromString,
        )
        answer = method(message, timeout=60)
    found = {output.name: raw for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}
    assert np.frombuffer(found["labels"], "<i8").tolist() == [1]
    box = np.frombuffer(found["boxes"], "<f4").tolist()
    assert box == pytest.approx(asked.json()["detections"][0]["box"], abs=0.01)
    drawn = httpx.post(
        f"{rest}/v1/detect", content=encoded(blue), headers={"content-type": "image/png", "accept": "image/jpeg"}
    )
    assert drawn.content[:2] == b"\xff\xd8"
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert process.stdout is not None and "have been answered" in process.stdout.read()


def test_what_is_no_bundle_is_told_before_anything_listens(tmp_path: Path) -> None:
    settings = ServerSettings(port=0, grpc_port=None)
    with pytest.raises(UserError):
        serve([str(tmp_path)], settings, EngineSettings(in_process=True))
    with pytest.raises(UserError, match="nothing to serve"):
        serve([], settings, EngineSettings(in_process=True))


def test_a_damaged_bundle_ends_the_start(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "damaged")
    (folder / "model.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match="can't be loaded"):
        serve([str(folder)], ServerSettings(port=0, grpc_port=None), EngineSettings(in_process=True))


def test_a_warning_for_a_server_that_everybody_reaches(bundle: Path) -> None:
    said: list[str] = []
    settings = ServerSettings(host="0.0.0.0", port=0, grpc_port=None)
    serve([str(bundle)], settings, EngineSettings(in_process=True), say=said.append, seconds=0.0)
    assert any(line.startswith("warning: anyone") for line in said)


@pytest.mark.parametrize(
    ("host", "hosts", "expected"),
    [
        ("127.0.0.1", set(), "127.0.0.1:8000"),
        ("0.0.0.0", set(), "127.0.0.1:8000"),
        ("::", set(), "[::1]:8000"),
        ("0:0::0", set(), "[::1]:8000"),
        ("", set(), "127.0.0.1:8000"),
        ("0.0.0.0", {"eyas.example", "127.0.0.1"}, "127.0.0.1:8000"),
        ("0.0.0.0", {"eyas.example"}, "eyas.example:8000"),
        ("eyas.example", set(), "eyas.example:8000"),
        ("192.0.2.7", set(), "192.0.2.7:8000"),
    ],
)
def test_the_address_that_is_told_can_be_opened(host: str, hosts: set[str], expected: str) -> None:
    settings = ServerSettings(host=host, hosts=frozenset(hosts))
    addresses = Addresses(*(f"{host}:{port}" for port in (8000, 8001, 9000, 9001)))
    lines = greeting(settings, addresses, [])
    told = "\n".join(lines)
    name = expected.rpartition(":")[0]
    assert f"  REST   http://{expected}  " in told and f"http://{expected}/v1/detect" in told
    assert f"  gRPC   {name}:8001  " in told and f"http://{name}:9000" in told and f"{name}:9001" in told
    assert "0.0.0.0" not in told and "[::]" not in told and "//:" not in told


def test_other_machines_are_told_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "outer_address", lambda version_6: "[2001:db8::7]" if version_6 else "192.0.2.7")
    lines = greeting(ServerSettings(host="::"), Addresses("[::]:8000"), [])
    assert "From other machines:  http://[2001:db8::7]:8000" in lines
    assert not [
        line for line in greeting(ServerSettings(), Addresses("127.0.0.1:8000"), []) if "other machines" in line
    ]


def test_a_server_on_all_addresses_answers_at_the_one_that_it_tells(bundle: Path, tmp_path: Path) -> None:
    with started(tmp_path, f"colours={bundle}", "--workers", "1", "--threads", "1", "--host", "0.0.0.0") as server:
        assert httpx.get(server.address("REST") + "/livez", timeout=60).status_code == 200
