"""Which image belongs to which VOC annotation, and which annotations a list of ImageSets names.

An image belongs to the annotation of its stem; in sub-folders, to that of the same sub-folder where both have them.
<filename> decides where the stem finds several images ("a.jpg" and "a.png", or namesakes in two folders) or none (the
file was named otherwise). What stays open after that is refused: equal names never stand for each other.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eyas.data.formats.base import Problems, canonical, label_files, list_images
from eyas.data.formats.text import decode, split_lines, strip_blanks
from eyas.data.formats.voc_xml import Annotation, parse_xml
from eyas.errors import UserError, shorten
from eyas.files import read_regular
from eyas.image_files import is_image, search_folder
from eyas.path_ends import PathEnds, path_parts

_FLAGGED = re.compile(r"(.*?)\s+(?:-1|0|1)")  # a line of a class's own list: whether an image has one, or a hard one
_LOOKED_AT = 1000  # lines of a list, to tell whose it is
_SPLITS = frozenset({"train", "val", "test", "trainval"})


@dataclass
class Pairs:
    """The annotations of a dataset and their images.

    Attributes:
        images: XML file -> its image, which may not be there.
        alone: images that no annotation belongs to.
    """

    images: dict[Path, Path] = field(default_factory=dict)
    alone: list[Path] = field(default_factory=list)


def list_xml(folder: Path, *, below: bool = True) -> list[Path]:
    """Return the XML files in the folder, and `below` it, in order of name, dead links included: reading tells of them.

    Hidden files are left out, and of two that differ in the suffix's case the one in capitals.
    """
    if not below:
        return list(label_files(folder, ".xml").values())
    listing = search_folder(folder, frozenset({".xml"}))
    files = sorted([*listing.files, *listing.left_out.get("broken links", [])], key=str)
    return list({stem_of(path, folder): path for path in files}.values())


def pair(xmls: Sequence[Path], xml_root: Path, image_root: Path) -> Pairs:
    """Return which image below `image_root` belongs to which of the XML files below `xml_root`.

    Raises:
        UserError: an annotation fits several images, or an image several annotations.
    """
    known = list_images(image_root)
    names = [image.relative_to(image_root).as_posix() for image in known]
    finder = _Finder(names)
    owners: dict[int, list[Path]] = {}
    open_ones: list[tuple[Path, list[int]]] = []
    for xml in xmls:
        fitting = finder.by_stem(stem_of(xml, xml_root))
        if len(fitting) == 1:
            owners.setdefault(fitting[0], []).append(xml)
        else:
            open_ones.append((xml, fitting))
    problems = Problems(xml_root, "the annotations")
    unclaimed = [number for number in range(len(names)) if number not in owners]
    for xml, fitting in open_ones:
        free = fitting or unclaimed
        chosen = finder.by_filename(parse_xml(xml, Problems(xml)), free)
        if len(chosen) == 1:
            owners.setdefault(chosen[0], []).append(xml)
        elif chosen or fitting:
            several = shorten([names[number] for number in chosen or fitting], 3)
            problems.add(f"{xml}: matches {several}, and its <filename> does not decide")
    for number, xml_files in owners.items():
        if len(xml_files) > 1:
            problems.add(f"{shorten(xml_files, 3)} all belong to {names[number]}")
    problems.raise_any("one image per XML file: with the same name and subfolder, or named in <filename>")
    images = {xml_files[0]: known[number] for number, xml_files in owners.items()}
    alone = [image for number, image in enumerate(known) if number not in owners]
    missing = {xml: image_root / f"{stem_of(xml, xml_root)}.jpg" for xml in xmls if xml not in images}
    return Pairs({xml: images.get(xml) or missing[xml] for xml in xmls}, _without_twins(alone, images.values()))


def stem_of(path: Path, root: Path) -> str:
    """Return the path below `root` without its suffix, with forward slashes."""
    return path.as_posix().removeprefix(f"{root.as_posix().rstrip('/')}/").removesuffix(path.suffix)


class _Finder:
    """Finds images by what annotations say of them."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = PathEnds(names)
        self._stems = PathEnds(_without_suffix(name) for name in names)

    def by_stem(self, stem: str) -> list[int]:
        """Return the images that fit best."""
        return self._stems.find(stem)

    def by_filename(self, annotation: Annotation, among: Sequence[int]) -> list[int]:
        """Return which of `among` the annotation names: by <filename>, with <folder>, then by <path>, in any suffix."""
        best: list[int] = []
        wanted = set(among)
        folder = f"{annotation.folder}/{annotation.filename}" if annotation.folder else ""
        for text in (annotation.filename, folder, annotation.path):
            for found in (self._names.find(text), self._stems.find(_without_suffix(text))):
                fitting = [number for number in found if number in wanted]
                if len(fitting) == 1:
                    return fitting
                best = best or fitting
        return best


