"""From a message's bytes to the message; how many values it holds is read off its bytes before protobuf makes them."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from eyas.serve.blocking import AT_ONCE, Desk
from eyas.serve.errors import ServeError

LIGHT = 16 * 2**10  # bytes of a message that is parsed at once, whatever they are
FEW, MANY = 256, 64 * 2**10  # fields, and packed numbers, of a message that is parsed at once
MOST_FIELDS, MOST_PACKED = 64 * 2**10, 8 * 2**20  # of any message
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_FIXED = {FieldDescriptor.TYPE_FLOAT: 4, FieldDescriptor.TYPE_DOUBLE: 8}


class TooMany(Exception):
    """A message has more fields than were to be looked at."""


def count_fields(kind: Any, data: bytes, most: int) -> tuple[int, int]:
    """Return how many fields the message has, those of messages in it too, and how many packed numbers beside them.

    Args:
        kind: the message's descriptor, whichever implementation of protobuf it is of.
        data: its bytes.
        most: most fields that are looked at.

    Raises:
        TooMany: there are more.
        ServeError: the bytes are no message.
    """
    fields = packed = 0
    parts = [(kind, 0, len(data))]
    while parts:
        message, at, end = parts.pop()
        while at < end:
            fields += 1
            if fields > most:
                raise TooMany
            tag, at = _varint(data, at, end)
            wire, field = tag & 7, message.fields_by_number.get(tag >> 3)
            if wire == _VARINT:
                _, at = _varint(data, at, end)
            elif wire == _BYTES:
                size, at = _varint(data, at, end)
                if size > end - at:
                    raise ServeError("invalid", "The message is malformed.")
                if field is not None and field.message_type is not None:
                    parts.append((field.message_type, at, at + size))
                elif field is not None and field.cpp_type != FieldDescriptor.CPPTYPE_STRING:
                    packed += size // _FIXED.get(field.type, 1)
                at += size
            elif wire in (_EIGHT, _FOUR):
                at += 8 if wire == _EIGHT else 4
            else:  # a group, which no message of ours has
                raise ServeError("invalid", "The message is malformed.")
    return fields, packed


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise ServeError("invalid", "The message is malformed.")


async def parsed(kind: type[Message], data: bytes, desk: Desk) -> Message:
    """Return the message in the bytes; parsed only now, after the client was let in, and with a proper refusal.

    Raises:
        ServeError: there is no such message in them, or it has too many parts.
    """
    if len(data) <= LIGHT or _is_light(kind, data, FEW, MANY):
        return _parse(kind, data)
    return await desk.read(len(data) + AT_ONCE, _weighed, kind, data)


def _weighed(kind: type[Message], data: bytes) -> Message:
    if not _is_light(kind, data, MOST_FIELDS, MOST_PACKED):
        words = f"The message has more than {MOST_FIELDS} fields, or {MOST_PACKED} numbers."
        raise ServeError("too_large", words)
    return _parse(kind, data)


def _is_light(kind: type[Message], data: bytes, fields: int, packed: int) -> bool:
    try:
        return count_fields(kind.DESCRIPTOR, data, fields)[1] <= packed
    except TooMany:
        return False


def _parse(kind: type[Message], data: bytes) -> Message:
    try:
        return kind.FromString(data)
    except DecodeError:
        raise ServeError("invalid", "The message is malformed.") from None
