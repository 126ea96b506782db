"""The one progress bar of every verb: on standard error, gone at its end, and not there where nobody looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich import progress as rich
from rich.console import Console

from eyas.terminal import open_console

Item = TypeVar("Item")


class ProgressBar:
    """A bar for as long as its `with` block lasts.

    Args:
        text: what is being done.
        total: how much there is to do; None where that is not known yet.
        counted: whether to show "3/7".
        long: of work that takes hours: a bar as wide as there is room, and the time that it has taken.
        shown: whether to show anything.
        console: where to; None for standard error.

    Attributes:
        shown: whether anything is shown.
    """

    def __init__(
        self,
        text: str,
        total: float | None = None,
        *,
        counted: bool = True,
        long: bool = False,
        shown: bool = True,
        console: Console | None = None,
    ) -> None:
        console = console or open_console(stderr=True)
        self.shown = shown and (console.is_terminal or console.is_jupyter)
        columns: list[rich.ProgressColumn] = [
            rich.TextColumn("{task.description}", markup=False),
            rich.BarColumn(bar_width=None if long else 40),
            *([rich.MofNCompleteColumn()] if counted else []),
            rich.TextColumn("{task.fields[note]}", markup=False),
            *([rich.TimeElapsedColumn(), rich.TextColumn("left")] if long else []),
            rich.TimeRemainingColumn(),
        ]
        self._progress = rich.Progress(*columns, console=console, transient=True, disable=not self.shown)
        self._task = self._progress.add_task(text, total=total, note="")

    @property
    def seconds(self) -> float:
        """Return for how long it has been there."""
        return self._progress.tasks[self._task].elapsed or 0.0

    def advance(self, count: float = 1) -> None:
        """Add to what is done."""
        self._progress.advance(self._task, count)

    def update(self, done: float, total: float | None = None, text: str | None = None, note: str = "") -> None:
        """Show how much is done.

        Args:
            done: of the total.
            total: a new one; None leaves it.
            text: what is being done now; None leaves it.
            note: a word behind the bar, a speed for example.
        """
        self._progress.update(self._task, completed=done, total=total, description=text, note=note)

    def __enter__(self) -> ProgressBar:
        """Show it."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Have it vanish."""
        self._progress.stop()


def track(items: Iterable[Item], total: int, text: str) -> Iterator[Item]:
    """Yield the items while a bar shows how many are done."""
    with ProgressBar(text, total) as bar:
        for item in items:
            yield item
            bar.advance()
