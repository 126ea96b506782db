"""A worker process: `python -m eyas.serve.workers.process SOCKET MEMORY PARENT`. It ends when its parent does.

It opens one bundle, runs the batches that come through the socket, and holds on to nothing else.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from eyas.child_process import die_with, limit_memory
from eyas.machine.memory import private_memory
from eyas.opencv_limits import VARIABLE
from eyas.serve.limits import Limits
from eyas.serve.workers.base import MAX_WORDS, Broken, Ready, WorkerFailed, too_much_memory
from eyas.serve.workers.protocol import (
    MessageReader,
    NotStarted,
    RunBatch,
    SentRan,
    StartWorker,
    ToWorker,
    pack,
    sent_ran,
    tasks_of,
)
from eyas.serve.workers.shared_memory import SharedMemory

OOM_SCORE = "500"  # when the machine runs out of memory, a worker is a better victim than the front


def messages(connection: socket.socket) -> Iterator[ToWorker]:
    """Yield what the front sends, until it closes the connection."""
    reader: MessageReader[ToWorker] = MessageReader(ToWorker)
    while data := connection.recv(1 << 18):
        yield from reader.feed(data)


def serve(connection: socket.socket, memory: SharedMemory | None) -> None:
    """Open the bundle that the first message names, then run batch after batch."""
    incoming = messages(connection)
    first = next(incoming, None)
    if not isinstance(first, StartWorker):
        return
    spec = first.spec
    os.environ[VARIABLE] = str(Limits.pixels)  # read when OpenCV is loaded
    # Heavy imports come here, so that a mistake in them is told to the front.
    import cv2

    from eyas.serve.workers.pipeline import BatchFailed, open_pipeline

    cv2.setNumThreads(1)
    try:
        pipeline, engine, latencies = open_pipeline(spec)
    except WorkerFailed as error:
        connection.sendall(pack(NotStarted(str(error)[:MAX_WORDS])))
        return
    gc.collect()
    gc.freeze()
    limit_memory(spec.memory)
    connection.sendall(pack(Ready(engine[:MAX_WORDS], tuple(latencies), private_memory())))
    for message in incoming:
        if not isinstance(message, RunBatch):
            return
        answer: SentRan | Broken
        try:
            answer = sent_ran(pipeline.run(tasks_of(message, memory)))
        except MemoryError as error:
            answer = Broken(f"MemoryError: {error}"[:MAX_WORDS], too_much_memory(spec.memory))
        except BatchFailed as error:
            answer = Broken(f"BatchFailed: {error}"[:MAX_WORDS])
        connection.sendall(pack(answer))


def main() -> None:
    """Run a worker on the descriptors that the command line names."""
    descriptor, memory, parent = map(int, sys.argv[1:4])
    die_with(parent)
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM):  # the front hears them too, and decides when its workers end
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(ConnectionError):
        serve(connection, SharedMemory.attach(memory) if memory >= 0 else None)
    os._exit(0)  # engines' threads and their destructors have nothing left to say


if __name__ == "__main__":
    main()
