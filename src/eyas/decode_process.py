"""The process that decodes for `eyas.decode_apart`: `python -m eyas.decode_process`. It ends when its parent does.

It reads requests from its standard input and answers on its standard output. For each one it may take as much more
memory, and as much computing time, as the request says.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import sys

import cv2

from eyas.child_process import limit_memory
from eyas.errors import UserError
from eyas.opencv_images import decode_by_opencv
from eyas.types import UInt8Array

READY = b"R"  # sent once, when requests are taken
REQUEST = struct.Struct(">QQQ")  # bytes of the file that follows, bytes of memory, seconds
ANSWER = struct.Struct(">BQQ")  # 0: height, width of the pixels that follow; 1: length of JSON [problem, expected, fix]


def main() -> None:
    """Answer requests until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, whose end ends us
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whatever a library prints is no answer
    cv2.setNumThreads(1)
    source = sys.stdin.buffer
    send(answers, READY)
    while head := source.read(REQUEST.size):
        length, memory, seconds = REQUEST.unpack(head)
        limit_memory(memory + length, seconds)
        data = source.read(length)
        result = _decode(data, memory)
        del data
        if isinstance(result, list):
            text = json.dumps(result).encode()
            send(answers, ANSWER.pack(1, len(text), 0), text)
        else:
            send(answers, ANSWER.pack(0, *result.shape[:2]), result.data.cast("B"))


def send(pipe: io.RawIOBase, *parts: bytes | memoryview) -> None:
    """Write everything to an unbuffered pipe."""
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[pipe.write(rest) or 0 :]


def receive(pipe: io.RawIOBase, room: memoryview) -> None:
    """Fill the memory from an unbuffered pipe.

    Raises:
        EOFError: it ended before.
    """
    while room:
        got = pipe.readinto(room)
        if not got:
            raise EOFError
        room = room[got:]


def _decode(data: bytes, memory: int) -> UInt8Array | list[str]:
    """Return the pixels, or an error's parts; none where it is no image."""
    try:
        pixels = decode_by_opencv(data)
    except UserError as error:
        return [error.problem, error.expected or "", error.fix or ""]
    except MemoryError:
        return [f"Decoding the image needs more than {memory / 1e6:.0f} MB of memory.", "", ""]
    return [] if pixels is None else pixels


if __name__ == "__main__":
    main()
