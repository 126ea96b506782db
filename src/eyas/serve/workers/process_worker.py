"""A worker in a process of its own, seen from the front: started, fed, timed, killed when it hangs, reaped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import cast

from eyas.machine.memory import private_memory
from eyas.serve.errors import Refused
from eyas.serve.workers.base import Broken, Done, Lost, Ready, Task, WorkerFailed, WorkerSpec, too_slow
from eyas.serve.workers.protocol import (
    BadMessage,
    FromWorker,
    MessageReader,
    NotStarted,
    SentRan,
    StartWorker,
    StopWorker,
    batch_of,
    pack,
    ran_of,
)
from eyas.serve.workers.shared_memory import SHARED_BYTES, SharedMemory

REAP_SECONDS = 0.005
_CRASHED = Refused("unprocessable", "The process that decodes and detects crashed on the image twice.")
EXIT_SECONDS = 0.25  # after it closed its connection, a worker that still lives is killed


class ProcessWorker(asyncio.Protocol):
    """A worker process; see `Worker`. Also the protocol of its connection.

    Args:
        name: its name.
        spec: what it serves.
        classes: the model's class names.
        shared_bytes: size of the memory shared with it; 0 sends everything through the socket.
    """

    def __init__(self, name: str, spec: WorkerSpec, classes: tuple[str, ...], shared_bytes: int = SHARED_BYTES) -> None:
        self.name = name
        self._spec = spec
        self._shared_bytes = shared_bytes
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._reaped = asyncio.Event()
        self._classes = classes
        self._reader: MessageReader[FromWorker] = MessageReader(FromWorker)
        self._shared: SharedMemory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._transport: asyncio.Transport | None = None
        self._lost: Callable[[Lost], None] | None = None
        self._running: tuple[int, Done] | None = None  # images of the batch, and whom to tell
        self._limit: asyncio.TimerHandle | None = None
        self._verdict: Lost | None = None  # why it was killed

    @property
    def pid(self) -> int:
        """Return the process's number, 0 before it was started."""
        return self._process.pid if self._process is not None else 0

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Start the process and wait until it is warm; see `Worker.start`."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._shared = SharedMemory.create(self._shared_bytes)
                memory = self._shared.descriptor if self._shared is not None else -1
                passed = [descriptor for descriptor in (theirs.fileno(), memory) if descriptor >= 0]
                command = [sys.executable, "-m", "eyas.serve.workers.process", str(theirs.fileno()), str(memory)]
                self._process = subprocess.Popen(
                    [*command, str(os.getpid())], pass_fds=passed, stdin=subprocess.DEVNULL, close_fds=True
                )
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except OSError as error:
            ours.close()
            self._end(Lost(f"The process can't be started: {error}"))
            raise WorkerFailed(f"The process can't be started: {error}") from None
        assert self._transport is not None
        self._transport.write(pack(StartWorker(self._spec)))
        try:
            ready = await asyncio.wait_for(asyncio.shield(self._ready), self._spec.start_seconds)
        except TimeoutError:
            self._kill(Lost(""))
            raise WorkerFailed(f"It was not ready within {self._spec.start_seconds:g} s.") from None
        self._lost = lost
        return ready

    def submit(self, tasks: Sequence[Task], done: Done) -> None:
        """Send a batch; see `Worker.submit`."""
        assert self._running is None and self._transport is not None
        self._running = len(tasks), done
        seconds = self._spec.batch_seconds
        self._limit = self._loop.call_later(seconds, self._kill, too_slow(seconds))
        if not self._transport.is_closing():  # else it is dead and not yet buried: `lost` will give the batch back
            self._transport.write(pack(batch_of(tasks, self._shared)))

    def memory(self) -> int:
        """Return the bytes that the process holds for itself."""
        return private_memory(self.pid) if self.pid and not self._reaped.is_set() else 0

    async def stop(self, grace: float) -> None:
        """End the process; see `Worker.stop`."""
        self._lost = None
        if self._process is None:
            return
        if grace > 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.write(pack(StopWorker()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reaped.wait(), grace)
        self._kill(Lost(""))
        await self._reaped.wait()

    # ---------------------------------------------------------------------------------------------- connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Take what the worker sends."""
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except BadMessage as error:
            self._kill(Lost(f"It sent an invalid message: {error}.", _CRASHED))

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        """The process is ending, or has closed its connection for no reason."""
        self._reap(self._loop.time() + EXIT_SECONDS)

    def _take(self, message: FromWorker) -> None:
        """Act on a message.

        Raises:
            BadMessage: it is not one that is awaited.
        """
        if isinstance(message, Ready) and not self._ready.done():
            self._ready.set_result(message)
        elif isinstance(message, NotStarted) and not self._ready.done():
            self._ready.set_exception(WorkerFailed(message.reason))
        elif isinstance(message, SentRan | Broken) and self._running is not None:
            num, done = self._running
            outcome = message if isinstance(message, Broken) else ran_of(message, num, self._classes)
            self._settle()
            done(outcome)
        else:
            raise BadMessage("unexpected message")

    def _settle(self) -> None:
        self._running = None
        if self._limit is not None:
            self._limit.cancel()
        if self._shared is not None:
            self._shared.clear()

    # ------------------------------------------------------------------------------------------------- its end

    def _kill(self, reason: Lost) -> None:
        """Kill the process; what follows, follows from its death."""
        self._verdict = self._verdict or reason
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._transport is not None:
            self._transport.abort()

    def _reap(self, patience: float) -> None:
        """Collect the process, which has closed its connection; kill it when it lives on."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            if self._loop.time() > patience:
                self._process.kill()
            self._loop.call_later(REAP_SECONDS, self._reap, patience)
            return
        torn = " in the middle of a message" if self._reader.torn else ""
        told = None if code == -signal.SIGKILL else _CRASHED  # which is ours, an operator's, or the kernel's
        self._end(self._verdict or Lost(f"The process ended with {_told(code)}{torn}.", told))

    def _end(self, reason: Lost) -> None:
        self._settle()
        if self._shared is not None:
            self._shared.close()
            self._shared = None
        self._reaped.set()
        if not self._ready.done():
            self._ready.set_exception(WorkerFailed(reason.reason))
            self._ready.exception()  # `start` may have given up waiting
        lost, self._lost = self._lost, None
        if lost is not None:
            lost(reason)


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
