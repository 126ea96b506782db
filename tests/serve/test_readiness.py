"""Readiness of `eyas serve` as it is really started, by every way to ask for it: false until all models are warm."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx2 as httpx
import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.gated import Gated, gated
from tests.serve.processes import wait_until

from eyas.serve.grpc.protocol import health_pb2 as health
from eyas.serve.grpc.protocol import inference_pb2 as pb

HEALTH, OIP = "grpc.health.v1.Health", "inference.GRPCInferenceService"
SERVING, NOT_SERVING = health.HealthCheckResponse.SERVING, health.HealthCheckResponse.NOT_SERVING


class Asker:
    """A server's process, and every way to ask whether it is ready."""

    def __init__(self, server: Gated, channel: grpc.Channel) -> None:
        self.server, self.rest, self._channel = server, server.rest, channel

    def call(self, service: str, method: str, message: Any, answer: Any) -> Any:
        """Call a gRPC method."""
        made = self._channel.unary_unary(f"/{service}/{method}", type(message).SerializeToString, answer.FromString)
        return made(message, timeout=60)

    def health(self, name: str) -> int:
        """Return gRPC's health of a service or a model."""
        asked = health.HealthCheckRequest(service=name)
        return int(self.call(HEALTH, "Check", asked, health.HealthCheckResponse).status)

    def watched(self) -> Iterator[int]:
        """Yield the server's health whenever it changes."""
        asked = health.HealthCheckRequest()
        watch = self._channel.unary_stream(
            f"/{HEALTH}/Watch", health.HealthCheckRequest.SerializeToString, health.HealthCheckResponse.FromString
        )
        for each in watch(asked, timeout=60):
            yield each.status

    def ready(self) -> bool:
        """Return whether the server is ready, after asking everywhere; the answers must agree."""
        answers = {
            "readyz": httpx.get(f"{self.rest}/readyz").status_code == 200,
            "oip": httpx.get(f"{self.rest}/v2/health/ready").status_code == 200,
            "grpc": self.call(OIP, "ServerReady", pb.ServerReadyRequest(), pb.ServerReadyResponse).ready,
            "health": self.health("") == SERVING,
            "service": self.health(OIP) == SERVING,
            "metric": "\neyas_ready 1.0\n" in httpx.get(f"{self.rest}/metrics").text,
        }
        assert len(set(answers.values())) == 1, answers
        return answers["readyz"]

    def model_ready(self, name: str) -> bool:
        """Return whether a model is ready; the answers must agree."""
        rest = httpx.get(f"{self.rest}/v2/models/{name}/ready").status_code == 200
        asked = self.call(OIP, "ModelReady", pb.ModelReadyRequest(name=name), pb.ModelReadyResponse).ready
        assert rest == asked == (self.health(name) == SERVING)
        return rest

    def detect(self, name: str) -> httpx.Response:
        """Ask for detections."""
        kind = {"content-type": "image/jpeg"}
        return httpx.post(f"{self.rest}/v1/detect?model={name}", content=jpeg(), headers=kind, timeout=60)


@pytest.fixture
def asker(tmp_path: Path) -> Iterator[Asker]:
    """A server of two bundles, neither of which is warm before its gate is opened."""
    bundles = [str(write_bundle(tmp_path / name)) for name in ("first", "second")]
    with (
        gated(tmp_path, [*bundles, "--workers", "1", "--threads", "1"]) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        yield Asker(server, channel)


def alive(asker: Asker) -> bool:
    """Return whether the server answers at all."""
    assert asker.server.process.poll() is None
    with contextlib.suppress(httpx.TransportError, grpc.RpcError):
        live = asker.call(OIP, "ServerLive", pb.ServerLiveRequest(), pb.ServerLiveResponse).live
        return bool(live and httpx.get(f"{asker.rest}/livez").status_code == 200)
    return False


def test_a_server_is_ready_when_all_that_it_is_to_serve_is_warm(asker: Asker) -> None:
    assert wait_until(lambda: alive(asker)), "it listens before it is warm, so that it can say that it is not"
    assert wait_until(lambda: httpx.get(f"{asker.rest}/v2/models/first/ready").status_code == 503)
    assert not asker.ready() and not asker.model_ready("first")
    told = httpx.get(f"{asker.rest}/readyz")
    assert (told.status_code, told.json()["ready"], told.headers["retry-after"]) == (503, False, "1")
    refused = asker.detect("first")
    assert (refused.status_code, refused.json()["kind"], refused.headers["retry-after"]) == (503, "unavailable", "1")
    seen: list[int] = []
    watching = threading.Thread(target=lambda: seen.extend(_until_serving(asker)))
    watching.start()
    asker.server.open("first")
    assert wait_until(lambda: httpx.get(f"{asker.rest}/v2/models/first/ready").status_code == 200)
    assert asker.model_ready("first") and not asker.ready(), "the second model is not warm"
    assert asker.detect("first").status_code == 200
    asker.server.open("second")
    assert wait_until(lambda: httpx.get(f"{asker.rest}/readyz").status_code == 200)
    assert asker.ready() and asker.model_ready("second")
    assert asker.detect("second").status_code == 200
    watching.join(60)
    assert seen == [NOT_SERVING, SERVING]


def _until_serving(asker: Asker) -> Iterator[int]:
    """Yield what a watcher of the server's health sees until it serves."""
    for status in asker.watched():
        yield status
        if status == SERVING:
            return
