"""The gRPC services: the Open Inference Protocol, its repository extension for the admin, and gRPC's own health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from eyas.serve.api import Request
from eyas.serve.blocking import AT_ONCE
from eyas.serve.budget import Reservation
from eyas.serve.errors import ServeError
from eyas.serve.grpc.admission import CLIENT, Context, Guard, make_admission, metadata_of
from eyas.serve.grpc.calls import Methods, Streaming, Unary, handlers
from eyas.serve.grpc.codec import has_numbers, parse_request, to_message
from eyas.serve.grpc.protocol import health_pb2 as health
from eyas.serve.grpc.protocol import inference_pb2 as pb
from eyas.serve.limits import check_id
from eyas.serve.oip.detection import (
    check_load,
    find_model,
    model_metadata,
    repository_index,
    server_metadata,
    to_request,
)
from eyas.serve.service import Service, new_id, passed_on

INFERENCE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
IN_FLIGHT = 16  # requests of a stream that may wait for answers before the next is read
_STATUS = health.HealthCheckResponse


@dataclass(frozen=True)
class Inference:
    """The Open Inference Protocol's methods; each answers one message."""

    service: Service

    async def live(self, _message: pb.ServerLiveRequest, _context: Context) -> pb.ServerLiveResponse:
        """Tell that the server answers."""
        return pb.ServerLiveResponse(live=True)

    async def ready(self, _message: pb.ServerReadyRequest, _context: Context) -> pb.ServerReadyResponse:
        """Tell whether new requests are welcome."""
        return pb.ServerReadyResponse(ready=self.service.ready())

    async def model_ready(self, message: pb.ModelReadyRequest, _context: Context) -> pb.ModelReadyResponse:
        """Tell whether a model takes requests; NOT_FOUND where there is none."""
        status = find_model(self.service.engine, message.name, message.version)
        return pb.ModelReadyResponse(ready=status.state == "ready")

    async def server(self, _message: pb.ServerMetadataRequest, _context: Context) -> pb.ServerMetadataResponse:
        """Tell what server this is."""
        return pb.ServerMetadataResponse(**server_metadata())

    async def model(self, message: pb.ModelMetadataRequest, _context: Context) -> pb.ModelMetadataResponse:
        """Tell a model's tensors and versions."""
        found = model_metadata(self.service.engine, message.name, message.version)
        found.pop("parameters", None)
        return pb.ModelMetadataResponse(**found)

    async def infer(self, message: pb.ModelInferRequest, context: Context) -> pb.ModelInferResponse:
        """Detect on the images of a tensor."""
        return await self.answer(message, context, stream="")

    async def answer(self, message: pb.ModelInferRequest, context: Context, stream: str) -> pb.ModelInferResponse:
        """Answer a message that came alone, or in the stream of that id."""
        metadata = metadata_of(context)
        size = AT_ONCE * has_numbers(message)  # as objects of Python's they are much larger than in the message
        infer = await self.service.desk.read(2 * size, parse_request, message, self.service.limits)
        request = to_request(
            infer,
            model=message.model_name,
            version=message.model_version,
            request_id=new_id() if stream else _request_id(metadata),
            headers=passed_on(metadata),
            stream=stream,
        )
        answer = await self.service.detect(_within_deadline(request, context), protocol="grpc")
        return to_message(answer, infer)

    async def infer_stream(
        self, messages: AsyncIterator[pb.ModelInferRequest], context: Context
    ) -> AsyncIterator[pb.ModelStreamInferResponse]:
        """Answer each message of a stream, in their order; they are worked on at the same time.

        With a `sequence_id` only the newest of those that wait is answered; the others get an error that says so.
        """
        waiting: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None] = asyncio.Queue()
        free = asyncio.Semaphore(IN_FLIGHT)
        held = self.service.budget.hold(CLIENT)
        reader = asyncio.ensure_future(self._read(messages, context, held, waiting, free))
        try:
            while (task := await waiting.get()) is not None:
                answer = await task
                free.release()
                yield answer
            await reader  # an error of reading is the stream's
        finally:
            reader.cancel()
            rest = list(iter(lambda: None if waiting.empty() else waiting.get_nowait(), None))
            for task in rest:
                task.cancel()
            await asyncio.gather(reader, *rest, return_exceptions=True)
            held.close()

    async def _read(
        self,
        messages: AsyncIterator[pb.ModelInferRequest],
        context: Context,
        held: Reservation,
        waiting: asyncio.Queue[asyncio.Task[pb.ModelStreamInferResponse] | None],
        free: asyncio.Semaphore,
    ) -> None:
        """Begin to work on each message as it comes, up to so many at once."""
        source, stream = aiter(messages), new_id()
        try:
            while True:
                await free.acquire()
                async with asyncio.timeout(self.service.limits.idle_seconds):
                    message = await self.service.phase.unless_draining(anext(source, None))
                if message is None:
                    return
                waiting.put_nowait(asyncio.ensure_future(self._streamed(message, context, stream, held)))
        except TimeoutError:
            raise ServeError("deadline", "No request arrived on the stream for too long.") from None
        finally:
            waiting.put_nowait(None)

    async def _streamed(
        self, message: pb.ModelInferRequest, context: Context, stream: str, held: Reservation
    ) -> pb.ModelStreamInferResponse:
        """Answer a message of a stream; an error is the message's, and the stream goes on."""
        size = message.ByteSize()
        try:
            held.take(size)
        except ServeError as error:
            return _failed(message, error)
        try:
            return pb.ModelStreamInferResponse(infer_response=await self.answer(message, context, stream))
        except ServeError as error:
            return _failed(message, error)
        finally:
            held.give(size)


