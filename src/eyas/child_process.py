"""A Python of its own for what may crash, hang or take too much: started without a fork, ended with this process.

Both sides send messages, each a value that JSON has, a line each: what comes from a process that met a hostile file is
parsed, never run. `Child` is the parent's end, `Parent` the child's. What needs more than messages (shared memory, an
event loop, raw pixels) starts its processes itself, and shares `die_with` and `limit_memory`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any

import psutil

from eyas.errors import UserError

_SET_DEATH_SIGNAL = 1  # prctl's PR_SET_PDEATHSIG
_PATIENCE = 20.0  # seconds that a process has to end once its pipes are closed


class Ended(Exception):
    """A child ended by itself.

    Attributes:
        code: its exit code, -N for the signal N.
        words: the lines that it wrote to its output and its standard error.
    """

    def __init__(self, code: int, words: list[str]) -> None:
        self.code = code
        self.words = words
        super().__init__(exit_words(code) + (f": {words[-1].rstrip('.')}" if words else ""))


class Child:
    """A new Python that runs a module, which speaks with this one through `Parent`.

    Args:
        module: what it runs, as `python -m` does; it finds what this process finds.
        environment: variables beside those of this process.
        inbox: where (child, line) goes for each message, and (child, b"") at its end; None for one of its own, which
            `receive` reads.
        quiet: whether to keep what it prints, for `Ended`; else it goes where that of this process goes.

    Raises:
        OSError: it can't be started.
    """

    def __init__(
        self,
        module: str,
        *,
        environment: Mapping[str, str] | None = None,
        inbox: queue.SimpleQueue[tuple[Child, bytes]] | None = None,
        quiet: bool = True,
    ) -> None:
        self._inbox = queue.SimpleQueue() if inbox is None else inbox
        self._printed: IO[bytes] | None = tempfile.TemporaryFile() if quiet else None  # noqa: SIM115  # see `close`
        paths = os.pathsep.join(path for path in sys.path if path)
        # Not forked, as long as there is nothing to be called before it runs.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def send(self, message: Any) -> None:
        """Send a message; that the child is gone is told by what is received."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def receive(self, seconds: float | None = None) -> Any:
        """Return the next message.

        Raises:
            UserError, ModuleNotFoundError: what the child raised.
            RuntimeError: another error of the child's, with its traceback.
            Ended: it ended.
            TimeoutError: nothing came for so long.
        """
        try:
            return self.read(self._inbox.get(timeout=seconds)[1])
        except queue.Empty:
            raise TimeoutError(f"it took longer than {seconds:g} s") from None

    def read(self, line: bytes) -> Any:
        """Return the message of a line of the inbox; raises what `receive` does."""
        if not line.endswith(b"\n"):
            code = self._reaped(_PATIENCE)
            words: list[str] = []
            if self._printed is not None:
                self._printed.seek(0)
                words = self._printed.read().decode(errors="replace").strip().splitlines()
            raise Ended(code, words)
        message = json.loads(line)
        if "error" in message:
            raise UserError(**message["error"])
        if "missing" in message:
            raise ModuleNotFoundError(message["fault"], name=message["missing"])
        if "fault" in message:
            raise RuntimeError(message["fault"])
        return message["value"]

    def close(self, patience: float = 0.0) -> None:
        """End the process, which may do so by itself for so many seconds."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._reaped(patience)
        if self._printed is not None:
            self._printed.close()

    def __enter__(self) -> Child:
        """Return the child itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()

    def _reaped(self, patience: float) -> int:
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._inbox.put((self, line))
        self._inbox.put((self, b""))


class Parent:
    """The process that started this one as a `Child`; its end ends this one. Iterating gives its messages."""

    def __init__(self) -> None:
        die_with(int(sys.argv[1]))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
        self._messages = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)  # what a library prints is no message

    def __iter__(self) -> Iterator[Any]:
        """Yield what the parent sends, until it is gone or wants no more."""
        for line in sys.stdin.buffer:
            yield json.loads(line)

    def send(self, value: Any) -> None:
        """Send a value that JSON has."""
        self._write({"value": value})

    def answer(self, do: Callable[[Any], Any]) -> None:
        """Answer each message with what `do` returns for it, or with its error."""
        with contextlib.suppress(BrokenPipeError):
            for message in self:
                with self.telling():
                    self.send(do(message))

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """Send the parent what is raised inside, but for the want of memory, and go on behind."""
        try:
            yield
        except (BrokenPipeError, MemoryError):
            raise
        except UserError as error:
            parts = {"problem": error.problem, "expected": error.expected, "where": error.where, "fix": error.fix}
            self._write({"error": parts})
        except ModuleNotFoundError as error:
            self._write({"missing": (error.name or "").partition(".")[0], "fault": str(error)})
        except Exception:
            self._write({"fault": traceback.format_exc()})

    def _write(self, message: Any) -> None:
        rest = memoryview(json.dumps(message).encode() + b"\n")
        while rest:
            rest = rest[self._messages.write(rest) or 0 :]


def exit_words(code: int) -> str:
    """Return an exit code in words: "SIGSEGV", "exit code 3"."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def die_with(parent: int) -> None:
    """Let the kernel kill this process when the thread that started it ends; end now if that has happened already."""
    if sys.platform == "win32":
        return  # a virtual environment's python is not the parent of what runs in it
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def address_space(process: int | None = None) -> int:
    """Return the bytes that a process, this one for None, has addresses for; 0 where that can't be read."""
    try:
        return int(psutil.Process(process).memory_info().vms)
    except (psutil.Error, OSError):
        return 0


def limit_memory(more: int, seconds: int | None = None) -> None:
    """Refuse this process `more` bytes, 0 for any number, and `seconds` of computing beyond what it has taken by now.

    Allocations fail then and the machine goes on; the system ends a process that computes for longer. Only Linux can.
    """
    held = address_space() if more else 0
    if sys.platform == "linux" and held:
        import resource

        limits = {resource.RLIMIT_AS: held + more}
        if seconds is not None:
            used = resource.getrusage(resource.RUSAGE_SELF)
            limits[resource.RLIMIT_CPU] = int(used.ru_utime + used.ru_stime) + 1 + seconds
        for kind, most in limits.items():
            hard = resource.getrlimit(kind)[1]
            resource.setrlimit(kind, (most if hard < 0 else min(most, hard), hard))
