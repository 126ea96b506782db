"""What surrounds every gRPC call: keys, refusals as statuses, the deadline, and the wiring of methods to messages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from operator import methodcaller
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from eyas.serve.errors import ServeError, crashed
from eyas.serve.grpc.admission import CLIENT, Admission, Context
from eyas.serve.grpc.parsing import parsed

_LOG = logging.getLogger("eyas.serve")
_SERIALIZE = methodcaller("SerializeToString")
Unary = Callable[[Any, Context], Awaitable[Any]]
Methods = tuple[str, dict[str, "grpc.RpcMethodHandler[Any, Any]"]]  # a service's full name, method -> what answers it
Streaming = Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]


async def refuse(error: Exception, context: Context) -> None:
    """End the call with the status of a refusal, or of a fault of ours; raises what ends it."""
    if not isinstance(error, ServeError):
        _LOG.error("a gRPC call failed", exc_info=error)
        error = crashed()
    trailing = []
    if error.wire.retry:
        trailing.append(("retry-after", str(max(1, round(error.retry_after or 1.0)))))
    with contextlib.suppress(grpc.aio.InternalError):  # the client has gone
        await context.abort(grpc.StatusCode[error.wire.grpc], error.message, tuple(trailing))


def handlers(
    file: FileDescriptor,
    service: str,
    unary: Mapping[str, Unary],
    streaming: Mapping[str, Streaming],
    admission: Admission,
) -> Methods:
    """Return the handlers of a service's methods: those that answer one message, and those that answer a stream.

    To gRPC all are streams: it never ends a call of one message whose client sends none, or only the half of it.
    """
    descriptor = file.services_by_name[service.rpartition(".")[2]]
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, call in unary.items():
        kind = GetMessageClass(descriptor.methods_by_name[name].input_type)
        handle_one = _guarded(call, admission, kind)
        found[name] = grpc.stream_unary_rpc_method_handler(handle_one, response_serializer=_SERIALIZE)
    for name, stream in streaming.items():
        method = descriptor.methods_by_name[name]
        handle = _guarded_stream(stream, admission, GetMessageClass(method.input_type), method.client_streaming)
        found[name] = grpc.stream_stream_rpc_method_handler(handle, response_serializer=_SERIALIZE)
    return service, found


def _guarded(call: Unary, admission: Admission, kind: type[Message]) -> Unary:
    service = admission.service

    async def handle(_messages: Any, context: Context) -> Any:
        try:
            admission.check(context)
            with contextlib.closing(service.budget.hold(CLIENT)) as held:
                data = await admission.arrivals.message(context)
                held.take(len(data))
                message = await parsed(kind, data, service.desk)
                admission.calls.take(context)
                return await call(message, context)
        except grpc.aio.BaseError:  # the call has ended
            raise
        except Exception as error:
            await refuse(error, context)

    return handle


def _guarded_stream(call: Streaming, admission: Admission, kind: type[Message], many: bool) -> Streaming:
    desk = admission.service.desk

    async def all_parsed(messages: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        source = aiter(messages)
        while (data := await admission.streams.hear(anext(source, None))) is not None:
            yield await parsed(kind, data, desk)

    async def handle(messages: Any, context: Context) -> AsyncIterator[Any]:
        try:
            admission.check(context)
            source: Any
            if many:
                source = all_parsed(messages)
            else:
                source = await parsed(kind, await admission.arrivals.message(context), desk)
            admission.streams.take(context)
            async for answer in call(source, context):
                yield answer
        except grpc.aio.BaseError:
            raise
        except Exception as error:
            await refuse(error, context)

    return handle
