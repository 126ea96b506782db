"""`/v1/stream`: video frames over a WebSocket; what is not answered in time is passed over for what is newer.

Each binary message is a frame, an image file. For each comes one JSON message, in the frames' order, with its number
from 0: {"frame": 3, "height": ..., "detections": [...]}, or {"frame": 2, "dropped": true} for a frame that a newer one
has overtaken, or {"frame": 4, "error": ..., "kind": ...}.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from eyas.serve import jsons
from eyas.serve.api import Request
from eyas.serve.errors import ServeError
from eyas.serve.http.middleware import context_of
from eyas.serve.http.responses import answer_document, refuse
from eyas.serve.request_options import from_query
from eyas.serve.service import Service, passed_on

IN_FLIGHT = 8  # frames of a stream that may wait for answers; a client that sends more loses them at once
BAD_DATA, POLICY, TOO_BIG, AWAY, LATER = 1003, 1008, 1009, 1001, 1013


class Stream:
    """One stream: its frames are handed on as they come, and what becomes of each is sent in their order."""

    def __init__(self, service: Service, socket: WebSocket, base: Request) -> None:
        self._service, self._socket, self._base = service, socket, base
        self._held = context_of(socket.scope).held
        self._answers: asyncio.Queue[asyncio.Task[dict[str, Any]]] = asyncio.Queue()

    @classmethod
    async def handle(cls, service: Service, socket: WebSocket) -> None:
        """Serve a stream until the client ends it, is silent for too long, or the server drains."""
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
        await cls(service, socket, base)._run()

    async def _run(self) -> None:
        sender = asyncio.ensure_future(self._send())
        try:
            closing = await self._receive(sender)
            if closing is not None:
                await self._socket.close(*closing)
        finally:  # what nobody will read any more is not worked on
            left = [sender, *(self._answers.get_nowait() for _ in range(self._answers.qsize()))]
            for task in left:
                task.cancel()
            await asyncio.wait(left)

    async def _receive(self, sender: asyncio.Future[None]) -> tuple[int, str] | None:
        """Hand each frame to the engine as it comes; return what to close with, None where the client has gone."""
        limits, phase = self._service.limits, self._service.phase
        number = 0
        while not sender.done():
            if phase.draining:
                return AWAY, "The server is shutting down."
            try:
                async with asyncio.timeout(limits.idle_seconds):
                    message = await phase.unless_draining(self._socket.receive())
            except TimeoutError:
                return POLICY, "No frame arrived for too long."
            if message is None:
                continue
            if message["type"] == "websocket.disconnect":
                return None
            frame = message.get("bytes")
            if not frame:
                return BAD_DATA, "A frame must be a binary message: a JPEG, PNG or WebP file."
            if len(frame) > limits.body:
                return TOO_BIG, "The frame is too large."
            try:
                self._held.take(len(frame))
            except ServeError as error:
                return LATER, error.message[:100]
            full = self._answers.qsize() >= IN_FLIGHT
            self._answers.put_nowait(asyncio.ensure_future(self._frame(number, frame, full)))
            number += 1
        return None

    async def _frame(self, number: int, frame: bytes, full: bool) -> dict[str, Any]:
        """Return the message about a frame, and hold its bytes until then."""
        request = replace(self._base, id=f"{self._base.id[:100]}.{number}", images=(frame,))
        try:
            if full:
                return {"frame": number, "dropped": True}
            answer = await self._service.detect(request, protocol="websocket")
        except ServeError as error:
            if error.kind == "cancelled":
                return {"frame": number, "dropped": True}
            return {"frame": number, "error": error.message, "kind": error.kind}
        finally:
            self._held.give(len(frame))
        return {"frame": number} | answer_document(answer)

    async def _send(self) -> None:
        while True:
            text = jsons.dump(await (await self._answers.get())).decode()
            if self._socket.application_state is not WebSocketState.CONNECTED:
                return
            try:
                await self._socket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):  # the client went away meanwhile
                return
