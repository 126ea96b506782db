"""OpenCV kept within bounds: its own limit on an image's size, and its libraries' lines off the terminal.

`eyas/__init__.py` calls `bound_opencv` before anything of Eyas can load OpenCV, which reads its limit only while it is
loaded. So a decoder that finds another size in a file than we do refuses it by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator

MAX_PIXELS = 178_956_970  # 512 MiB of RGB, the size from which Pillow refuses too
VARIABLE = "OPENCV_IO_MAX_IMAGE_PIXELS"
_OWN_LIMIT = 1 << 30  # what OpenCV allows where nobody says anything

_lock = threading.Lock()
_silent = 0  # how many threads want C's stderr to be silent now
_kept: int | None = None  # C's stderr meanwhile


def bound_opencv() -> None:
    """Set OpenCV's limit unless the user has set one, or has loaded OpenCV before us: then it is too late.

    FFmpeg inside of it is told to be silent.
    """
    if "cv2" not in sys.modules:
        os.environ.setdefault(VARIABLE, str(MAX_PIXELS))
    # FFmpeg's own lines about a broken video, which we tell of in ours; read when the first one is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")


def opencv_limit() -> int:
    """Return how many pixels the OpenCV of this process decodes; where it was loaded before us, its usual limit."""
    try:
        return int(os.environ.get(VARIABLE, _OWN_LIMIT))
    except ValueError:  # OpenCV knows suffixes as MB
        return MAX_PIXELS


@contextlib.contextmanager
def quiet_library() -> Iterator[None]:
    """Keep what C libraries print to C's `stderr` off the terminal meanwhile.

    libpng prints there and offers OpenCV's callers no other way. The descriptor is left alone, so Python's
    `sys.stderr`, C++'s streams and crash reports go on as before, in all threads. Where C's `stderr` can't be
    exchanged (anywhere but in glibc), nothing is done.
    """
    global _silent, _kept
    if _null is None or _stderr is None:
        yield
        return
    with _lock:
        if not _silent:
            _kept, _stderr.value = _stderr.value, _null
        _silent += 1
    try:
        yield
    finally:
        with _lock:
            _silent -= 1
            if not _silent:
                _stderr.value = _kept


def _c_stderr() -> tuple[ctypes.c_void_p | None, int | None]:
    """Return glibc's variable `stderr`, and a stream that leads nowhere to put there; None where it is another libc."""
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        return None, None
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    return ctypes.c_void_p.in_dll(libc, "stderr"), libc.fopen(os.devnull.encode(), b"w")


_stderr, _null = _c_stderr()
