"""A server for tests of the load generator: it speaks HTTP/1.1 and does what a test tells it to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answer = Callable[[bytes], Awaitable[bytes]]  # body -> the raw answer; b"" closes the connection


@dataclass
class Stub:
    """A running stub: its URL, and what it has seen."""

    url: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


def answer(status: int = 200, body: bytes = b"{}", extra: str = "") -> bytes:
    """Return a raw answer."""
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{extra}\r\n".encode() + body


@asynccontextmanager
async def stub_server(reply: Answer) -> AsyncIterator[Stub]:
    """Serve on a free port of this machine."""
    stub = Stub()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stub.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                found = re.search(rb"Content-Length: (\d+)", head)
                assert found is not None
                body = await reader.readexactly(int(found[1]))
                stub.requests.append(head + body)
                raw = await reply(body)
                if not raw:
                    return
                writer.write(raw)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/detect"
    try:
        yield stub
    finally:
        server.close()


async def fine(_body: bytes) -> bytes:
    """Answer 200."""
    return answer()
