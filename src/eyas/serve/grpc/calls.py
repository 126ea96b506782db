"""What surrounds every gRPC call: keys, refusals as statuses, the deadline, and the wiring of methods to messages."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from eyas.serve.errors import ServeError, crashed
from eyas.serve.limits import check_id
from eyas.serve.service import new_id

_LOG = logging.getLogger("eyas.serve")
Guard = Callable[[Mapping[str, str]], str]  # metadata -> client's name; raises ServeError
Context = grpc.aio.ServicerContext[Any, Any]
Unary = Callable[[Any, Context], Awaitable[Any]]
Methods = tuple[str, dict[str, "grpc.RpcMethodHandler[Any, Any]"]]  # a service's full name, method -> what answers it
Streaming = Callable[[AsyncIterator[Any], Context], AsyncIterator[Any]]


class Room:
    """So many calls may be under way at once, of all clients together.

    Streams have a room of their own, so that who opens many and is silent on them keeps no other call out. gRPC's own
    limit (`maximum_concurrent_rpcs`) is not used, since it knows no such difference.

    Args:
        most: the number.
        what: what they are called in a refusal.
    """

    def __init__(self, most: int, what: str = "calls") -> None:
        self._most = max(1, most)
        self._what = what
        self._open = 0

    def __enter__(self) -> None:
        """Take a place.

        Raises:
            ServeError: there is none.
        """
        if self._open >= self._most:
            words = f"{self._most} {self._what} are under way: as many as there may be."
            raise ServeError("overloaded", words, retry_after=1.0)
        self._open += 1

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self._open -= 1


@dataclass(frozen=True)
class Rooms:
    """How many calls, and how many streams, may be under way."""

    calls: Room
    streams: Room


def metadata_of(context: Context) -> dict[str, str]:
    """Return the client's metadata, texts only; of a name that is repeated the first counts."""
    found: dict[str, str] = {}
    for name, value in context.invocation_metadata() or ():
        if isinstance(value, str):
            found.setdefault(name.lower(), value)
    return found


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
    await context.abort(grpc.StatusCode[error.wire.grpc], error.message, tuple(trailing))


def handlers(
    file: FileDescriptor,
    service: str,
    unary: Mapping[str, Unary],
    streaming: Mapping[str, Streaming],
    guard: Guard,
    rooms: Rooms,
) -> Methods:
    """Return the handlers of a service's methods.

    Args:
        file: where its messages are.
        service: its full name.
        unary: method -> what answers one message with one.
        streaming: method -> what answers a stream with a stream.
        guard: lets a client in, or raises.
        rooms: how many calls may be under way.
    """
    descriptor = file.services_by_name[service.rpartition(".")[2]]
    found: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for name, call in unary.items():
        kind = GetMessageClass(descriptor.methods_by_name[name].input_type)
        handle_one = _guarded(call, guard, kind, rooms.calls)
        found[name] = grpc.unary_unary_rpc_method_handler(handle_one, response_serializer=_serialized)
    for name, stream in streaming.items():
        method = descriptor.methods_by_name[name]
        many = method.client_streaming
        make = grpc.stream_stream_rpc_method_handler if many else grpc.unary_stream_rpc_method_handler
        handle = _guarded_stream(stream, guard, GetMessageClass(method.input_type), many, rooms.streams)
        found[name] = make(handle, response_serializer=_serialized)
    return service, found


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _parsed(kind: type[Message], data: bytes) -> Message:
    """Return the message in the bytes; parsed only now, after the client was let in, and with a proper refusal."""
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ServeError("invalid", "The message is malformed.") from None


async def _all_parsed(kind: type[Message], messages: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in messages:
        yield _parsed(kind, data)


def _guarded(call: Unary, guard: Guard, kind: type[Message], room: Room) -> Unary:
    async def handle(data: Any, context: Context) -> Any:
        try:
            guard(metadata_of(context))
            with room:
                return await call(_parsed(kind, data), context)
        except ServeError as error:
            await refuse(error, context)
        except grpc.aio.AbortError:
            raise
        except Exception:
            _LOG.exception("a gRPC call failed")
            await refuse(crashed(), context)

    return handle


def _guarded_stream(call: Streaming, guard: Guard, kind: type[Message], many: bool, room: Room) -> Streaming:
    async def handle(messages: Any, context: Context) -> AsyncIterator[Any]:
        try:
            guard(metadata_of(context))
            source: Any = _all_parsed(kind, messages) if many else _parsed(kind, messages)
            with room:
                async for answer in call(source, context):
                    yield answer
        except ServeError as error:
            await refuse(error, context)

    return handle
