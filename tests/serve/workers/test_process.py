"""The stream of messages that a worker reads, however its bytes come."""

from __future__ import annotations

import socket
import threading

import pytest

from eyas.serve.workers.base import Broken
from eyas.serve.workers.process import messages
from eyas.serve.workers.protocol import Type, pack_broken, read_broken


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_messages_are_whole_however_they_are_cut(piece: int) -> None:
    texts = ["first", "second " * 50, ""]
    data = b"".join(pack_broken(Broken(text)) for text in texts)
    front, worker = socket.socketpair()

    def send() -> None:
        for start in range(0, len(data), piece):
            front.sendall(data[start : start + piece])
        front.close()

    thread = threading.Thread(target=send)
    thread.start()
    with worker:
        found = list(messages(worker))
    thread.join()
    assert [one.type for one in found] == [Type.BROKEN] * len(texts)
    assert [read_broken(one).reason for one in found] == texts
