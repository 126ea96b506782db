"""Letters on images and charts."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eyas.chart_text import chart_fonts, chart_text
from eyas.draw import put_text, text_width
from eyas.glyphs import drawable


def drawn(text: str) -> np.ndarray:
    canvas = np.zeros((40, 400, 3), np.uint8)
    put_text(canvas, text, 4, 28, 24, (255, 255, 255))
    return canvas


@pytest.mark.parametrize("text", ["plain", "Größe", "красный", "苹果", "りんご", "사과", "Ελληνικά", "Tiếng Việt"])
def test_what_the_font_has_is_drawn_as_it_is(text: str) -> None:
    assert drawable(text) == text and 0 < text_width(text, 24) < 400


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ไทย", "aithy"),
        ("हिन्दी", "hindi"),
        ("red car 🚗", "red car :red_car:"),
        ("half \ud83d", r"half \ud83d"),
        ("caf\udce9", r"caf\udce9"),
        ("a\x1b[31m\nb", r"a\x1b[31m\nb"),
        ("e\u0301te\u0301", "été"),
    ],
)
def test_what_it_lacks_is_spelled_in_latin_letters(text: str, shown: str) -> None:
    assert drawable(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("תפוח", "חופת"),
        ("עגור 12 גדול", "לודג 12 רוגע"),
        ("سيارة 0.87", "ةرايس 0.87"),
        ("car סוס 0.5", "car סוס"[:4] + "סוס"[::-1] + " 0.5"),
        ("תפוח red apple אדום", "חופת red apple םודא"),
    ],
)
def test_right_to_left_names_are_turned_and_numbers_are_not(text: str, shown: str) -> None:
    assert drawable(text) == shown


@pytest.mark.parametrize("pair", [("ไทย", "ลาว"), ("😀", "😢"), ("\ud83d", "\ud83e"), ("苹果", "苹杲"), ("ሀ", "ለ")])
def test_two_names_do_not_look_alike(pair: tuple[str, str]) -> None:
    assert not np.array_equal(drawn(pair[0]), drawn(pair[1]))


@given(st.text(st.characters(codec=None, categories=None), max_size=20))
def test_anything_can_be_drawn_and_measured(text: str) -> None:
    drawable(text).encode("utf-8")
    assert drawn(text).shape == (40, 400, 3) and text_width(text, 24) >= 0


NAMES = [
    "cat",
    "Größe",
    "красный",
    "苹果 ไทย",
    "car 😀",
    "half \ud83d",
    "$x_1$",
    r"$\notacommand$",
    "_hidden",
    "a\x1b[31mb\n",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_chart_with_the_name_can_be_drawn_without_a_missing_glyph(name: str) -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([0, 1], label=chart_text(name))
    axes.set_yticks([0], [chart_text(name)], fontfamily=chart_fonts())
    legend = axes.legend(prop={"family": chart_fonts()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    assert len(legend.get_texts()) == 1


@pytest.mark.parametrize(("name", "shown"), [("cat", "cat"), ("$5", r"\$5"), ("_a", " _a"), ("a" * 30, "a" * 23 + "…")])
def test_names_are_shown_as_they_are_but_for_markup_and_length(name: str, shown: str) -> None:
    assert chart_text(name) == shown