def _failed(message: pb.ModelInferRequest, error: ServeError) -> pb.ModelStreamInferResponse:
    failed = pb.ModelInferResponse(model_name=message.model_name, model_version=message.model_version, id=message.id)
    return pb.ModelStreamInferResponse(error_message=f"{error.kind}: {error.message}", infer_response=failed)


def _request_id(metadata: Mapping[str, str]) -> str:
    given = metadata.get("x-request-id")
    if given is None:
        return new_id()
    check_id(given)
    return given


def _within_deadline(request: Request, context: Context) -> Request:
    """Return the request with the sooner of its own timeout and the call's deadline."""
    left: float | None = context.time_remaining()
    if left is not None and left <= 0:
        raise ServeError("deadline", "The deadline has passed.")
    if left is None or (request.timeout is not None and request.timeout <= left):
        return request
    return replace(request, timeout=left if request.timeout is not None or left < 300.0 else None)


@dataclass(frozen=True)
class Repository:
    """The repository extension's methods."""

    service: Service

    async def index(self, message: pb.RepositoryIndexRequest, _context: Context) -> pb.RepositoryIndexResponse:
        """List the models."""
        found = repository_index(self.service.engine, ready=message.ready)
        return pb.RepositoryIndexResponse(models=[pb.RepositoryIndexResponse.ModelIndex(**each) for each in found])

    async def load(self, message: pb.RepositoryModelLoadRequest, _context: Context) -> pb.RepositoryModelLoadResponse:
        """Load a model that the registry knows."""
        await self.service.engine.load(*_named(message))
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, message: pb.RepositoryModelUnloadRequest, _context: Context
    ) -> pb.RepositoryModelUnloadResponse:
        """Let a model answer what it has accepted, and free it."""
        await self.service.engine.unload(*_named(message))
        return pb.RepositoryModelUnloadResponse()


def _named(message: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> tuple[str, str]:
    given = message.parameters
    version = given["version"].string_param if "version" in given else ""
    check_load(message.model_name, version, given)
    return message.model_name, version


@dataclass(frozen=True)
class Health:
    """gRPC's health service: "" and the inference service stand for the server, a model's name for that model."""

    service: Service

    async def check(self, message: health.HealthCheckRequest, _context: Context) -> health.HealthCheckResponse:
        """Tell whether requests are welcome."""
        status = self._status(message.service)
        if status == _STATUS.SERVICE_UNKNOWN:
            raise ServeError("not_found", "There is no such service.")
        return health.HealthCheckResponse(status=status)

    async def watch(
        self, message: health.HealthCheckRequest, _context: Context
    ) -> AsyncIterator[health.HealthCheckResponse]:
        """Tell it at once, and again whenever it changes."""
        last = None
        while True:
            status = self._status(message.service)
            if status != last:
                yield health.HealthCheckResponse(status=status)
                last = status
            if self.service.phase.draining:
                return
            await self.service.phase.unless_draining(asyncio.sleep(0.5))

    def _status(self, name: str) -> health.HealthCheckResponse.ServingStatus:
        if name in ("", INFERENCE):
            return _STATUS.SERVING if self.service.ready() else _STATUS.NOT_SERVING
        try:
            found = find_model(self.service.engine, name)
        except ServeError:
            return _STATUS.SERVICE_UNKNOWN
        return _STATUS.SERVING if found.state == "ready" else _STATUS.NOT_SERVING


def public_services(service: Service, guard: Guard) -> list[Methods]:
    """Return what the public port serves; health needs no key."""
    mine, probe = Inference(service), Health(service)
    unary: dict[str, Unary] = {
        "ModelReady": mine.model_ready,
        "ServerMetadata": mine.server,
        "ModelMetadata": mine.model,
        "ModelInfer": mine.infer,
    }
    streaming: dict[str, Streaming] = {"ModelStreamInfer": mine.infer_stream}
    watch: Any = probe.watch
    calls = service.limits.connections
    work = make_admission(service, guard, calls // 2)
    # Without a key, so not too many may watch.
    probes = make_admission(service, lambda _metadata: "", calls // 8, "watchers")
    return [
        handlers(pb.DESCRIPTOR, INFERENCE, {"ServerLive": mine.live, "ServerReady": mine.ready}, {}, probes),
        handlers(pb.DESCRIPTOR, INFERENCE, unary, streaming, work),
        handlers(health.DESCRIPTOR, HEALTH, {"Check": probe.check}, {"Watch": watch}, probes),
    ]


def admin_services(service: Service, guard: Guard) -> list[Methods]:
    """Return what the admin's port serves."""
    mine, repository = Inference(service), Repository(service)
    unary: dict[str, Unary] = {
        "ServerLive": mine.live,
        "ServerReady": mine.ready,
        "RepositoryIndex": repository.index,
        "RepositoryModelLoad": repository.load,
        "RepositoryModelUnload": repository.unload,
    }
    return [handlers(pb.DESCRIPTOR, INFERENCE, unary, {}, make_admission(service, guard, 1))]
