"""Class names in charts: readable in any script, and never taken for markup."""

from __future__ import annotations

import warnings

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eyas.chart_text import chart_fonts, chart_text

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
