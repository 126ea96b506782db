"""Progress bars: what they show on a terminal, and that they leave nothing behind and are nothing without one."""

from __future__ import annotations

import io

import pytest

from eyas.progress import ProgressBar, track
from eyas.terminal import SafeConsole


def a_console(*, terminal: bool = True) -> tuple[SafeConsole, io.StringIO]:
    """Return a console, and what is written to it."""
    written = io.StringIO()
    return SafeConsole(file=written, force_terminal=terminal, width=120, color_system=None), written


def test_a_bar_shows_what_is_done_and_vanishes() -> None:
    console, written = a_console()
    with ProgressBar("opening [b]x[/b]", 7, console=console) as bar:
        assert bar.shown and bar.seconds >= 0
        bar.advance(2)
        bar.update(3, note="12.5 images/s")
        bar.update(4, 9, text="measuring")
    told = written.getvalue()
    assert "opening [b]x[/b]" in told and "measuring" in told and "4/9" in told
    assert told.endswith("\x1b[2K")  # the line is erased


def test_a_bar_of_long_work_tells_how_long_it_took() -> None:
    console, written = a_console()
    with ProgressBar("training", 1.0, counted=False, long=True, console=console) as bar:
        bar.update(0.5, note="3/6 steps")
    assert "0:00:0" in written.getvalue() and "left" in written.getvalue() and "3/6 steps" in written.getvalue()
    assert "0.5/1" not in written.getvalue()


@pytest.mark.parametrize(("terminal", "shown"), [(False, True), (True, False)])
def test_nothing_is_written_where_nobody_looks(terminal: bool, shown: bool) -> None:
    console, written = a_console(terminal=terminal)
    with ProgressBar("x", 2, shown=shown, console=console) as bar:
        bar.advance()
    assert not bar.shown and written.getvalue() == ""


def test_items_are_tracked_one_by_one(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), 3, "reading")) == ["a", "b", "c"]
    assert capfd.readouterr().err == ""
