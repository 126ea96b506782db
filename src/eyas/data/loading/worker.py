"""A loader's worker: a Python of its own that makes batches. It imports neither torch nor the user's script.

It is started by `eyas.data.loading.worker_group`, which also says what goes through their connection. It ends when its
connection does, whatever it is doing: when the loader is closed, and when the process that started it is gone, however
that ended.
"""

from __future__ import annotations

import faulthandler
import math
import os
import queue
import signal
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from eyas import signals
from eyas.data.loading.batch_arrays import BatchArrays, Extras, Maker, Task
from eyas.data.loading.block import BlockLayout, rest_of
from eyas.data.loading.shared import mapped, new_memory, open_parcel, send_memory, write_at
from eyas.errors import UserError
from eyas.types import UInt8Array

MEMORY_FIX = "use fewer workers (data.workers), smaller batches (data.batch_size), or cache less in memory (data.cache)"
ASK_SIGNAL = signal.SIGUSR1  # asks a worker to write down where it is


class Made(NamedTuple):
    """A batch; the descriptor of its block's memory follows it.

    Attributes:
        turn: the number that its task came with.
        layout: what lies where in the block.
        boxes: how many boxes the batch has.
        extras: its columns that are no arrays.
    """

    turn: int
    layout: BlockLayout
    boxes: int
    extras: Extras


class BatchDone(NamedTuple):
    """All batches of the task that came with the number `turn` were sent."""

    turn: int


class Failed(NamedTuple):
    """A task that could not be done, or, with turn -1, a worker that could not begin.

    Attributes:
        turn: the number that the task came with.
        error: what the user must mend, or the traceback of a fault of ours.
    """

    turn: int
    error: UserError | str


def main(connection: int, trace: int, parcel: list[int], multiple: int) -> None:
    """Make batches until the connection ends.

    Args:
        connection: descriptor of the connection.
        trace: descriptor of the file where stacks are written to, when it is asked for them or crashes.
        parcel: the address of the parcel that holds the `Maker`.
        multiple: of how many boxes the blocks have room for a multiple.
    """
    # The process that started it decides when it ends: Ctrl-C and SIGHUP reach all processes of a terminal, SIGTERM
    # those of a batch job, while the last step is still to be done and saved. Until here these signals were blocked.
    for number in signals.NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    with os.fdopen(trace, "w") as file:
        faulthandler.enable(file, all_threads=False)
        faulthandler.register(ASK_SIGNAL, file, all_threads=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        _serve(Connection(connection), parcel, multiple)


def _serve(connection: Connection[Any, Any], parcel: list[int], multiple: int) -> None:
    """Do the tasks in the order in which they come."""
    tasks: queue.SimpleQueue[tuple[int, Task]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, tasks), daemon=True).start()
    try:
        try:
            make: Maker = open_parcel(parcel)
        except Exception as error:
            connection.send(Failed(-1, f"{type(error).__name__}: {error}"))
            return
        _limit_threads()
        while True:
            turn, task = tasks.get()
            _do(connection, make, turn, task, multiple)
    except (BrokenPipeError, ConnectionResetError):
        return  # nobody is there any more


def _listen(connection: Connection[Any, Any], tasks: queue.SimpleQueue[tuple[int, Task]]) -> None:
    """Take tasks; when the connection ends, so does the process, even if an image is being waited for."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (ASK_SIGNAL,))  # the other thread is what is asked about
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _do(connection: Connection[Any, Any], make: Maker, turn: int, task: Task, multiple: int) -> None:
    """Make the batches of a task and send each when it is done."""
    room = _SharedRoom()
    try:
        for batch in make(*task, room):
            layout = BlockLayout.of(batch, multiple)
            room.add_rest(batch, layout)
            connection.send(Made(turn, layout, len(batch.labels), batch.extras))
            send_memory(connection, room.descriptor)
            room.close()
        connection.send(BatchDone(turn))
    except (BrokenPipeError, ConnectionResetError):
        raise
    except UserError as error:
        connection.send(Failed(turn, error))
    except MemoryError:
        connection.send(Failed(turn, UserError("A loader worker ran out of memory.", fix=MEMORY_FIX)))
    except Exception:
        connection.send(Failed(turn, traceback.format_exc()))
    finally:
        room.close()


class _SharedRoom:
    """Gives shared memory for the images of one batch after the other, and writes its other columns behind them."""

    def __init__(self) -> None:
        self.descriptor = -1

    def __call__(self, shape: tuple[int, ...]) -> UInt8Array:
        """Return memory for the images of a batch."""
        self.descriptor = new_memory(math.prod(shape))
        return mapped(os.dup(self.descriptor), shape)

    def add_rest(self, batch: BatchArrays, layout: BlockLayout) -> None:
        """Make the memory a block of this layout; what is not written is zeros."""
        os.ftruncate(self.descriptor, layout.nbytes)
        for start, data in rest_of(batch, layout):
            write_at(self.descriptor, data.data, start)

    def close(self) -> None:
        """Let go of the last batch's memory, which is on its way."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _limit_threads() -> None:
    """Keep the process to one thread: there are as many processes as cores."""
    import cv2

    cv2.setNumThreads(0)
