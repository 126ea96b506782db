"""A server of one's own to measure: `eyas serve` in processes beside, with what they take of the machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

import psutil

from eyas.errors import UserError
from eyas.machine.processes import Taken, family, taken

START_SECONDS = 120.0
END_SECONDS = 40.0


class LocalServer:
    """A server in a process of its own, for as long as the `with` block lasts.

    Args:
        arguments: what follows `eyas serve`; the ports are chosen here.
        command: what is run in place of `python -m eyas serve`.
        ready: a pattern that a line of its output matches when it is ready; its first group is the URL.

    Attributes:
        url: of REST, once it has started.
        start_seconds: how long it took to be ready.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        command: Sequence[str] = (sys.executable, "-m", "eyas", "serve", "--port", "0", "--no-grpc"),
        ready: str = r"REST +(https?://\S+)",
    ) -> None:
        self._command = [*command, *arguments]
        self._ready = re.compile(ready)
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.start_seconds = 0.0

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> LocalServer:
        """Start, and return when it listens.

        Raises:
            UserError: it does not start.
        """
        begin = time.perf_counter()
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        for line in self._process.stdout:
            found = self._ready.search(line)
            if found:
                self.url, self.start_seconds = found[1], time.perf_counter() - begin
                return self
            if time.perf_counter() - begin > START_SECONDS:
                break
        self._process.kill()
        words = self._process.stderr.read()[-2000:].strip()
        raise UserError(f"The server did not start: {words}", where=" ".join(self._command))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, gracefully if it can; processes of its own that outlive it are killed."""
        assert self._process is not None
        ours = family(self.pid)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            for each in reversed(ours):  # those that are left hold the pipes, which are read to their end
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            self._process.communicate()

    def taken(self) -> Taken:
        """Return what it and its workers took so far."""
        return taken(self.pid)
