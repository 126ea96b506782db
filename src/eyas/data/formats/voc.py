"""Pascal VOC: one XML file an image, corners in whole pixels counted from 1, both ends inside the box.

Read from any of these:
    root/JPEGImages, root/Annotations/*.xml and root/ImageSets/Main/SPLIT.txt
    root/images with root/annotations/*.xml (or the names above without ImageSets): one split, "all"
    root/SPLIT/*.xml beside their images (Roboflow's export), or root/*.xml: one split, "all"
Images and XML files may lie in sub-folders; see voc_layout for which belongs to which.
A classes.txt in the root fixes the order of the classes; without one they are those of all XML files, sorted.
"Difficult" objects are read and written as crowds: neither is trained on, and neither counts in evaluation.
Written as the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from eyas.data.formats.base import (
    Format,
    Found,
    Problems,
    canonical,
    read_sizes,
    relative_name,
    tell_unlabelled,
)
from eyas.data.formats.class_names import class_names
from eyas.data.formats.text import read_names, strip_blanks
from eyas.data.formats.voc_layout import Annotations, Pairs, image_sets, list_xml, listed, pair
from eyas.data.formats.voc_xml import Annotation, looks_like_voc, parse_xml
from eyas.data.index import DatasetIndex, build_index
from eyas.errors import UserError, shorten
from eyas.files import write_text

_ANNOTATIONS = ("Annotations", "annotations", "labels")
_IMAGES = ("JPEGImages", "images", "Images")
_CLASSES = "classes.txt"
_LOOKED_AT = 20  # XML files of a folder, to tell whether it holds VOC annotations


def sniff(root: Path) -> tuple[Found, ...]:
    """Return the splits that lie in `root` as Pascal VOC."""
    if not root.is_dir():
        return ()
    folder = _annotation_folder(root)
    if folder:
        sets = image_sets(root, Annotations(list_xml(folder), folder))
        return tuple(Found(s.stem, s, root) for s in sets) if sets else (Found("all", folder, root),)
    folders = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name not in _ANNOTATIONS and not path.name.startswith(".")
    ]
    # Once one folder is a split, another is one too whose files lie in sub-folders: else it would vanish.
    if any(_has_voc(folder, below=False) for folder in folders):
        return tuple(Found(folder.name, folder, root) for folder in folders if _has_voc(folder, below=True))
    return (Found("all", root, root),) if _has_voc(root, below=False) else ()


def _has_voc(folder: Path, *, below: bool) -> bool:
    if any(looks_like_voc(path) for path in list_xml(folder, below=False)[:_LOOKED_AT]):
        return True
    return below and any(looks_like_voc(path) for path in list_xml(folder)[:_LOOKED_AT])


def _annotation_folder(root: Path) -> Path | None:
    return next((root / name for name in _ANNOTATIONS if _has_voc(root / name, below=True)), None)


def read(found: Found) -> DatasetIndex:
    """Return the index of one split.

    Raises:
        UserError: an XML file is missing or malformed; the first few are named.
    """
    problems = Problems(found.source, "the annotations")
    dataset = _Dataset(found.root)
    pairs = dataset.images(found)
    parsed = {xml: parse_xml(xml, problems) for _, xml in pairs if xml is not None}
    tell_unlabelled(found.split, len(parsed), len(pairs))
    classes = _classes(found, dataset, parsed, problems)
    problems.raise_any("VOC XML with a name and xmin, ymin, xmax, ymax for each object")
    place = {name: i for i, name in enumerate(classes)}
    unknown = sorted({o.name for a in parsed.values() for o in a.objects} - place.keys())
    if unknown:
        raise UserError(f"{_CLASSES} lacks the classes {shorten(unknown)}.", where=str(found.root / _CLASSES))
    rows = [(i, o) for i, (_, xml) in enumerate(pairs) if xml is not None for o in parsed[xml].objects]
    boxes = np.array([o.box for _, o in rows], np.float64).reshape(-1, 4)
    # From "pixel 1 to pixel n, both inside" to edges; tools that count from 0 write a 0, which stays at the edge.
    boxes[:, :2] = np.where(boxes[:, :2] < 1, np.minimum(boxes[:, :2], 0), boxes[:, :2] - 1)
    sizes = np.array([parsed[xml].size if xml is not None else (0, 0) for _, xml in pairs], np.int32)
    unsized = np.flatnonzero((sizes <= 0).any(axis=1))
    sizes[unsized] = read_sizes([pairs[i][0] for i in unsized])
    return build_index(
        root=found.root,
        split=canonical(found.split),
        classes=class_names(classes, str(found.root / _CLASSES if (found.root / _CLASSES).is_file() else found.source)),
        names=[relative_name(image, found.root) for image, _ in pairs],
        sizes=sizes,
        images=[i for i, _ in rows],
        boxes=boxes,
        labels=[place[o.name] for _, o in rows],
        crowd=[o.difficult for _, o in rows],
    )


class _Dataset:
    """The files of a dataset, looked for once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = _annotation_folder(root)

    @cached_property
    def annotations(self) -> Annotations:
        """The XML files of the annotations' folder."""
        assert self.folder is not None
        return Annotations(list_xml(self.folder), self.folder)

    @cached_property
    def pairs(self) -> Pairs:
        """Their images."""
        assert self.folder is not None
        return pair(self.annotations.files, self.folder, _image_folder(self.root))

    def xmls(self, found: Found) -> list[Path]:
        """Return the XML files of a split."""
        if found.source.is_file():
            return listed(found.source, self.annotations, self.pairs)
        return list_xml(found.source, below=found.source != self.root)

    def images(self, found: Found) -> list[tuple[Path, Path | None]]:
        """Return (image, its XML file) of the split in order; None for a background image without XML."""
        xmls = self.xmls(found)
        if found.source.is_file():
            return [(self.pairs.images[xml], xml) for xml in xmls]
        pairs = self.pairs if found.source == self.folder else pair(xmls, found.source, found.source)
        # Images may lie in sub-folders of a split's folder; in those of a root without splits lies anything.
        alone = [image for image in pairs.alone if found.source != self.root or image.parent == self.root]
        every = [*((image, xml) for xml, image in pairs.images.items()), *((image, None) for image in alone)]
        return sorted(every, key=lambda each: each[0].with_suffix(""))


