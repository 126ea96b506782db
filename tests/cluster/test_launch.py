"""Joining a cluster: an address where nobody listens is told at once, before Ray is even looked for."""

from __future__ import annotations

import socket

import pytest

from eyas.cluster.launch import connect
from eyas.errors import UserError


def test_an_address_where_nobody_listens_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")  # what it sets is undone with this
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match="can be reached") as error:
            connect()
    assert address in str(error.value)
