"""The loader's worker processes, seen from the process that trains: started, given tasks, listened to, ended.

A worker is a new Python (`eyas.data.loading.worker`), never a fork of this one: of a process with threads a fork is a
copy in which locks stay locked and threads that are waited for do not exist. The arrays that workers need, those of the
index and of the caches among them, lie in shared memory; the script that trains is not run again in them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import IO, Any

from eyas import signals
from eyas.child_process import exit_words
from eyas.data.loading.batch_arrays import Maker, Task
from eyas.data.loading.block import Block
from eyas.data.loading.shared import Parcel, mapped, receive_memory
from eyas.data.loading.worker import ASK_SIGNAL, MEMORY_FIX, BatchDone, Failed, Made
from eyas.errors import UserError
from eyas.machine.processes import state

SAY_SECONDS = 60.0  # after so long without a word, it is said what a worker does
_LOOK_SECONDS = 1.0
STACK_SECONDS = 3.0  # for a worker to write its stack down
_STACK_LINES = 12
# Workers share the cores among themselves: no library in them may start threads.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


class Member:
    """One worker process.

    Args:
        number: its number, from 1, for messages.
        parcel: holds the `Maker`.
        patience: seconds after which a worker that gives nothing ends the run.
        multiple: of how many boxes the blocks have room for a multiple.
    """

    def __init__(self, number: int, parcel: Parcel, patience: float, multiple: int = 1) -> None:
        self.number = number
        self.patience = patience
        self._doing: dict[int, Task] = {}  # the tasks that it has, by turn
        self._trace: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the worker
        ours, theirs = socket.socketpair()
        with theirs:
            self._connection: Connection[Any, Any] = Connection(ours.detach())
            passed = [theirs.fileno(), self._trace.fileno(), *parcel.descriptors]
            call = f"main({theirs.fileno()}, {self._trace.fileno()}, {parcel.address}, {multiple})"
            # The path of this process, changes that the script made included, without the script itself.
            code = f"import sys; sys.path[:] = {sys.path!r}; from eyas.data.loading.worker import main; {call}"
            self._process = _start([sys.executable, "-c", code], passed)

    @property
    def pid(self) -> int:
        """Return the process's number."""
        return self._process.pid

    def give(self, turn: int, task: Task) -> None:
        """Have a task done after those that it has; `turn` numbers it."""
        self._doing[turn] = task
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended: `batches` will tell
            self._connection.send((turn, task))

    def batches(self, turn: int) -> Iterator[Block]:
        """Yield the batches of the task that was given with `turn`, and drop those of tasks before it.

        Raises:
            UserError: what the worker reports; it ended, it can't begin, or it gives nothing for too long.
        """
        while True:
            self._await(turn)
            try:
                message = self._connection.recv()
                block = self._block(message) if isinstance(message, Made) else None
            except (EOFError, ConnectionResetError):
                raise self._death() from None
            except OSError as error:
                raise UserError(
                    f"A batch can't be received from loader worker {self.number}: {error.strerror}.",
                    fix="release batches that are no longer needed, or allow more open files (ulimit -n 4096)",
                ) from None
            if isinstance(message, Failed):
                self._failed(message, turn)
            elif isinstance(message, BatchDone):
                self._doing.pop(message.turn, None)
                if message.turn == turn:
                    return
            elif message.turn == turn and block is not None:
                yield block

    def _block(self, made: Made) -> Block:
        """Return a batch that a worker has made; its memory, which follows the message, is this process's too now."""
        memory = mapped(receive_memory(self._connection), (made.layout.nbytes,))
        return Block(memory, made.layout, made.boxes, made.extras)

    def kill(self) -> None:
        """Have the process end; who waits for a batch of it is told so."""
        self._process.kill()

    def end(self) -> None:
        """End the process; a worker has nothing to save."""
        self._connection.close()
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a dead file system can't even die
            self._process.wait(5)
        self._trace.close()

    def _failed(self, message: Failed, turn: int) -> None:
        """Raise what a worker reports about a task that is still wanted."""
        self._doing.pop(message.turn, None)
        if message.turn == -1:
            raise UserError(
                f"The batch maker can't be unpickled in a loader worker: {message.error}",
                fix="define your own classes and functions in an importable module, or use data.workers=0",
            )
        if message.turn == turn:
            if isinstance(message.error, UserError):
                raise message.error
            raise RuntimeError(f"A loader worker failed:\n{message.error}")

    def _await(self, turn: int) -> None:
        """Return when the worker has sent something or has ended; after a minute tell what it does.

        Raises:
            UserError: it gave nothing for too long.
        """
        waited, told = 0.0, False
        before = time.monotonic()
        while not self._connection.poll(min(_LOOK_SECONDS, self.patience / 10)):
            now = time.monotonic()
            # A pause of this very process (Ctrl-Z) is not the worker's fault.
            waited, before = waited + min(now - before, 2 * _LOOK_SECONDS), now
            if waited >= self.patience:
                raise self._stalled(waited, turn)
            if waited >= min(SAY_SECONDS, self.patience / 2) and not told:
                told = True
                warnings.warn(str(self._stalled(waited, turn, ends=self.patience)), stacklevel=4)

    def _stalled(self, seconds: float, turn: int, ends: float | None = None) -> UserError:
        """Return what is to be said of a worker that gives nothing."""
        epoch, numbers, _ = self._doing.get(turn, (0, (), False))
        asked = f"asked for batch {', '.join(map(str, numbers))} of epoch {epoch}"
        text = f"Loader worker {self.number} (process {self.pid}) has sent nothing for {seconds:.0f} s, {asked}."
        if ends is not None:
            text += f" If this continues, the run ends after {ends:.0f} s."
        return UserError(
            f"{text} Its stack:\n{self.stack()}",
            fix="check that the storage of the images responds (network, disk); data.worker_seconds allows more time",
        )

    def stack(self) -> str:
        """Return where the worker is, as lines of a stack, or what the system says when it does not answer."""
        start = self._trace.seek(0, os.SEEK_END)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(ASK_SIGNAL)
        end = time.monotonic() + STACK_SECONDS
        text, last = "", None
        while time.monotonic() < end and (not text or text != last):
            last = text
            time.sleep(0.1)
            self._trace.seek(start)
            text = self._trace.read().decode(errors="replace")
        return _indented(text) or f"    no stack could be captured; process state: {state(self.pid)}"

    def _death(self) -> UserError:
        """Return what is to be said of a worker that ended by itself."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return UserError(f"Loader worker {self.number} (process {self.pid}) closed its connection.")
        how = f"was killed ({exit_words(code)})" if code < 0 else f"exited on its own ({exit_words(code)})"
        self._trace.seek(0)
        crash = _indented("".join(self._trace.read().decode(errors="replace").partition("Fatal Python error")[1:]))
        if code == -signal.SIGKILL:
            fix = f"usually the system is out of memory: {MEMORY_FIX}"
        else:
            fix = "check its output; data.workers=0 makes the batches in this process"
        return UserError(
            f"Loader worker {self.number} (process {self.pid}) {how}." + (f" It was here:\n{crash}" if crash else ""),
            fix=fix,
        )


class LoaderWorkers:
    """Some workers; they end with `close`, and with this object or this process.

    Args:
        make: makes the batches.
        size: number of workers.
        patience: seconds after which a worker that gives nothing ends the run.
        multiple: of how many boxes the blocks have room for a multiple.

    Raises:
        UserError: `make` can't be sent to another process, or none can be started.
    """

    def __init__(self, make: Maker, size: int, patience: float, multiple: int = 1) -> None:
        try:
            parcel = Parcel(make)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f"The batch maker can't be sent to a loader worker: {error}",
                expected="importable functions and classes",
                fix="define your own classes and functions in an importable module, or use data.workers=0",
            ) from None
        self.members: list[Member] = []
        self._finalizer = weakref.finalize(self, _end, self.members)
        for number in range(size):
            self.members.append(Member(number + 1, parcel, patience, multiple))

    def kill(self) -> None:
        """Have the workers end, without letting go of what belongs to them."""
        for member in self.members:
            member.kill()

    def close(self) -> None:
        """End the workers."""
        self._finalizer()


def _end(members: Sequence[Member]) -> None:
    for member in members:
        member.end()


def _start(command: Sequence[str], descriptors: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a worker without forking this process (subprocess does not, as long as nothing is to be called before).

    Signals that would end the process wait until the worker has said what they do: it inherits what this thread blocks.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*signals.NUMBERS, ASK_SIGNAL))
    try:
        return subprocess.Popen(
            command, pass_fds=descriptors, stdin=subprocess.DEVNULL, env={**os.environ, **_ONE_THREAD}
        )
    except OSError as error:
        raise UserError(
            f"A loader worker can't be started: {error.strerror}.", where=command[0] or "sys.executable",
            fix="use data.workers=0, which makes the batches in this process",
        ) from None  # fmt: skip
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _indented(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[:_STACK_LINES])
