"""Starting gRPC servers on the running event loop, with limits, and without a fault of gRPC's own.

From its 1.84 on grpcio decodes the path of a call to an unknown method in the loop that accepts all calls: one that is
no UTF-8 ends that loop, the server, and every call under way. So our methods are registered with gRPC's core, which
compares bytes, and calls to all others are refused here, without a look at their path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined]

from eyas.errors import UserError
from eyas.serve.grpc.calls import Methods
from eyas.serve.limits import Limits

_SLACK = 64 * 1024  # a message is a little larger than the images in it
_BURST = 16_384  # calls that may wait to be looked at; each holds its headers only


class _AioServer(cygrpc.AioServer):  # type: ignore[misc]
    """gRPC's own, but that it never decodes the path of a method that is not registered."""

    def _make_request_call_future(self, method: bytes | None) -> asyncio.Future[Any]:
        """Return what will be the next call of a registered method; None stands for the others, which never come."""
        if method is None:
            return asyncio.ensure_future(self._refuse_unknown())
        future: asyncio.Future[Any] = super()._make_request_call_future(method)
        return future

    async def _refuse_unknown(self) -> None:
        """Refuse calls until the server ends, which raises; one whose client is slow to hear it holds up no other."""
        refusals: set[asyncio.Task[None]] = set()
        while True:
            task = asyncio.create_task(_refuse(await self._request_call()))
            refusals.add(task)
            task.add_done_callback(refusals.discard)


async def _refuse(call: Any) -> None:
    context = cygrpc._ServicerContext(call, None, None, asyncio.get_running_loop())
    with contextlib.suppress(grpc.aio.AbortError, cygrpc.ExecuteBatchError):  # the latter: the client has gone
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "There is no such method.")


def _server(options: list[tuple[str, int]]) -> grpc.aio.Server:
    """Return a server as gRPC makes it, of our class: what that class is made with differs between its versions."""
    cygrpc.AioServer = _AioServer
    try:
        return grpc.aio.server(options=options)
    finally:
        cygrpc.AioServer = _AioServer.__base__


def make_server(
    services: Sequence[Methods],
    address: str,
    limits: Limits,
    credentials: grpc.ServerCredentials | None = None,
) -> tuple[grpc.aio.Server, int]:
    """Return a server that is bound, not started, and its port; port 0 of the address takes a free one.

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
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
        ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
        ("grpc.keepalive_time_ms", int(limits.idle_seconds * 1000)),  # a client that vanished holds no stream for long
        ("grpc.so_reuseport", 0),  # two servers on one port would each get a part of the requests
    ]
    server = _server(options)
    for service, methods in services:
        server.add_registered_method_handlers(service, methods)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))  # before 1.84
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
        raise UserError(f"gRPC can't listen on {address}. {cause}".strip(), fix="choose another --grpc-port")
    return server, port
