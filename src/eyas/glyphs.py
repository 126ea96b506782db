"""Text as OpenCV's own font can draw it: one line, whole characters, right-to-left runs turned.

OpenCV 5 brings a font with Latin, Greek, Cyrillic, Hebrew, Arabic (letters standing apart), Chinese, Japanese and
Korean, but lays glyphs out from left to right. A character that it has no glyph for would become a question mark, and
two names could look alike; it is written in Latin letters instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import cache, lru_cache

import cv2
import numpy as np
from anyascii import anyascii

from eyas.text import printable

_SIZE = 24  # pixels at which glyphs are compared


@lru_cache(maxsize=4096)
def drawable(text: str) -> str:
    """Return the text with every character replaced that the font can't draw as it stands, in the order of drawing."""
    text = unicodedata.normalize("NFC", printable(text, one_line=True))
    if text.isascii():
        return text
    return replaced(visual_order(text), _has_glyph)


def replaced(text: str, has_glyph: Callable[[str], bool]) -> str:
    """Return the text with Latin letters in place of each character that the font lacks."""
    return "".join(char if char.isascii() or has_glyph(char) else anyascii(char) or _code_point(char) for char in text)


def _code_point(char: str) -> str:
    """Return what stands for a character without a name in Latin letters; nothing for marks that show nothing."""
    return "" if unicodedata.category(char) in ("Mn", "Me", "Cf") else f"U+{ord(char):04X}"


@cache
def _has_glyph(char: str) -> bool:
    return char.isascii() or char.isspace() or not np.array_equal(_drawn(char), _drawn("\U0010fffd"))


def _drawn(char: str) -> np.ndarray:
    canvas = np.zeros((2 * _SIZE, 2 * _SIZE, 3), np.uint8)
    cv2.putText(canvas, char, (4, _SIZE + 8), (255, 255, 255), cv2.FontFace("sans"), _SIZE, 400)
    return canvas


def visual_order(text: str) -> str:
    """Return the characters in the order in which they are drawn: each run of right-to-left letters turned round.

    A run holds the blanks and signs between its letters, not those at its ends; numbers within it keep their order. Of
    the bidirectional algorithm (UAX 9) this is what names of one line need.
    """
    kinds = "".join({"R": "R", "AL": "R", "L": "L"}.get(unicodedata.bidirectional(char), "N") for char in text)
    out, at = "", 0
    for run in re.finditer("R(?:[RN]*R)?", kinds):
        out += text[at : run.start()] + _turned(text[run.start() : run.end()])
        at = run.end()
    return out + text[at:]


def _turned(run: str) -> str:
    """Return the run backwards, with marks after their letters and numbers as they were."""
    pieces: list[str] = []
    for char in run:
        number = bool(pieces) and char in "0123456789.,:%" and pieces[-1][-1].isdigit()
        if pieces and (number or (char.isdigit() and pieces[-1][-1].isdigit()) or unicodedata.combining(char)):
            pieces[-1] += char
        else:
            pieces.append(char)
    return "".join(reversed(pieces))
