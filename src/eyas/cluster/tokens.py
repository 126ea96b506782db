"""Whether a Ray cluster lets in only those who know its token: who reaches one that does not can run code on it."""

from __future__ import annotations

import os
from typing import Any

import grpc

from eyas.errors import UserError

MODE = "RAY_AUTH_MODE"
# No token; or no answer to a call without TLS, since Ray's TLS asks each client for a certificate.
CLOSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE)


def ask_for_tokens() -> None:
    """Have Ray ask for its token, unless the environment says otherwise. To be called before Ray is imported."""
    os.environ.setdefault(MODE, "token")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def check_tokens(address: str) -> None:
    """Refuse a cluster that lets anybody in.

    Args:
        address: host and port of its control service.

    Raises:
        UserError: it answers without a token, and the environment does not say that this is meant.
    """
    if os.environ.get(MODE) == "disabled" or not open_to_all(address):
        return
    raise UserError(
        "The Ray cluster has no authentication: anyone who reaches it can run programs on it.",
        where=address,
        fix=f"start each of its nodes with {MODE}=token, or set {MODE}=disabled to serve on it anyway",
    )


def open_to_all(address: str) -> bool:
    """Return whether the control service answers a call without a token."""
    with grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetAllNodeInfo")
        try:
            call(b"", timeout=10.0)
        except grpc.RpcError as error:
            return error.code() not in CLOSED
    return True
