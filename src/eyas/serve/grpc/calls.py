"""What surrounds every gRPC call: keys, refusals as statuses, the deadline, and the wiring of methods to messages."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from eyas.serve.errors import ServeError, crashed
from eyas.serve.grpc.admission import CLIENT, Context, Door
from eyas.serve.grpc.parsing import parsed
from eyas.serve.limits import check_id
from eyas.serve.service import new_id

_LOG = logging.getLogger("eyas.serve")
Unary = Callable[[Any, Context], Awaitable[Any]]
Methods = tuple[str, dict[str, "grpc.RpcMethodHandler[Any, Any]"]]  # a service's full name, method -> what answers it
Streaming = Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]


def request_id(metadata: Mapping[str, str]) -> str:
    """Return the client's request id, or a new one."""
    given = metadata.get("x-request-id")
    if given is None:
        return new_id()
    check_id(given)
    return given


def time_left(context: Context) -> float | None:
    """Return the seconds until the client's deadline, None where it set none.

    Raises:
        ServeError: it has passed.
    """
    left: float | None = context.time_remaining()
    if left is None:
        return None
    if left <= 0:
        raise ServeError("deadline", "The deadline has passed.")
    return float(left)


async def refuse(error: ServeError, context: Context) -> None:
    """End the call with the error's status; raises what ends it."""
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
    door: Door,
) -> Methods:
    """Return the handlers of a service's methods.

    Args:
        file: where its messages are.
        service: its full name.
        unary: method -> what answers one message with one.
        streaming: method -> what answers a stream with a stream.
        door: who may come in.

    To gRPC all are streams: it never ends a call of one message whose client sends none, or only the half of it.
    """
    descriptor = file.services_by_name[service.rpartition(".")[2]]
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, call in unary.items():
        kind = GetMessageClass(descriptor.methods_by_name[name].input_type)
        handle_one = _guarded(call, door, kind)
        found[name] = grpc.stream_unary_rpc_method_handler(handle_one, response_serializer=_serialized)
    for name, stream in streaming.items():
        method = descriptor.methods_by_name[name]
        handle = _guarded_stream(stream, door, GetMessageClass(method.input_type), method.client_streaming)
        found[name] = grpc.stream_stream_rpc_method_handler(handle, response_serializer=_serialized)
    return service, found


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


async def _all_parsed(kind: type[Message], messages: AsyncIterator[bytes], door: Door) -> AsyncIterator[Message]:
    source = aiter(messages)
    while (data := await door.streams.hear(anext(source, None))) is not None:
        yield await parsed(kind, data, door.desk)


def _guarded(call: Unary, door: Door, kind: type[Message]) -> Unary:
    async def handle(_messages: Any, context: Context) -> Any:
        try:
            door.open(context)
            with door.budget.hold(CLIENT) as held:
                data = await door.arrivals.message(context)
                held.take(len(data))
                message = await parsed(kind, data, door.desk)
                door.calls.take(context)
                return await call(message, context)
        except ServeError as error:
            await refuse(error, context)
        except grpc.aio.BaseError:  # the call has ended
            raise
        except Exception:
            _LOG.exception("a gRPC call failed")
            await refuse(crashed(), context)

    return handle


def _guarded_stream(call: Streaming, door: Door, kind: type[Message], many: bool) -> Streaming:
    async def handle(messages: Any, context: Context) -> AsyncIterator[Any]:
        try:
            door.open(context)
            source: Any
            if many:
                source = _all_parsed(kind, messages, door)
            else:
                source = await parsed(kind, await door.arrivals.message(context), door.desk)
            door.streams.take(context)
            async for answer in call(source, context):
                yield answer
        except ServeError as error:
            await refuse(error, context)
        except grpc.aio.BaseError:
            raise
        except Exception:
            _LOG.exception("a gRPC stream failed")
            await refuse(crashed(), context)

    return handle
