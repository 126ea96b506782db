"""Reading text that other programs wrote, on any system and in any encoding: the one rule for every annotation file.

1. A byte order mark decides: UTF-8, UTF-16 or UTF-32. Without one, zero bytes tell UTF-16 and UTF-32.
2. An encoding that the file names (XML's first line) is used if Python knows it and the bytes fit; the names that
   Windows and browsers take for more than they say are read that way (GB2312 as GB18030, Latin-1 as Windows-1252).
   Where the bytes are plainly UTF-8 whatever the file says, they are read as UTF-8.
3. Everything else is UTF-8. Bytes that are none are kept as Python keeps those of a file name ("surrogateescape"): a
   path in an unknown encoding does no harm, and a list names the very files that lie on the disk. A class name with
   such bytes is refused: guessing among GBK, Big5 and Shift-JIS gives other names, and nobody would be told.

Lines end at line feeds and carriage returns alone, since a file's name may hold the other characters that Unicode
counts as ends of lines.
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from eyas.errors import UserError
from eyas.files import read_regular

_MARKS = (  # UTF-32's mark begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDER = {
    "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "big5": "cp950", "euc_kr": "cp949",
    "iso8859-1": "cp1252", "ascii": "cp1252", "iso8859-9": "cp1254", "tis-620": "cp874",
}  # fmt: skip
# Python's codecs that no file is written in, and those that rule 1 would have found.
_NEVER = re.compile(r"utf-?(7|8|16|32)|idna|punycode|.*unicode.escape|undefined", re.IGNORECASE)
# Blanks and joiners without width; within a word some scripts need the last two.
_WIDTHLESS = "\u200b\u2060\ufeff\u200c\u200d"
_BLANKS = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + _WIDTHLESS


def decode(data: bytes, named: str = "") -> str:
    """Return the text that the bytes mean, without a byte order mark; see the module for the rule.

    Args:
        data: a file's bytes.
        named: the encoding that the file itself names, "" if it names none.
    """
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, _errors(encoding))
    encoding = _by_zeros(data[:400]) if b"\0" in data[:400] else "utf-8"
    text = data.decode(encoding, _errors(encoding))
    if encoding != "utf-8" or (text.isascii() and "\x1b" not in text):  # ISO-2022-JP is seven bits and escapes
        return text
    return _as_named(data, named) or text


def read_text(path: Path) -> str:
    """Return the text of the file; see the module for the rule.

    Raises:
        UserError: it is neither UTF-8 nor UTF-16 nor UTF-32.
        OSError: it can't be read.
    """
    text = decode(read_regular(path))
    if not is_decoded(text):
        number = next(i for i, line in enumerate(split_lines(text), 1) if not is_decoded(line))
        raise UserError(
            f"{path.name} is not UTF-8: line {number} contains invalid bytes.",
            where=f"{path}:{number}",
            fix=f"convert it to UTF-8, for example (if it is Chinese): iconv -f GB18030 -t UTF-8 {path.name}",
        )
    return text


def is_decoded(text: str) -> bool:
    """Return whether every byte of the text's file was understood."""
    return text.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in text)


def split_lines(text: str) -> list[str]:
    """Return the lines without their ends (line feed, carriage return, or both)."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines if lines[-1] else lines[:-1]


def strip_blanks(text: str) -> str:
    """Return the text without the blanks at its ends, those of Unicode (no-break, zero-width) included."""
    return text.strip(_BLANKS)


def without_widthless(text: str) -> str:
    """Return the text of numbers without characters that have no width."""
    return text if text.isascii() else text.translate(dict.fromkeys(map(ord, _WIDTHLESS)))


def read_names(path: Path) -> list[str]:
    """Return the class names in a text file, one a line; blank lines are left out.

    Raises:
        UserError: its encoding is not known.
    """
    names = [strip_blanks(line) for line in split_lines(read_text(path))]
    return [name for name in names if name]


def _errors(encoding: str) -> str:
    """Return what becomes of bytes that the encoding does not know: kept by UTF-8, marked by the others."""
    return "surrogateescape" if encoding == "utf-8" else "replace"


def _by_zeros(head: bytes) -> str:
    """Return which encoding puts zero bytes where the head of a file has them; UTF-8 if none does."""
    every, last = len(head) // 4, head[3::4].count(0)
    if every and head[0::4].count(0) == head[1::4].count(0) == every and last < every:
        return "utf-32-be"
    if every and head[2::4].count(0) == last == every and head[0::4].count(0) < every:
        return "utf-32-le"
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if max(even, odd) > 4 * min(even, odd):  # a few letters, such as the ideographic blank, have the zero elsewhere
        return "utf-16-be" if even > odd else "utf-16-le"
    return "utf-8"


def _as_named(data: bytes, named: str) -> str:
    """Return the text in the encoding that the file names, "" if that can't be or is plainly wrong."""
    try:
        known = codecs.lookup(named).name
    except (LookupError, ValueError):
        return ""
    for encoding in (_WIDER.get(known, known), known):
        if _NEVER.fullmatch(encoding):
            continue
        try:
            text = data.decode(encoding)
        except (LookupError, ValueError):
            continue
        return "" if _plainly_utf8(data, one_byte_each=len(text) == len(data)) else text
    return ""


def _plainly_utf8(data: bytes, *, one_byte_each: bool) -> bool:
    """Return whether the bytes are UTF-8 beyond chance.

    Two letters of Windows-1252 hardly ever look like UTF-8's two bytes, but a Chinese sign of GBK often does; three
    bytes that fit are rare enough in both.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return max(text) >= ("\x80" if one_byte_each else "\u0800")
