"""A cluster that lets anyone in is found out by knocking, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from eyas.cluster import tokens
from eyas.errors import UserError


@contextmanager
def control_service(status: grpc.StatusCode) -> Iterator[str]:
    """Run something that answers like Ray's control service; yield its address."""

    def answer(_message: bytes, context: grpc.ServicerContext) -> bytes:
        if status is not grpc.StatusCode.OK:
            context.abort(status, "no")
        return b""

    handlers = {"GetAllNodeInfo": grpc.unary_unary_rpc_method_handler(answer)}
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("ray.rpc.NodeInfoGcsService", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(0)


def test_a_cluster_that_asks_for_its_token_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tokens.MODE, "token")
    with control_service(grpc.StatusCode.UNAUTHENTICATED) as address:
        tokens.check_tokens(address)


@pytest.mark.parametrize("status", [grpc.StatusCode.OK, grpc.StatusCode.UNIMPLEMENTED])
def test_one_that_answers_anyone_is_refused(monkeypatch: pytest.MonkeyPatch, status: grpc.StatusCode) -> None:
    monkeypatch.setenv(tokens.MODE, "token")
    with control_service(status) as address:
        with pytest.raises(UserError, match="has no authentication") as error:
            tokens.check_tokens(address)
        assert "RAY_AUTH_MODE=token" in str(error.value)
        monkeypatch.setenv(tokens.MODE, "disabled")  # said on purpose
        tokens.check_tokens(address)


def test_tokens_are_on_unless_the_environment_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv(tokens.MODE, "")  # so that it is as before when the test has ended
    monkeypatch.delenv(tokens.MODE)
    tokens.ask_for_tokens()
    assert tokens.os.environ[tokens.MODE] == "token"
    monkeypatch.setenv(tokens.MODE, "disabled")
    tokens.ask_for_tokens()
    assert tokens.os.environ[tokens.MODE] == "disabled"
