"""A real server in a thread of its own, for clients that block."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from eyas.serve.api import Engine
from eyas.serve.server import Addresses, Server
from eyas.serve.server_settings import ServerSettings

SETTINGS = ServerSettings(port=0, grpc_port=0, grace=5.0)


class Running:
    """A started server: its addresses, and a way to call something in its event loop."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self._loop = server, loop
        self.addresses: Addresses = server.addresses

    @property
    def url(self) -> str:
        """Where REST is."""
        return f"http://{self.addresses.rest}"

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return what the function, or the coroutine that it makes, returns in the server's loop."""

        async def run() -> Any:
            found = function(*args)
            return await found if asyncio.iscoroutine(found) else found

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(120)


@contextlib.contextmanager
def running(make: Callable[[], Engine], **settings: Any) -> Iterator[Running]:
    """Serve the engine that `make` makes in the server's loop, until the block ends."""
    started: list[Running] = []
    failed: list[BaseException] = []
    ready, stop = threading.Event(), asyncio.Event()

    async def main() -> None:
        try:
            server = Server(make(), replace(SETTINGS, **settings))
            await server.start()
        except BaseException as error:
            failed.append(error)
            ready.set()
            return
        started.append(Running(server, asyncio.get_running_loop()))
        ready.set()
        await stop.wait()
        await server.stop()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    ready.wait()
    if failed:
        thread.join()
        raise failed[0]
    try:
        yield started[0]
    finally:
        with contextlib.suppress(RuntimeError):
            started[0]._loop.call_soon_threadsafe(stop.set)
        thread.join(120)
        assert not thread.is_alive(), "the server did not end"
