"""The end of `eyas serve` while it is still warming up: in order, with what was accepted answered and nothing left."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2 as httpx
import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.gated import Gated, free_port, gated
from tests.serve.processes import children, state, wait_until

KIND = {"content-type": "image/jpeg"}
NUM = 3


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Gated]:
    """A server whose first model serves, whose second one warms up, and whose third one waits for its turn."""
    bundles = [str(write_bundle(tmp_path / name)) for name in ("first", "second", "third")]
    with gated(tmp_path, [*bundles, "--workers", "1", "--threads", "1", "--slo", "60000"]) as found:
        found.open("first")
        assert wait_until(lambda: answers(found, "first"))
        assert wait_until(lambda: len(children(found.process.pid)) == 2), "the second model's worker starts"
        yield found


def answers(server: Gated, name: str) -> bool:
    """Return whether a model is ready."""
    with contextlib.suppress(httpx.TransportError):
        return bool(httpx.get(f"{server.rest}/v2/models/{name}/ready").status_code == 200)
    return False


def detect(server: Gated) -> httpx.Response:
    """Ask the first model."""
    return httpx.post(f"{server.rest}/v1/detect?model=first", content=jpeg(), headers=KIND, timeout=60)


def in_flight(server: Gated) -> int:
    """Return how many requests the server has accepted and not answered."""
    lines = httpx.get(f"{server.rest}/metrics").text.splitlines()
    return sum(round(float(line.split()[-1])) for line in lines if line.startswith("eyas_requests_in_flight "))


@contextlib.contextmanager
def asked(server: Gated) -> Iterator[list[Future[httpx.Response]]]:
    """Let requests be accepted, none of which is answered while the gate holds them."""
    server.open("hold")
    with ThreadPoolExecutor(NUM) as pool:
        found = [pool.submit(detect, server) for _ in range(NUM)]
        try:
            assert wait_until(lambda: in_flight(server) == NUM)
            yield found
        finally:
            server.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_accepted_during_the_warm_up_is_answered(server: Gated, number: signal.Signals) -> None:
    workers = children(server.process.pid)
    with asked(server) as requests:
        server.process.send_signal(number)
        assert wait_until(lambda: not answers(server, "first")), "no new requests are welcome"
        assert server.process.poll() is None and not any(request.done() for request in requests)
        server.release()
        assert [request.result().status_code for request in requests] == [200] * NUM
    assert server.process.wait(60) == 0
    assert server.process.stdout is not None
    assert server.process.stdout.read() == "Stopped: all accepted requests have been answered.\n"
    assert [state(worker) for worker in workers] == ["", ""], "no worker is left, the half-started one included"


def test_a_second_signal_ends_at_once(server: Gated) -> None:
    workers = children(server.process.pid)
    with asked(server) as requests:
        server.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: not answers(server, "first"))
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert (server.gate / "hold").exists() and len(requests) == NUM
        for request in requests:
            with contextlib.suppress(httpx.TransportError):
                assert request.result().status_code == 503
    assert [state(worker) for worker in workers] == ["", ""]


def test_a_registry_that_never_answers_does_not_hold_up_the_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        place = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = ["--registry", place, "--port", str(free_port()), "--no-grpc"]
        process = subprocess.Popen([sys.executable, "-m", "eyas", "serve", *words], stdout=subprocess.PIPE, text=True)
        try:
            silent.settimeout(60)
            connection, _ = silent.accept()  # it asks, and gets no answer
            with connection:
                process.send_signal(signal.SIGTERM)
                assert process.wait(30) == 0, "it does not wait as long as MLflow does"
        finally:
            process.kill()
            process.communicate()
