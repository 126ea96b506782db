"""`/v1/stream`: video frames over a WebSocket; what is not answered in time is passed over for what is newer.

Each binary message is a frame, an image file. For each comes one JSON message, in the frames' order, with its number
from 0: {"frame": 3, "height": ..., "detections": [...]}, or {"frame": 2, "dropped": true} for a frame that a newer one
has overtaken, or {"frame": 4, "error": ..., "kind": ...}.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from eyas.serve import jsons
from eyas.serve.api import Request
from eyas.serve.budget import Held
from eyas.serve.errors import ServeError
from eyas.serve.http.middleware import context_of
from eyas.serve.http.responses import answer_document, refuse
from eyas.serve.request_options import from_query
from eyas.serve.service import Service, passed_on

IN_FLIGHT = 8  # frames of a stream that may wait for answers; a client that sends more loses them at once
BAD_DATA, POLICY, TOO_BIG, AWAY, LATER = 1003, 1008, 1009, 1001, 1013


@dataclass(frozen=True)
class Stream:
    """The handler."""

    service: Service

    async def handle(self, socket: WebSocket) -> None:
        """Serve one stream until the client ends it, is silent for too long, or the server drains."""
        try:
            asked = from_query(socket.query_params.multi_items())
        except ServeError as error:  # before it is accepted, so that the words can be read
            await refuse(error, socket.scope, socket.receive, socket.send)
            return
        context = context_of(socket.scope)
        base = Request(
            id=context.id,
            model=asked.model,
            version=asked.version,
            images=(),
            options=asked.options,
            timeout=asked.timeout,
            lane="stream",
            stream=context.id,
            headers=passed_on(context.headers),
        )
        await socket.accept()
        answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | None] = asyncio.Queue()
        sender = asyncio.ensure_future(_send(socket, answers))
        try:
            await self._receive(socket, base, answers, sender, context.held)
        finally:
            answers.put_nowait(None)
            await _finish(sender, answers)

    async def _receive(
        self,
        socket: WebSocket,
        base: Request,
        answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | None],
        sender: asyncio.Future[None],
        held: Held,
    ) -> None:
        """Hand each frame to the engine as it comes."""
        number = 0
        while not sender.done():
            if self.service.phase.draining:
                await socket.close(AWAY, "The server is going away.")
                return
            try:
                async with asyncio.timeout(self.service.limits.idle_seconds):
                    message = await self.service.phase.unless_draining(socket.receive())
            except TimeoutError:
                await socket.close(POLICY, "No frame came for too long.")
                return
            if message is None:
                continue
            if message["type"] == "websocket.disconnect":
                return
            frame = message.get("bytes")
            if not frame:
                await socket.close(BAD_DATA, "A frame is a binary message: a JPEG, PNG or WebP file.")
                return
            if len(frame) > self.service.limits.body:
                await socket.close(TOO_BIG, "The frame is too large.")
                return
            request = replace(base, id=f"{base.id[:100]}.{number}", images=(frame,))
            full = answers.qsize() >= IN_FLIGHT
            try:
                held.take(len(frame))
            except ServeError as error:
                await socket.close(LATER, error.message[:100])
                return
            answers.put_nowait(asyncio.ensure_future(self._frame(number, request, full, held)))
            number += 1

    async def _frame(self, number: int, request: Request, full: bool, held: Held) -> dict[str, Any]:
        """Return the message about a frame, and hold its bytes until then."""
        try:
            if full:
                return {"frame": number, "dropped": True}
            answer = await self.service.detect(request, protocol="websocket")
        except ServeError as error:
            if error.kind == "cancelled":
                return {"frame": number, "dropped": True}
            return {"frame": number, "error": error.message, "kind": error.kind}
        finally:
            held.give(sum(map(len, request.images)))
        return {"frame": number} | answer_document(answer)


async def _send(socket: WebSocket, answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | None]) -> None:
    """Send the messages in the frames' order."""
    while (task := await answers.get()) is not None:
        text = jsons.dump(await task).decode()
        if socket.application_state is not WebSocketState.CONNECTED:
            return
        try:
            await socket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):  # the client went away meanwhile
            return


async def _finish(sender: asyncio.Future[None], answers: asyncio.Queue[asyncio.Task[dict[str, Any]] | None]) -> None:
    """Cancel what nobody will read any more."""
    sender.cancel()
    waiting = [sender]
    while not answers.empty():
        task = answers.get_nowait()
        if task is not None:
            task.cancel()
            waiting.append(task)  # type: ignore[arg-type]
    await asyncio.gather(*waiting, return_exceptions=True)
