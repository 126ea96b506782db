"""Names that strangers chose, made fit for the terminal, JSON and CSV files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eyas.text import csv_cell, json_text, printable, readable_name, to_utf8

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
