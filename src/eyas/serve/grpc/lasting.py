"""A gRPC server that lasts: when gRPC's own ends by itself, another takes its place at the same port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import grpc

from eyas.errors import UserError
from eyas.serve.grpc.server import make_server
from eyas.serve.limits import Limits

_LOG = logging.getLogger("eyas.serve")
_PAUSE = 0.02  # seconds until a port that is still taken is tried again


class LastingServer:
    """Serves until it is stopped.

    gRPC for asyncio decodes the path of a call in the loop that accepts all calls: a path that is no UTF-8 ends that
    loop, and with it the server, for everybody. Calls that were under way then are cancelled, and may be sent again.

    Args:
        handlers: the services.
        address: host and port; port 0 takes a free one.
        limits: sizes and numbers.
        credentials: for TLS; None for none.

    Attributes:
        revived: how often another server took the place of one that had ended.
    """

    def __init__(
        self, handlers: Sequence[Any], address: str, limits: Limits, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self._handlers, self._limits, self._credentials = handlers, limits, credentials
        self._host = address.rpartition(":")[0]
        self._server, self.port = make_server(handlers, address, limits, credentials)
        self._watch: asyncio.Task[None] | None = None
        self.revived = 0

    async def start(self) -> None:
        """Serve from now on."""
        await self._server.start()
        self._watch = asyncio.ensure_future(self._last())

    async def stop(self, grace: float) -> None:
        """Accept no more, and return when what was accepted is answered, or so many seconds later."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        with contextlib.suppress(UnicodeDecodeError):  # it has just ended
            await self._server.stop(grace)

    async def _last(self) -> None:
        """Put another server in the place of each that ends."""
        while True:
            with contextlib.suppress(UnicodeDecodeError):
                await self._server.wait_for_termination()
            _LOG.error("gRPC's server ended by itself, as after a call with a malformed path; another takes its place")
            await self._replace()
            self.revived += 1

    async def _replace(self) -> None:
        """Start another server at the same port, as soon as that is free."""
        while True:
            try:
                self._server, _ = make_server(
                    self._handlers, f"{self._host}:{self.port}", self._limits, self._credentials
                )
            except UserError:
                await asyncio.sleep(_PAUSE)
            else:
                await self._server.start()
                return
