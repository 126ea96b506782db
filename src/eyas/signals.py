"""Being asked to end: Ctrl-C, SIGTERM (kill, systemd, Docker, SLURM) and SIGHUP (a closed terminal) mean the same."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

# Windows has no SIGHUP.
NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if name in signal.Signals.__members__)


class Stopped(SystemExit):
    """The process was asked to end while there was nothing to keep, or for the second time.

    Attributes:
        number: of the signal; the exit code is 128 more, as a shell has it.
    """

    def __init__(self, number: int, text: str) -> None:
        super().__init__(128 + number)
        self.number = number
        self.text = text

    def __str__(self) -> str:
        """Return what happened, one sentence."""
        return self.text


class StopSignals:
    """While entered, a signal that asks for the end raises `Stopped`, or inside `deferred` is only remembered at first.

    The handlers that stood before stand again afterwards. In a thread other than the main one nothing is changed:
    Python lets only the main thread handle signals.

    Attributes:
        number: the first signal that came, 0 for none.
    """

    def __init__(self) -> None:
        self.number = 0
        self._tell: Callable[[int], None] | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """Return 128 and the signal's number, 0 if none came."""
        return 128 + self.number if self.number else 0

    def __enter__(self) -> StopSignals:
        """Take the signals; one that `nohup` has switched off stays off."""
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                before = signal.getsignal(number)
                kept_off = before is signal.SIG_IGN and number != signal.SIGINT
                if before is not None and not kept_off:  # None: somebody's handler in C, which can't be put back
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back to who had them."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    @contextlib.contextmanager
    def deferred(self, tell: Callable[[int], None]) -> Iterator[None]:
        """Only remember the first signal while entered, and call `tell` with its number; a second one ends at once."""
        self._tell = tell
        try:
            yield
        finally:
            self._tell = None

    def hand_on(self) -> None:
        """Give the signal that came to the handler that stood before: for a library, whose caller was meant."""
        if self.number:
            signal.raise_signal(self.number)

    def _handle(self, number: int, _: FrameType | None) -> None:
        """Remember the signal, and end unless it is the first one and may wait."""
        again = bool(self.number)
        self.number = self.number or number
        if again:
            raise Stopped(number, f"{name(number)} again: stopped at once.")
        if self._tell is None:
            raise Stopped(number, f"{name(number)}: stopped before the work began.")
        # It may have come in the midst of writing to the same stream, or because the terminal is gone.
        with contextlib.suppress(RuntimeError, OSError):
            self._tell(number)


def name(number: int) -> str:
    """Return a signal's name for people."""
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
