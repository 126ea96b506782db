"""Memory that the front and one worker share, so that images need not go through a socket.

It has no name in any file system: when both processes are gone, however they ended, so is it.
"""

from __future__ import annotations

import mmap
import os
import sys

SHARED_BYTES = 256 << 20  # of address space; memory is taken by what is really written
KEPT_BYTES = 16 << 20  # beyond this, memory is given back after the batch that needed it
ALIGNMENT = 64
_SEALS = 0x0001 | 0x0002 | 0x0004  # no more seals, no shrinking (a fault in the other process), no growing
_ADD_SEALS = 1033


class SharedMemory:
    """A piece of shared memory, written by one side while the other does not read.

    Args:
        descriptor: the open file of the memory; this owns it.
        size: its length in bytes.

    Attributes:
        descriptor: to be passed to the worker.
        view: all of it.
    """

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, size)
        self.view = memoryview(self._map)
        self._used = 0

    @classmethod
    def create(cls, size: int = SHARED_BYTES) -> SharedMemory | None:
        """Return new shared memory, None where the system has none without a name."""
        if sys.platform != "linux" or not size:
            return None
        import fcntl

        descriptor = os.memfd_create("eyas-images", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, _ADD_SEALS, _SEALS)
        return cls(descriptor, size)

    @classmethod
    def attach(cls, descriptor: int) -> SharedMemory:
        """Return the memory behind a descriptor that the other side passed."""
        return cls(descriptor, os.fstat(descriptor).st_size)

    def put(self, data: memoryview) -> int | None:
        """Write the bytes behind what was put before; return where they begin, None when they do not fit."""
        start, end = self._used, self._used + data.nbytes
        if end > len(self.view):
            return None
        self.view[start:end] = data
        self._used = -(-end // ALIGNMENT) * ALIGNMENT
        return start

    def clear(self) -> None:
        """Begin again at the start; nobody reads any more what was put."""
        if self._used > KEPT_BYTES and sys.platform == "linux":
            self._map.madvise(mmap.MADV_REMOVE, KEPT_BYTES)
        self._used = 0

    def close(self) -> None:
        """Give up this side's share. Closing twice is fine."""
        if self.descriptor >= 0:
            self.view.release()
            self._map.close()
            os.close(self.descriptor)
            self.descriptor = -1
