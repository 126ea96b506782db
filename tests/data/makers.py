"""Makers of batches that behave badly, or tell of the process that they run in; a loader's worker imports this file."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from eyas.data.index import DatasetIndex
from eyas.data.loading.batch_arrays import BatchArrays, Room
from eyas.data.loading.shared import SharedBlock
from eyas.errors import UserError
from eyas.types import UInt8Array


def batch_of(numbers: list[int], room: Room, shape: tuple[int, ...] = (1, 2, 2, 3)) -> BatchArrays:
    """Return a batch whose images are all `numbers[0]`, and whose labels are the numbers."""
    images = room(shape)
    images[:] = numbers[0] % 256
    none = np.zeros(0, np.int64)
    boxes, placements = np.zeros((len(numbers), 4), np.float32), np.zeros((0, 6), np.float32)
    return BatchArrays(images, boxes, np.array(numbers, np.int64), none, none, placements, none, none)


def a_known_place(marker: str) -> None:
    """Sleep until the process ends, having said so by a file."""
    Path(marker).touch()
    while True:
        time.sleep(3600)


@dataclass
class Counting:
    """Makes batches of their epochs' and their own numbers, and comes to grief at one of them.

    Attributes:
        at: the number of the bad batch.
        how: what happens there.
        marker: a file that tells that the place of sleep was reached.
    """

    at: int = -1
    how: str = ""
    marker: str = ""

    def __call__(self, epoch: int, numbers: tuple[int, ...], _: bool, room: Room) -> Iterator[BatchArrays]:
        """Yield the batches."""
        for number in numbers:
            if number == self.at:
                self._fail()
            yield batch_of([number, epoch, os.getpid()], room)

    def _fail(self) -> None:
        """Do what was asked for."""
        if self.how == "sleep":
            a_known_place(self.marker)
        elif self.how == "stop":
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.how == "segfault":
            ctypes.string_at(0)
        elif self.how == "exit":
            os._exit(7)
        elif self.how == "memory":
            raise MemoryError
        elif self.how == "mendable":
            raise UserError("A thing is missing.", where="here", fix="put it there")
        else:
            raise ValueError("a fault of the code")


@dataclass
class Memory:
    """Holds arrays and tells how much memory of its own the process has that reads all of them.

    Attributes:
        array: an array among the others of an object, as the columns of an index are.
        block: shared memory, as that of the caches.
    """

    array: UInt8Array = field(default_factory=lambda: np.zeros(0, np.uint8))
    block: SharedBlock = field(default_factory=SharedBlock)

    def __call__(self, _: int, numbers: tuple[int, ...], __: bool, room: Room) -> Iterator[BatchArrays]:
        """Yield one batch, the labels of which are (sum of everything, bytes that lie in no file)."""
        total = int(self.array.sum(dtype=np.int64)) + int(self.block.read_only().sum(dtype=np.int64))
        lines = Path("/proc/self/smaps_rollup").read_text(encoding="ascii").splitlines()
        anonymous = sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous"))
        yield batch_of([total, anonymous, *numbers], room)


def surroundings(_: int, numbers: tuple[int, ...], __: bool, room: Room) -> Iterator[BatchArrays]:
    """Yield a batch with (torch is here, Python's threads, OpenCV's threads, variables that limit threads)."""
    limits = [int(os.environ[name]) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")]
    yield batch_of(["torch" in sys.modules, threading.active_count(), cv2.getNumThreads(), *limits], room)


def words(index: DatasetIndex, shown: Sequence[tuple[int, ...]]) -> dict[str, Sequence[object]]:
    """Return which images an image shows, and the names of the classes that are labelled in them."""
    labels = [np.unique(np.concatenate([index.truth(number)[1] for number in one])) for one in shown]
    return {"shown": list(shown), "words": [[index.classes[int(label)] for label in one] for one in labels]}


def collecting(epoch: int, numbers: tuple[int, ...], closing: bool, room: Room) -> Iterator[BatchArrays]:
    """Yield batches, collecting garbage before and after each."""
    gc.collect()
    for batch in Counting()(epoch, numbers, closing, room):
        yield batch
        gc.collect()
