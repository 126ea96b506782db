"""Images decoded in a process beside this one, whose memory and computing time are bounded image by image.

AVIF, JPEG 2000, TIFF and GIF are containers for code streams of several makers. What these take can't be told from
the headers with certainty, and a crash in their libraries would be ours. The process is started when it is first
needed (a quarter of a second), and serves all threads of this one, one after another.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import subprocess
import sys
import threading
from typing import cast

import numpy as np

from eyas.child_process import exit_words
from eyas.decode_process import ANSWER, READY, REQUEST, receive, send
from eyas.errors import UserError
from eyas.opencv_limits import MAX_PIXELS, VARIABLE
from eyas.types import UInt8Array

# What an image of its size may take; the dearest valid ones, JPEG 2000 and AVIF of four channels, take half of it.
BYTES_A_PIXEL = 40
BYTES = 128 << 20
PIXELS_A_SECOND = 500_000
SECONDS = 10


class _Helper:
    """The process, our ends of its pipes, and the greatest image that its OpenCV decodes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        # It finds the same modules as this process, wherever they were found, and nothing more.
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = os.environ | {VARIABLE: str(limit), "MALLOC_ARENA_MAX": "1", "PYTHONPATH": paths}
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "eyas.decode_process"],
            bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self.requests = cast(io.RawIOBase, self.process.stdin)
        self.answers = cast(io.RawIOBase, self.process.stdout)
        if self.answers.read(len(READY)) != READY:
            raise OSError(self.end())

    def ask(self, data: bytes, pixels: int) -> UInt8Array | list[str]:
        """Return the pixels, or an error's parts.

        Raises:
            EOFError, OSError: the process has ended.
        """
        memory, seconds = BYTES + BYTES_A_PIXEL * pixels, SECONDS + pixels // PIXELS_A_SECOND
        send(self.requests, REQUEST.pack(len(data), memory, seconds), data)
        head = bytearray(ANSWER.size)
        receive(self.answers, memoryview(head))
        failed, first, second = ANSWER.unpack(head)
        if failed:
            text = bytearray(first)
            receive(self.answers, memoryview(text))
            parts: list[str] = json.loads(text)
            return parts
        image = np.empty((first, second, 3), np.uint8)
        receive(self.answers, image.data.cast("B"))
        return image

    def end(self) -> str:
        """End the process, and return how it had ended if it did so by itself."""
        self.requests.close()
        self.answers.close()
        try:
            code = self.process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return exit_words(code)


_lock = threading.Lock()
_helper: _Helper | None = None
_inherited: list[_Helper] = []  # of the process that this one was forked from: neither used nor ended here


def decode_apart(data: bytes, pixels: int) -> UInt8Array | None:
    """Return what `eyas.opencv_images.decode_by_opencv` does, from the process beside this one.

    Args:
        data: an image file's bytes.
        pixels: how many its header says; this decides what it may take.

    Raises:
        UserError: as there; or the image takes more memory or time than one of its size may, or ends the process.
    """
    with _lock:
        helper = _current(pixels)
        try:
            found = helper.ask(data, pixels)
        except (EOFError, OSError):
            raise _ended(_end()) from None
        except BaseException:  # half an answer would be taken for the next one's
            _end()
            raise
    if isinstance(found, list):
        if not found:
            return None
        problem, expected, fix = found
        raise UserError(problem, expected=expected, fix=fix)
    return found


def _current(pixels: int) -> _Helper:
    """Return the process, a new one where there is none that takes so many pixels."""
    global _helper
    if _helper is not None and (_helper.limit < pixels or _helper.process.poll() is not None):
        _end()
    if _helper is None:
        try:
            _helper = _Helper(max(pixels, MAX_PIXELS))
        except OSError as error:
            raise UserError(f"The process for decoding such images can't be started: {error}.") from None
    return _helper


def _end() -> str:
    global _helper
    helper, _helper = _helper, None
    return helper.end() if helper is not None else ""


def _ended(how: str) -> UserError:
    if how == "SIGXCPU":
        return UserError("Decoding the image takes too long for its size.")
    return UserError(f"The image is truncated or damaged: it crashed the decoding process ({how}).")


def _start_anew() -> None:
    """In a forked child: leave the parent's process to the parent."""
    global _helper, _lock
    if _helper is not None:
        _inherited.append(_helper)
    _helper, _lock = None, threading.Lock()


atexit.register(_end)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_start_anew)