def _image_folder(root: Path) -> Path:
    for folder in (root / name for name in _IMAGES):
        if folder.is_dir():
            return folder
    return root


def _classes(found: Found, dataset: _Dataset, parsed: dict[Path, Annotation], problems: Problems) -> list[str]:
    """Return the class names: those of classes.txt, else of all XML files of the dataset, sorted."""
    names = found.root / _CLASSES
    if names.is_file():
        classes = read_names(names)
    else:
        others = {xml for split in sniff(found.root) for xml in dataset.xmls(split)} - parsed.keys()
        every: Iterable[Annotation] = [*parsed.values(), *(parse_xml(xml, problems) for xml in sorted(others))]
        classes = sorted({o.name for annotation in every for o in annotation.objects})
    problems.raise_any("VOC XML with a name and xmin, ymin, xmax, ymax for each object")
    return classes


def strays(found: Found) -> tuple[Path, ...]:
    """Return the XML files of the split whose image is not there."""
    return tuple(xml for image, xml in _Dataset(found.root).images(found) if xml is not None and not image.is_file())


def images(out: Path, split: str) -> Path:
    """Return the folder that the images of every split go to."""
    del split
    return out / "JPEGImages"


def refuse(splits: Sequence[DatasetIndex]) -> None:
    """Refuse class names that a line of text and an XML element would not give back.

    Raises:
        UserError: a class name begins or ends with blanks.
    """
    odd = [name for name in splits[0].classes if name != strip_blanks(name)]
    if odd:
        raise UserError(
            "Pascal VOC can't store class names with leading or trailing blanks: "
            f"{shorten([repr(name) for name in odd])}.",
            where=str(splits[0].root),
            fix="rename them in the source, or convert to coco or yolo",
        )


def write(splits: Sequence[DatasetIndex], out: Path) -> None:
    """Write Annotations/*.xml, ImageSets/Main/SPLIT.txt and classes.txt; boxes are rounded and cut to the frame."""
    folder = out / "Annotations"
    folder.mkdir(parents=True, exist_ok=True)
    for index in splits:
        stems = []
        for number in range(len(index)):
            path = index.path(number)
            stems.append(path.stem)
            (folder / f"{path.stem}.xml").write_text(_xml(index, number, path), encoding="utf-8")
        write_text(out / "ImageSets" / "Main" / f"{index.split}.txt", "".join(f"{stem}\n" for stem in stems))
    write_text(out / _CLASSES, "".join(f"{name}\n" for name in splits[0].classes))


def _xml(index: DatasetIndex, number: int, path: Path) -> str:
    """Return the XML of one image."""
    height, width = (int(side) for side in index.sizes[number])
    lines = [
        "<annotation>",
        f"  <folder>{escape(path.parent.name)}</folder>",
        f"  <filename>{escape(path.name)}</filename>",
        f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>",
        "  <segmented>0</segmented>",
    ]
    for box, label, crowd in zip(*index.truth(number), strict=True):
        x0, y0, x1, y1 = (float(v) for v in np.clip(box, 0, [width, height, width, height]))
        if not (x1 > x0 and y1 > y0):
            continue
        left, top = min(round(x0), width - 1), min(round(y0), height - 1)
        right, bottom = max(round(x1), left + 1), max(round(y1), top + 1)
        lines += [
            f"  <object><name>{escape(index.classes[label])}</name><pose>Unspecified</pose><truncated>0</truncated>"
            f"<difficult>{int(crowd)}</difficult>",
            f"    <bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin>"
            f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox>",
            "  </object>",
        ]
    return "\n".join([*lines, "</annotation>", ""])


VOC = Format(
    name="voc",
    title="Pascal VOC (Annotations/*.xml with JPEGImages, or XML files next to the images)",
    sniff=sniff,
    read=read,
    write=write,
    images=images,
    strays=strays,
    has_crowd=True,
    refuse=refuse,
)
