"""Names in matplotlib's charts: in a font that has their letters where one is installed, else in Latin letters."""

from __future__ import annotations

from functools import cache

from eyas.glyphs import replaced, visual_order
from eyas.text import printable

# Families with the scripts that matplotlib's own font lacks, on Linux, Windows and macOS. The first of each kind that
# is installed is used; matplotlib looks a letter up in one after the other.
_FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Heiti TC", "Hiragino Sans", "Yu Gothic",
    "Malgun Gothic", "Apple SD Gothic Neo", "NanumGothic", "Noto Sans Thai", "Leelawadee UI", "Noto Sans Devanagari",
    "Nirmala UI", "Arial Unicode MS",
)  # fmt: skip


@cache
def chart_fonts() -> tuple[str, ...]:
    """Return the families to draw names with, matplotlib's own first."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in _FAMILIES if name in installed))


@cache
def _letters() -> frozenset[int]:
    from matplotlib import font_manager, ft2font

    files = [font_manager.findfont(name, fallback_to_default=False) for name in chart_fonts()]
    return frozenset(code for file in files for code in ft2font.FT2Font(file).get_charmap())


def chart_text(name: str, limit: int = 24) -> str:
    """Return the name as a chart shows it: at most `limit` letters, no markup of matplotlib's in it."""
    text = printable(name, one_line=True)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    shown = replaced(visual_order(text), lambda char: ord(char) in _letters())
    # Dollars would begin a formula, and a label that begins with an underscore is left out of legends.
    return (" " if shown.startswith("_") else "") + shown.replace("$", r"\$")
