"""Words for people: errors, text of any letters, ends of paths, terminals."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from eyas.errors import UserError, missing_extra, suggest
from eyas.path_ends import PathEnds, path_parts
from eyas.terminal import open_console
from eyas.text import csv_cell, json_text, printable, readable_name, say, to_utf8

ANY = st.text(st.characters(codec=None, categories=None))  # half characters included


@pytest.mark.parametrize(
    ("given_", "shown"),
    [
        ("plain ü 猫 😀", "plain ü 猫 😀"),
        ("a\x1b[31mred", "a\\x1b[31mred"),
        ("a\x1b]0;title\x07", "a\\x1b]0;title\\x07"),
        ("a\rb", "a\\x0db"),
        ("a\x9b2J", "a\\x9b2J"),
        ("a\u202egpj.exe", "a\\u202egpj.exe"),
        ("caf\udce9", "caf\\udce9"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_controls_a_terminal_is_shown_instead(given_: str, shown: str) -> None:
    assert printable(given_) == shown


def test_a_name_within_a_line_stays_in_it() -> None:
    assert printable("two\nlines\t", one_line=True) == "two\\nlines\\t"


@given(ANY)
def test_whatever_is_printable_can_be_encoded_and_holds_no_control(text: str) -> None:
    shown = printable(text, one_line=True)
    shown.encode("utf-8")
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in shown)
    assert printable(shown, one_line=True) == shown


@given(ANY)
def test_json_gives_the_very_name_back(text: str) -> None:
    written = json_text({text: text})
    assert json.loads(written.encode("utf-8")) == {text: text} and printable(written) == written


@given(ANY)
def test_utf8_keeps_what_it_can_hold(text: str) -> None:
    to_utf8(text).encode("utf-8")
    whole = not any("\ud800" <= c <= "\udfff" for c in text)
    assert (to_utf8(text) == text) == whole


@pytest.mark.parametrize("formula", ["=1+1", "+1", "-1", "@SUM(A1)", "=cmd|' /C calc'!A0", "\t=1", "\r=1", "＝1"])
def test_a_spreadsheet_calculates_nothing(formula: str) -> None:
    assert csv_cell(formula) == "'" + formula


@pytest.mark.parametrize(
    ("value", "text"),
    [(-1.5, "-1.5"), (3, "3"), (None, ""), ("cat", "cat"), ("a=b", "a=b"), ("caf\udce9", "caf\\udce9")],
)
def test_numbers_and_plain_names_stay_in_a_csv_file(value: object, text: str) -> None:
    assert csv_cell(value) == text


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("\ud83d\ude00 x", "\U0001f600 x"),
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("a\x1bb\u2028", "a\ufffdb\ufffd"),
        ("\u732b", "\u732b"),
    ],
)
def test_class_names_are_made_readable(name: str, expected: str) -> None:
    assert readable_name(name) == expected


def test_all_parts_in_order() -> None:
    error = UserError("It is 3.", expected="1 or 2", where="x.yaml", fix="write 2")
    assert str(error) == "It is 3.\n  where:    x.yaml\n  expected: 1 or 2\n  fix:      write 2"
    assert (error.problem, error.expected, error.where, error.fix) == ("It is 3.", "1 or 2", "x.yaml", "write 2")


def test_parts_that_are_not_given_take_no_line() -> None:
    assert str(UserError("It is 3.")) == "It is 3."
    assert str(UserError("It is 3.", fix="write 2")) == "It is 3.\n  fix:      write 2"


def test_it_is_raised_like_any_error() -> None:
    with pytest.raises(UserError, match="It is 3") as caught:
        raise UserError("It is 3.")
    assert caught.value.args == ("It is 3.",)


@pytest.mark.parametrize(
    ("given", "hint"),
    [("trian", " (did you mean 'train'?)"), ("evalute", " (did you mean 'evaluate'?)"), ("xyz", ""), ("", "")],
)
def test_suggestions(given: str, hint: str) -> None:
    assert suggest(given, ["train", "evaluate", "detect"]) == hint
    assert suggest(given, []) == ""
    assert suggest(given, iter(["train", "evaluate", "detect"])) == hint


def test_a_missing_extra_names_the_command() -> None:
    assert str(missing_extra("torch", "train")).endswith('pip install "eyas[train]"')
    assert "'torch'" in str(missing_extra("torch", "train"))


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


KNOWN = ["/d/cam1/0001.jpg", "/d/cam2/0001.jpg", "/d/b.jpg", "/d/x/b.jpg", "/d/odd\\name.jpg"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/elsewhere/cam1/0001.jpg", [0]),
        ("C:\\data\\cam2\\0001.jpg", [1]),
        ("\\\\server\\share\\cam2\\0001.jpg", [1]),
        ("../cam1/./0001.jpg", [0]),
        ("0001.jpg", [0, 1]),
        ("cam3/0001.jpg", [0, 1]),
        ("x/b.jpg", [3]),
        ("d/b.jpg", [2]),
        ("odd\\name.jpg", [4]),
        ("name.jpg", []),
        ("001.jpg", []),
        ("", []),
    ],
)
def test_the_longest_end_wins(path: str, found: list[int]) -> None:
    assert PathEnds(KNOWN).find(path) == found


def test_a_known_path_that_fits_as_a_whole_wins() -> None:
    ends = PathEnds(["0001.jpg", "cam1/0001.jpg"])
    assert ends.find("/images/0001.jpg") == [0]
    assert ends.find("/images/cam1/0001.jpg") == [1]


def test_parts_of_a_path_of_any_system() -> None:
    assert path_parts("C:\\x\\a.jpg") == ("C:", "x", "a.jpg")
    assert path_parts("/content/drive/../x//a.jpg") == ("content", "drive", "x", "a.jpg")
