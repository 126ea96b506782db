"""The stream of messages that a worker reads, however its bytes come."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from eyas.serve.workers.base import WorkerSpec
from eyas.serve.workers.process import messages
from eyas.serve.workers.protocol import StartWorker, StopWorker, pack


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_messages_are_whole_however_they_are_cut(piece: int) -> None:
    sent = [StartWorker(WorkerSpec(Path("b" * 500))), StopWorker(), StartWorker(WorkerSpec(Path("c")))]
    data = b"".join(map(pack, sent))
    front, worker = socket.socketpair()

    def send() -> None:
        for start in range(0, len(data), piece):
            front.sendall(data[start : start + piece])
        front.close()

    thread = threading.Thread(target=send)
    thread.start()
    with worker:
        assert list(messages(worker)) == sent
    thread.join()
