"""Trackers that do what a test wants: take everything, fail, or hang."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyas.training.loggers.base import Destination, LoggedRow, RunInfo, Status


@dataclass
class Server:
    """A tracker's server, which outlives the loggers that speak to it.

    Attributes:
        down: whether calls fail.
        hangs: calls wait until it is set, if there is one.
        rows, images, files, statuses: what has arrived, in order.
        starts: for each start whether it was told where the run is.
    """

    down: bool = False
    hangs: threading.Event | None = None
    rows: list[LoggedRow] = field(default_factory=list)
    images: list[tuple[str, str, int]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    statuses: list[Status] = field(default_factory=list)
    starts: list[bool] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def reach(self) -> None:
        """Be called."""
        self.threads.add(threading.current_thread().name)
        if self.hangs is not None:
            self.hangs.wait()
        if self.down:
            raise ConnectionError("<Connection object at 0x7f00>: connection refused\nmore")

    def points(self, name: str) -> list[tuple[int, float]]:
        """Return (step, value) of a metric."""
        return [(row.step, row.values[name]) for row in self.rows if name in row.values]


class FakeLogger:
    """Speaks to a `Server`.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server

    def start(self, run: RunInfo, known: Destination | None) -> tuple[Destination, bool]:
        self._server.reach()
        self._server.starts.append(known is not None)
        return Destination("run-1", "nowhere"), known is None

    def describe(self, run: RunInfo) -> None:
        self._server.reach()

    def metrics(self, rows: Sequence[LoggedRow]) -> None:
        self._server.reach()
        self._server.rows += rows

    def image(self, name: str, path: Path, step: int, time: float) -> None:
        self._server.reach()
        self._server.images.append((name, path.name, step))

    def artifacts(self, paths: Sequence[Path]) -> None:
        self._server.reach()
        self._server.files = [path.name for path in paths]

    def finish(self, status: Status, time: float) -> None:
        self._server.reach()
        self._server.statuses.append(status)

    def close(self) -> None:
        """Nothing is held."""
