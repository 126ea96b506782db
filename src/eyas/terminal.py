"""Tables, styles and progress on the terminal: no name that lies in them can move the cursor or recolour a line."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from eyas.text import printable

WIDE = 120  # columns where there is no edge


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
        width: columns; None takes the terminal's, or COLUMNS, or much where a file or a pipe has no edge.
    """
    console = SafeConsole(stderr=stderr, highlight=highlight, width=width)
    if width is None and not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = WIDE
    return console


def tell(console: Console, text: str, style: str = "") -> None:
    """Print one line as it is: no wrapping, so that paths and commands can be copied, and no markup in file names."""
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def open_table(*columns: str, title: str | None = None, lines: bool = False) -> Table:
    """Return a table of which nothing is lost on a narrow terminal: what has no room goes on in the next line.

    Args:
        columns: headings; one that begins with ">" has numbers below it. Without any there is no heading.
        title: a line above.
        lines: a line between the headings and the rows.
    """
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD if lines else None,
        header_style="bold",
        pad_edge=False,
        show_header=bool(columns),
    )
    for column in columns:
        table.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return table
