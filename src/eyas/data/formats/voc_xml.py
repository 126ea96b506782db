"""Parsing one Pascal VOC annotation file, strictly."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from eyas.data.formats.base import Problems
from eyas.data.formats.text import decode, is_decoded, strip_blanks, without_widthless
from eyas.data.formats.values import read_flag
from eyas.errors import UserError
from eyas.files import open_regular, read_regular

_DECLARATION = re.compile(rb"""<\?xml[^>]*?encoding\s*=\s*["']([^"'>]{1,40})["']""")
_OPENING = re.compile(r"\s*<\?xml.*?\?>", re.DOTALL)
# XML can't hold the halves of characters that stand for bytes that were not understood; these of private use it can.
_PRIVATE = {code: code - 0xDC00 + 0x10F700 for code in range(0xDC80, 0xDD00)}
_BYTES = {private: code for code, private in _PRIVATE.items()}


@dataclass(frozen=True)
class VocObject:
    """An object: its class name, (xmin, ymin, xmax, ymax) as written, and whether it is marked difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """An image's annotation: (height, width) as written, 0 where missing, its objects, and what names the image."""

    size: tuple[int, int]
    objects: tuple[VocObject, ...]
    filename: str = ""
    folder: str = ""
    path: str = ""


def looks_like_voc(path: Path) -> bool:
    """Return whether the XML file's outermost element is VOC's <annotation>."""
    try:
        with open_regular(path) as file:
            head = file.read(2000)
    except (OSError, UserError):  # a dead link, or no file: told where the annotations are read
        return False
    return re.search(rb"<annotation[\s>]", head.replace(b"\0", b"")) is not None  # UTF-16 has zeros in between


def parse_xml(path: Path, problems: Problems) -> Annotation:
    """Return the annotation in the file; faults go to `problems` with the file and line or object."""
    empty = Annotation((0, 0), ())
    try:
        text = _decoded(read_regular(path))
    except OSError as error:
        problems.add(f"{path}: {'is a broken link' if path.is_symlink() and not path.exists() else error.strerror}")
        return empty
    if "<!ENTITY" in text:  # entities can blow up to gigabytes, and no annotation needs them
        problems.add(f"{path}: declares XML entities")
        return empty
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        problems.add(f"{path}:{error.position[0]}: is not valid XML: {error}")
        return empty
    if root.tag != "annotation":
        problems.add(f"{path}: the outermost element is <{root.tag:.40}>, not <annotation>")
        return empty
    objects = []
    for number, element in enumerate(root.findall("object"), 1):
        parsed = _object(element)
        if isinstance(parsed, VocObject):
            objects.append(parsed)
        else:
            problems.add(f"{path}: object {number}: {parsed}")
    size = _whole(root, "size/height"), _whole(root, "size/width")
    return Annotation(size, tuple(objects), *(_text(root, tag) for tag in ("filename", "folder", "path")))


def _decoded(data: bytes) -> str:
    named = _DECLARATION.search(data[:400])
    text = decode(data, named[1].decode("ascii", "replace") if named else "").translate(_PRIVATE)
    # Blank lines before the first line are a fault in XML alone.
    return _OPENING.sub(lambda opening: "\n" * opening[0].count("\n"), text, count=1) if text[:1].isspace() else text


def _text(element: ElementTree.Element, tag: str) -> str:
    """Return the text of an element inside, "" if there is none; bytes that were not understood as in file names."""
    return strip_blanks(element.findtext(tag) or "").translate(_BYTES)


def _object(element: ElementTree.Element) -> VocObject | str:
    """Return the object, or what is wrong with it."""
    name = _text(element, "name")
    if not name:
        return "has no name"
    if not is_decoded(name):
        written = name.encode(errors="surrogateescape")
        return f"its name {written!r:.60} is neither UTF-8 nor in the encoding declared in the first line"
    texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(without_widthless(text or "")) for text in texts)
    except ValueError:
        return f"the bndbox of '{name}' is {texts}"
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
        return f"the bndbox of '{name}' is {texts}"
    difficult = read_flag(element.findtext("difficult"))
    if difficult is None:
        return f"<difficult> of '{name}' is '{element.findtext('difficult')}', not 0 or 1"
    return VocObject(name, (x0, y0, x1, y1), difficult)


def _whole(root: ElementTree.Element, tag: str) -> int:
    try:
        return int(float(without_widthless(root.findtext(tag) or "0")))
    except (ValueError, OverflowError):
        return 0
