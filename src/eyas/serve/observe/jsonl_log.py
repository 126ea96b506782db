"""A file of JSON lines that rotates, written by a thread of its own: a full or slow disk delays no request."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

SIZE, KEEP = 64 * 2**20, 8  # bytes after which a new file begins, and how many old ones stay
CAPACITY = 10_000  # lines that may wait; what comes then is dropped and counted

Line = dict[str, Any]
Job = Callable[[], Line | None]  # makes the line in the thread; None writes none


class Journal:
    """JSON lines in `path`, `path.1` (older), ... up to `KEEP` of them.

    Args:
        path: the file; its folder is made.
        on_drop: called (from any thread) with the number of lines that were lost.
    """

    def __init__(self, path: Path, on_drop: Callable[[int], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._on_drop = path, on_drop
        self._queue: queue.Queue[Job | None] = queue.Queue(CAPACITY)
        self._thread = threading.Thread(target=self._run, name=f"journal {path.name}", daemon=True)
        self._thread.start()

    def write(self, line: Line) -> None:
        """Write a line some time soon."""
        self.submit(lambda: line)

    def submit(self, job: Job) -> None:
        """Let the thread make a line and write it."""
        try:
            self._queue.put_nowait(job)
        except queue.Full:
            self._on_drop(1)

    def flush(self) -> None:
        """Wait until everything that was written so far lies in the file."""
        self._queue.join()

    def close(self) -> None:
        """Write what waits, and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=10.0)

    def _run(self) -> None:
        while True:
            job = self._queue.get()
            try:
                if job is None:
                    return
                line = job()
                if line is not None:
                    self._append(json.dumps(line, separators=(",", ":"), default=str).encode("ascii") + b"\n")
            except Exception:  # a broken disk or image must not end the log for good
                self._on_drop(1)
            finally:
                self._queue.task_done()

    def _append(self, line: bytes) -> None:
        """Append the line, beginning a new file when this one is full."""
        if self._path.exists() and self._path.stat().st_size + len(line) > SIZE:
            for number in range(KEEP, 0, -1):
                older = self._path.with_name(f"{self._path.name}.{number}")
                newer = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
                if newer.exists():
                    newer.replace(older)
        with self._path.open("ab") as file:
            file.write(line)
