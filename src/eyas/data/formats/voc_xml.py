"""Parsing one Pascal VOC annotation file, strictly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from eyas.data.formats.found import Problems
from eyas.data.formats.values import read_flag


@dataclass(frozen=True)
class VocObject:
    """An object: its class name, (xmin, ymin, xmax, ymax) as written, and whether it is marked difficult."""

    name: str
    box: tuple[float, float, float, float]
    difficult: bool


@dataclass(frozen=True)
class Annotation:
    """A picture's annotation: (height, width) as written, 0 where missing, and its objects."""

    size: tuple[int, int]
    objects: tuple[VocObject, ...]


def looks_like_voc(path: Path) -> bool:
    """Return whether the XML file's outermost element is VOC's <annotation>."""
    try:
        with path.open("rb") as file:
            head = file.read(2000)
    except OSError:  # a dead link: told where the annotations are read
        return False
    return b"<annotation>" in head or b"<annotation " in head


def parse_xml(path: Path, problems: Problems) -> Annotation:
    """Return the annotation in the file; faults go to `problems` with the file and line or object."""
    empty = Annotation((0, 0), ())
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.add(f"{path}: {'is a dead link' if path.is_symlink() and not path.exists() else error.strerror}")
        return empty
    if b"<!ENTITY" in data:  # entities can blow up to gigabytes, and no annotation needs them
        problems.add(f"{path}: declares XML entities")
        return empty
    try:
        root = ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        problems.add(f"{path}:{error.position[0]}: is not valid XML: {error}")
        return empty
    if root.tag != "annotation":
        problems.add(f"{path}: the outermost element is <{root.tag}>, not <annotation>")
        return empty
    objects = []
    for number, element in enumerate(root.findall("object"), 1):
        parsed = _object(element)
        if isinstance(parsed, VocObject):
            objects.append(parsed)
        else:
            problems.add(f"{path}: object {number}: {parsed}")
    return Annotation((_whole(root, "size/height"), _whole(root, "size/width")), tuple(objects))


def _object(element: ElementTree.Element) -> VocObject | str:
    """Return the object, or what is wrong with it."""
    name = (element.findtext("name") or "").strip()
    if not name:
        return "has no name"
    texts = [element.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
    try:
        x0, y0, x1, y1 = (float(text or "") for text in texts)
    except ValueError:
        return f"the bndbox of '{name}' is {texts}"
    if not all(math.isfinite(value) for value in (x0, y0, x1, y1)):
        return f"the bndbox of '{name}' is {texts}"
    difficult = read_flag(element.findtext("difficult"))
    if difficult is None:
        return f"<difficult> of '{name}' is '{element.findtext('difficult')}', neither 0 nor 1"
    return VocObject(name, (x0, y0, x1, y1), difficult)


def _whole(root: ElementTree.Element, tag: str) -> int:
    """Return the whole number in the element, 0 where it is missing or none."""
    try:
        return int(float(root.findtext(tag) or 0))
    except (ValueError, OverflowError):
        return 0
