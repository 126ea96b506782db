"""Starting gRPC servers on the running event loop, with limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from eyas.errors import UserError
from eyas.serve.limits import Limits

_SLACK = 64 * 1024  # a message is a little larger than the pictures in it
_BURST = 16_384  # calls that may wait to be looked at; each holds its headers only


def make_server(
    handlers: Sequence[Any], address: str, limits: Limits, credentials: grpc.ServerCredentials | None = None
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is bound, not started, and its port.

    Args:
        handlers: the services.
        address: host and port; port 0 takes a free one.
        limits: sizes and numbers.
        credentials: for TLS; None for none.

    Raises:
        UserError: the address can't be bound.
    """
    options = [
        ("grpc.max_receive_message_length", limits.body + _SLACK),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.headers),
        ("grpc.absolute_max_metadata_size", limits.headers),
        ("grpc.max_concurrent_streams", limits.connections),
        # What comes in one burst waits until Python refuses it in words; gRPC tells those beyond it "cancelled".
        ("grpc.server.max_pending_requests", _BURST),
        ("grpc.server.max_pending_requests_hard_limit", 2 * _BURST),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.so_reuseport", 0),  # two servers on one port would each get a part of the requests
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers(tuple(handlers))
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        port = 0
        cause = str(error)
    else:
        cause = ""
    if not port:
        raise UserError(f"gRPC can't listen at {address}. {cause}".strip(), fix="choose another --grpc-port")
    return server, port