def _without_suffix(name: str) -> str:
    suffix = Path(path_parts(name)[-1]).suffix if path_parts(name) else ""
    return name.removesuffix(suffix) if suffix and is_image(Path(f"a{suffix}")) else name


def _without_twins(alone: Sequence[Path], images: Iterable[Path]) -> list[Path]:
    """Return the images without those that have an annotated one of the same stem beside them.

    Most often such a twin is the same photograph in another format: as a background image it would teach that
    nothing is in it.
    """
    taken = {image.with_suffix("") for image in images}
    twins = [image for image in alone if image.with_suffix("") in taken]
    if twins:
        warnings.warn(
            f"{len(twins)} images without an annotation share the name of an annotated one except for the suffix and "
            f"are left out: {shorten(twins, 3)}.",
            stacklevel=2,
        )
    return [image for image in alone if image.with_suffix("") not in taken]


class Annotations:
    """The XML files of a dataset, to be found by lines of a list.

    Args:
        xmls: the files.
        root: the folder that they lie below.

    Attributes:
        files: the files.
    """

    def __init__(self, xmls: Sequence[Path], root: Path) -> None:
        self._files = {stem_of(xml, root): xml for xml in xmls}
        self._ends = PathEnds(self._files)
        self.files = list(self._files.values())

    def lines(self, path: Path) -> list[str]:
        """Return the lines of a list that are not blank; names are left as they are."""
        return [line for line in split_lines(decode(read_regular(path))) if line in self._files or strip_blanks(line)]

    def find(self, line: str) -> list[Path]:
        """Return the files that a line names as a whole: by the very name, with blanks or a suffix, or by its end."""
        plain = strip_blanks(line)
        exact = self._files.get(line) or self._files.get(plain)
        if exact is not None:
            return [exact]
        return [self.files[number] for number in self._ends.find(_without_suffix(plain.removesuffix(".xml")))]

    def find_flagged(self, line: str) -> list[Path]:
        """Return the files that a line "name flag" of a class's own list names."""
        match = _FLAGGED.fullmatch(strip_blanks(line))
        return self.find(match[1]) if match else []

    def is_split(self, path: Path) -> bool:
        """Return whether a list says which images are in a split, and not which have objects of one class.

        A class's list has a flag after every name. A name may look so too ("street 1"), so a list is a class's only if
        no line of it is a name as a whole, and every line one without its flag.
        """
        lines = self.lines(path)[:_LOOKED_AT]
        if not lines or canonical(path.stem) in _SPLITS:
            return bool(lines)
        whole = any(line in self._files or strip_blanks(line) in self._files for line in lines)
        return whole or not all(self.find_flagged(line) for line in lines)


def image_sets(root: Path, annotations: Annotations) -> list[Path]:
    """Return the lists of ImageSets/Main that are splits; not "trainval" where it adds nothing to train and val."""
    folder = root / "ImageSets" / "Main"
    files = sorted(folder.glob("[!.]*.txt"))
    lists = {path.stem: path for path in files if annotations.is_split(path)}
    empty = [path.name for path in files if canonical(path.stem) in _SPLITS and not annotations.lines(path)]
    if lists and empty:
        warnings.warn(f"Empty lists are not splits: {shorten(empty)} (in {folder}).", stacklevel=3)
    if {"trainval", "train", "val"} <= lists.keys():
        whole, *parts = ({strip_blanks(s) for s in annotations.lines(lists[n])} for n in ("trainval", "train", "val"))
        if whole <= parts[0] | parts[1]:
            del lists["trainval"]
    return list(lists.values())


def listed(path: Path, annotations: Annotations, pairs: Pairs) -> list[Path]:
    """Return the XML files that a list names, in order.

    Raises:
        UserError: a line names none, or several.
    """
    stems = {xml: image.with_suffix("").as_posix() for xml, image in pairs.images.items()}
    by_image = PathEnds(stems.values())
    files = list(stems)
    chosen: list[Path] = []
    missing: list[str] = []
    for line in annotations.lines(path):
        found = annotations.find(line) or [files[n] for n in by_image.find(_without_suffix(strip_blanks(line)))]
        found = found or annotations.find_flagged(line)
        if len(found) > 1:
            raise UserError(
                f"{path.name} lists {strip_blanks(line)}, which could be {shorten(found, 3)}.",
                where=str(path),
                expected="names with their subfolder, such as cam1/0001",
            )
        missing += [] if found else [strip_blanks(line)]
        chosen += found
    if missing:
        raise UserError(
            f"{path.name} lists {len(missing)} images without an XML file: {shorten(missing)}.",
            where=str(path),
            expected=f"a file such as {missing[0]}.xml in the annotation folder for each",
            fix="" if "".join(missing).isascii() else "if the list is not in UTF-8 or UTF-16, save it in one of them",
        )
    return chosen
