"""Tables, styles and progress on the terminal: no name that lies in them can move the cursor or recolour a line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from eyas.text import printable


class SafeConsole(Console):
    """A console whose own styles are all that controls the terminal: what it is given is shown, never obeyed."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text made printable, before a table measures how wide it is."""
        return super().render_str(printable(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments; what came ready-made, not as a string, is made printable here."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else printable(text), style, control)


def open_console(*, stderr: bool = False, highlight: bool = False, width: int | None = None) -> Console:
    """Return a console on stdout or stderr.

    Args:
        stderr: write there, for progress and remarks; stdout is for what was asked for.
        highlight: colour numbers, paths and quoted text.
        width: columns; None takes the terminal's.
    """
    return SafeConsole(stderr=stderr, highlight=highlight, width=width)
