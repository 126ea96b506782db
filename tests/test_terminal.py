"""No name that is printed controls the terminal, whichever way it is printed."""

from __future__ import annotations

import pytest
from rich.table import Table
from rich.text import Text

from eyas.terminal import open_console
from eyas.text import say

EVIL = "x\x1b[31mred\x1b]0;title\x07\rover caf\udce9"
SHOWN = r"x\x1b[31mred\x1b]0;title\x07\x0dover caf\udce9"


def test_say_prints_what_is_given_without_obeying_it(capsys: pytest.CaptureFixture[str]) -> None:
    say("name:", EVIL)
    say(EVIL, stderr=True)
    out, err = capsys.readouterr()
    assert out == f"name: {SHOWN}\n" and err == f"{SHOWN}\n"


def test_a_console_shows_names_in_lines_and_tables(capsys: pytest.CaptureFixture[str]) -> None:
    where = open_console(width=200)
    where.print(EVIL, markup=False)
    table = Table("name", "number")
    table.add_row(EVIL.replace("[", r"\["), "12345")
    where.print(table)
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 2 and "12345" in out
    assert not {"\x1b", "\x07", "\r"} & set(out)


def test_text_made_elsewhere_is_not_obeyed_either(capsys: pytest.CaptureFixture[str]) -> None:
    open_console().print(Text(EVIL))
    out = capsys.readouterr().out
    assert r"x\x1b[31mred" in out and not {"\x1b", "\x07", "\r"} & set(out)


def test_its_own_styles_reach_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    open_console().print(f"[bold]{EVIL.replace('[', chr(92) + '[')}[/]")
    out = capsys.readouterr().out
    assert out.startswith("\x1b[1m") and SHOWN in out
