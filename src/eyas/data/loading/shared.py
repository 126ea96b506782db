"""Memory without a name that this process and the loader's workers share: images, the index and the caches lie in it.

It is gone when the last process that holds it is gone, however that ended. On Linux it is a memfd, for which the size
of /dev/shm is no limit; elsewhere a deleted temporary file.
"""

from __future__ import annotations

import errno
import io
import math
import mmap
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from eyas.types import UInt8Array

ALIGNMENT = 64


class SharedBlock:
    """A piece of shared memory that is appended to, and then only read.

    Args:
        descriptor: an open file of it, which the block owns; new memory if None.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = new_memory() if descriptor is None else descriptor
        self.nbytes = os.fstat(self.descriptor).st_size

    def append(self, data: memoryview | bytes) -> int:
        """Write bytes, or a contiguous array, at the end and return where they begin (a multiple of 64)."""
        start = -(-self.nbytes // ALIGNMENT) * ALIGNMENT
        size = memoryview(data).nbytes
        if not size:
            return self.nbytes
        write_at(self.descriptor, data, start)
        self.nbytes = start + size
        return start

    def read_only(self) -> UInt8Array:
        """Return all that was written, uint8 [nbytes]; the pages are those of the block."""
        return self._mapped(mmap.ACCESS_READ)

    def private(self) -> UInt8Array:
        """Return all that was written, uint8 [nbytes]: a page becomes this process's own when it is written to."""
        return self._mapped(mmap.ACCESS_COPY)

    def _mapped(self, access: int) -> UInt8Array:
        if not self.nbytes:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(self.descriptor, self.nbytes, access=access), np.uint8)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a copy; in a `Parcel` it is the block itself that goes."""
        return _copied, (self.read_only().tobytes(),)

    def __del__(self) -> None:
        """Close the file; maps of it stay."""
        os.close(self.descriptor)


def _copied(data: bytes) -> SharedBlock:
    block = SharedBlock()
    block.append(data)
    return block


def new_memory(size: int = 0) -> int:
    """Return the descriptor of new shared memory of `size` bytes, zeros, which takes memory when it is written."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("eyas-loader", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return descriptor


def mapped(descriptor: int, shape: tuple[int, ...]) -> UInt8Array:
    """Return the memory behind a descriptor as a uint8 array that can be written; the descriptor is closed."""
    try:
        return np.frombuffer(mmap.mmap(descriptor, math.prod(shape)), np.uint8).reshape(shape)
    finally:
        os.close(descriptor)


def write_at(descriptor: int, data: memoryview | bytes, start: int) -> None:
    """Write bytes, or a contiguous array, into shared memory from byte `start` on."""
    view, done = memoryview(data), 0
    if view.nbytes:
        view = view.cast("B")  # an array without items has no such form
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], start + done)


def send_memory(connection: Connection[Any, Any], descriptor: int) -> None:
    """Send an open file through a connection."""
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        socket.send_fds(channel, [b"m"], [descriptor])


def receive_memory(connection: Connection[Any, Any]) -> int:
    """Return the descriptor of the open file that the other side sent.

    Raises:
        EOFError: the other side is gone.
        OSError: this process has too many open files.
    """
    with socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        data, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    if not data:
        raise EOFError
    if not descriptors:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    return descriptors[0]


class Parcel:
    """An object on its way to other processes: its arrays lie in shared memory, which they map instead of copying it.

    Args:
        thing: what is sent; what it holds must be picklable.

    Raises:
        Exception: what pickle raises for things that can't be pickled.
    """

    def __init__(self, thing: object) -> None:
        self._main = SharedBlock()
        self._blocks: list[SharedBlock] = []
        places: list[tuple[int, int]] = []

        def place(buffer: pickle.PickleBuffer) -> None:
            with buffer.raw() as raw:
                places.append((self._main.append(raw), raw.nbytes))

        stream = io.BytesIO()
        _Pickler(stream, self._blocks, place).dump(thing)
        self._start = self._main.append(pickle.dumps((stream.getvalue(), places)))

    @property
    def descriptors(self) -> list[int]:
        """Return the open files that the receiver must have."""
        return [self._main.descriptor, *(block.descriptor for block in self._blocks)]

    @property
    def address(self) -> list[int]:
        """Return the numbers from which `open_parcel` finds the thing there."""
        return [self._start, *self.descriptors]


def open_parcel(address: Sequence[int]) -> Any:
    """Return the thing in a parcel; its open files belong to it from now on.

    Its arrays can be written to; what is written is seen by this process only.
    """
    start, *descriptors = address
    main, *blocks = (SharedBlock(descriptor) for descriptor in descriptors)
    memory = main.private()
    payload, places = pickle.loads(memory[start:].tobytes())
    return _Unpickler(io.BytesIO(payload), blocks, [memory[at : at + nbytes] for at, nbytes in places]).load()


class _Pickler(pickle.Pickler):
    """Keeps arrays and shared blocks out of the stream."""

    def __init__(self, stream: io.BytesIO, blocks: list[SharedBlock], place: Callable[[Any], None]) -> None:
        super().__init__(stream, protocol=5, buffer_callback=place)
        self._blocks = blocks

    def persistent_id(self, thing: Any) -> int | None:
        """Return the number of a shared block, None for all else."""
        if not isinstance(thing, SharedBlock):
            return None
        if not any(thing is block for block in self._blocks):
            self._blocks.append(thing)
        return next(number for number, block in enumerate(self._blocks) if block is thing)


class _Unpickler(pickle.Unpickler):
    """Puts them back."""

    def __init__(self, stream: io.BytesIO, blocks: Sequence[SharedBlock], buffers: Sequence[UInt8Array]) -> None:
        super().__init__(stream, buffers=buffers)
        self._blocks = blocks

    def persistent_load(self, number: int) -> SharedBlock:
        """Return the shared block with a number."""
        return self._blocks[number]
