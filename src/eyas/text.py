"""Text that strangers chose (file names, class names), made fit for the place where it is shown or written.

Names come from file systems and label files, so they may hold anything: bytes that are no UTF-8 (Python keeps them as
lone surrogates), half an emoji, terminal escape sequences, formulas for a spreadsheet. A name is kept as it is inside
the program, since files are found by it, and is made fit at the edge, by the function for that edge.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any

_SURROGATES = re.compile("[\ud800-\udfff]")
# Control characters of C0 and C1 but for line feed and tab, line separators, and the marks that turn the direction of
# what follows: all that moves a terminal's cursor or makes a line read otherwise than it is.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
# What a class name can't hold: halves of a character (half an emoji in JSON), control characters and ends of lines.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
# With these a spreadsheet takes a cell for a formula, the full-width forms included.
_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")


def printable(text: str, *, one_line: bool = False) -> str:
    r"""Return the text with every character that controls a terminal, or is half a character, as an escape like `\x1b`.

    Args:
        text: what is to be shown.
        one_line: escape line feeds and tabs too, for a name within a line.
    """
    shown = _CONTROLS.sub(_escaped, text)
    return shown.replace("\n", r"\n").replace("\t", r"\t") if one_line else shown


def readable_name(name: str) -> str:
    """Return the class name with a replacement character for each that can't be shown or is half of one.

    Both halves of a character, which YAML's escapes leave apart, are put together.
    """
    whole = _PAIR.sub(lambda pair: pair[0].encode("utf-16-le", "surrogatepass").decode("utf-16-le"), name)
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", whole)


def to_utf8(text: str) -> str:
    r"""Return the text with lone surrogates, which no UTF-8 can hold, as escapes like `\udce9`."""
    return _SURROGATES.sub(_escaped, text)


def json_text(value: Any, *, indent: int | None = None, separators: tuple[str, str] | None = None) -> str:
    r"""Return JSON that any encoding can hold and any terminal can show, readable otherwise.

    Half characters and what controls a terminal stand as JSON's own escapes, so a reader of JSON gets exactly the name
    back, and a file is found again by it.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, separators=separators)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(*words: object, stderr: bool = False, end: str = "\n", flush: bool = False) -> None:
    """Print one text as it is, but for what would control the terminal or can't be encoded."""
    print(printable(" ".join(map(str, words))), end=end, file=sys.stderr if stderr else sys.stdout, flush=flush)


def file_stem(text: str) -> str:
    """Return the text as part of a new file's name that every system, list file and XML can hold."""
    return re.sub("[\n\t\ufffe\uffff]", "_", _CONTROLS.sub("_", text))  # XML can't hold the last two


def csv_cell(value: object) -> str:
    """Return the cell of a CSV file: text at which a spreadsheet would calculate gets a quote before it.

    Numbers stay as they are, negative ones included. See OWASP, CSV injection.
    """
    text = "" if value is None else to_utf8(str(value))
    if isinstance(value, str) and text[:1] in _FORMULA:
        return "'" + text
    return text


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
