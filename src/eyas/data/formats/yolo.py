"""YOLO txt: one label file an image, a row "class centre_x centre_y width height" an object, in fractions of the size.

Read: data.yaml (or the file itself) with splits that are folders, lists of folders or .txt lists of images; label
files in the folder "labels" beside "images", or beside the images. Of rows with a polygon or an oriented box the
upright box around it is taken, of rows with keypoints their box (see yolo_kinds). An image without a label file is a
background image. Written as out/images/SPLIT, out/labels/SPLIT, out/data.yaml.
"""

from __future__ import annotations

import json
import re
import warnings
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from eyas.data.formats.base import (
    Format,
    Found,
    Problems,
    canonical,
    label_files,
    list_images,
    read_sizes,
    relative_name,
    tell_unlabelled,
)
from eyas.data.formats.class_names import class_names
from eyas.data.formats.image_lists import read_list
from eyas.data.formats.yolo_kinds import KINDS, find_layout
from eyas.data.formats.yolo_rows import RowLayout, parse_rows
from eyas.data.formats.yolo_yaml import DataYaml, find_yaml, read_yaml
from eyas.data.index import DatasetIndex, build_index
from eyas.errors import UserError, shorten
from eyas.files import read_regular, write_text

_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})  # that YAML makes something else of


def sniff(root: Path) -> tuple[Found, ...]:
    """Return the splits that the root's data.yaml names; a test split that was not exported is left out."""
    path = find_yaml(root)
    if path is None:
        return ()
    data = read_yaml(path)
    found = []
    for split, entries in data.splits.items():
        if canonical(split) == "test" and not any(data.resolve(entry) for entry in entries):
            warnings.warn(f"{path.name} lists a test split that does not exist: {', '.join(entries)}.", stacklevel=2)
            continue
        found.append(Found(split, path, path.parent))
    return tuple(found)


def read(found: Found) -> DatasetIndex:
    """Return the index of one split; image sizes come from the images' headers.

    Raises:
        UserError: a folder is missing, no label file is there at all, or rows are malformed (file and line are named).
    """
    data = read_yaml(found.source)
    names = class_names(data.classes, str(found.source))
    paths = _images(found, data)
    labels = label_paths(paths)
    problems = Problems(found.source.parent, "label files")

    @cache
    def layout() -> RowLayout:
        return _layout(found, data)

    images, classes, boxes = array("q"), array("q"), array("d")
    seen = 0
    for number, path in enumerate(labels):
        try:
            text = read_regular(path)
        except OSError as error:
            if path.is_symlink() or not isinstance(error, FileNotFoundError):
                problems.add(f"{path}: {'is a broken link' if not path.exists() else error.strerror}")
            continue
        seen += 1
        rows = parse_rows(text, path, len(names), layout, problems)
        images.extend([number] * len(rows))
        for label, box in rows:
            classes.append(label)
            boxes.extend(box)
    problems.raise_any('rows "class centre_x centre_y width height", the last four from 0 to 1')
    if not seen:
        raise UserError(
            f"None of the {len(paths)} images of the split '{found.split}' has a label file.",
            where=str(paths[0].parent),
            expected=f"for {paths[0].name} the file {labels[0]}",
        )
    tell_unlabelled(found.split, seen, len(paths))
    sizes = read_sizes(paths)
    owner = np.frombuffer(images, np.int64)
    scale = sizes[owner][:, [1, 0, 1, 0]].astype(np.float64)
    known = scale.all(axis=1)  # a broken image has no size, so its boxes have no pixels
    return build_index(
        root=found.root,
        split=canonical(found.split),
        classes=names,
        names=[relative_name(path, found.root) for path in paths],
        sizes=sizes,
        images=owner[known],
        boxes=(np.frombuffer(boxes, np.float64).reshape(-1, 4) * scale)[known],
        labels=np.frombuffer(classes, np.int64)[known],
    )


def _layout(found: Found, data: DataYaml) -> RowLayout:
    """Return what long rows hold: what the user says, else what data.yaml says, else what the rows of all splits show.

    Raises:
        UserError: the rows can be of several kinds.
    """
    if found.rows is not None:
        kind = next(kind for kind in KINDS if kind == found.rows)
        return RowLayout(kind, data.kpt_shape if kind == "keypoints" else None)
    if data.kpt_shape is not None:
        return RowLayout("keypoints", data.kpt_shape)
    labels = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each split tells of its own faults when it is read
        for split in data.splits:
            try:
                labels += label_paths(_images(Found(split, found.source, found.root), data))
            except UserError:
                continue
    return find_layout(labels, found.source)


def _images(found: Found, data: DataYaml) -> list[Path]:
    """Return the images of the split in order.

    Raises:
        UserError: an entry leads nowhere, or there is no image.
    """
    paths: list[Path] = []
    for entry in data.splits[found.split]:
        target = data.resolve(entry)
        if target is None:
            raise UserError(
                f"{data.path.name} says {found.split}: {entry}, but there is no such folder or list.",
                where=str(data.path),
                expected=f"a path relative to {data.base}",
                fix=f"correct or remove the line '{found.split}:'",
            )
        if target.is_dir():
            paths += list_images(target)
        elif target.suffix.lower() == ".txt":
            paths += read_list(target, tuple(dict.fromkeys((target.parent, *data.bases))))
        else:
            paths.append(target)
        if entry in data.moved:
            warnings.warn(
                f"{data.path.name} says {found.split}: {entry}, which does not exist; {target} is used.", stacklevel=3
            )
    if not paths:
        raise UserError(f"The split '{found.split}' has no images.", where=", ".join(data.splits[found.split]))
    return paths


def label_paths(paths: Sequence[Path]) -> list[Path]:
    """Return where each image's label file is, in the first of its label folders that has one, or would be."""
    folders = {folder: _label_folders(folder) for folder in dict.fromkeys(path.parent for path in paths)}
    files = {folder: [label_files(place, ".txt") for place in places] for folder, places in folders.items()}
    chosen, twice = [], []
    for path in paths:
        found = [names[path.stem] for names in files[path.parent] if path.stem in names]
        chosen.append(found[0] if found else folders[path.parent][0] / (path.stem + ".txt"))
        twice += found[:1] if len(found) > 1 else []
    if twice:
        warnings.warn(
            f"{len(twice)} images also have a label file next to them, which is not read; the files used are: "
            f"{shorten(twice, 3)}.",
            stacklevel=2,
        )
    _tell_shared(paths, chosen)
    return chosen


def _tell_shared(paths: Sequence[Path], labels: Sequence[Path]) -> None:
    """Warn of images that have one label file together, which may be meant for one of them: "a.jpg" and "a.png"."""
    owners: dict[Path, Path] = {}
    shared = [p for p, label in zip(paths, labels, strict=True) if owners.setdefault(label, p) != p and label.exists()]
    if shared:
        warnings.warn(
            f"{len(shared)} images share a label file with an image whose name differs only in the suffix; its rows "
            f"apply to both: {shorten(shared, 3)}.",
            stacklevel=3,
        )


def _label_folders(folder: Path) -> list[Path]:
    """Return where labels of an image folder may lie, first the usual place: "labels" for its last part "images".

    Where the folder was reached through a link, they may lie beside what it leads to.
    """
    candidates = []
    for place in dict.fromkeys((folder, folder.resolve())):
        parts = [i for i, part in enumerate(place.parts) if part == "images"]
        candidates += [Path(*place.parts[:i], "labels", *place.parts[i + 1 :]) for i in parts[-1:]]
        candidates += [place / "labels"] if (place / "labels").is_dir() else []
        candidates.append(place)
    different: dict[Path, Path] = {}
    for candidate in candidates:
        different.setdefault(candidate.resolve(), candidate)
    return list(different.values())


def strays(found: Found) -> tuple[Path, ...]:
    """Return the label files of the split that belong to no image of any split."""
    data = read_yaml(found.source)
    labels = set(label_paths(_images(found, data)))
    present = {
        path
        for folder in {p.parent for p in labels}
        if folder.name != "images"
        for path in label_files(folder, ".txt").values()
    } - labels
    listed = {data.resolve(entry) for entries in data.splits.values() for entry in entries}
    others = [split for split in data.splits if split != found.split and present]
    for split in others:  # several lists of images may share one folder of labels
        try:
            present -= set(label_paths(_images(replace(found, split=split), data)))
        except UserError:  # told where that split is read
            continue
    return tuple(sorted(p for p in present - listed if p.name != "classes.txt"))


def images(out: Path, split: str) -> Path:
    """Return the folder that the images of `split` go to."""
    return out / "images" / split


def write(splits: Sequence[DatasetIndex], out: Path) -> None:
    """Write the label files of each split and data.yaml; boxes are cut to the frame, crowds and empty ones left out."""
    for index in splits:
        folder = out / "labels" / index.split
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(len(index)):
            path = index.path(number)
            text = _rows_text(index, number)
            (folder / (path.stem + ".txt")).write_text(text, encoding="ascii")
    lines = [f"{_key(index.split)}: {_key(f'images/{index.split}')}" for index in splits]
    names = [f"  {i}: {_quoted(name)}" for i, name in enumerate(splits[0].classes)]
    write_text(out / "data.yaml", "\n".join([*lines, f"nc: {len(names)}", "names:", *names]) + "\n")


def _quoted(text: str) -> str:
    """Return the text as a YAML string that every reader takes for text: a JSON string, all of it printable."""
    escaped = re.compile("[\x7f-\xa0\xad\u2028\u2029\ufeff\ufffe\uffff]")
    return escaped.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(text, ensure_ascii=False))


def _key(text: str) -> str:
    """Return the text as YAML: plain where every reader takes it for text."""
    plain = re.fullmatch(r"(images/)?[A-Za-z][A-Za-z0-9_-]*", text) and text.lower() not in _WORDS
    return text if plain else _quoted(text)


def _rows_text(index: DatasetIndex, number: int) -> str:
    """Return the label file's text of one image."""
    boxes, labels, crowd = index.truth(number)
    height, width = (int(side) for side in index.sizes[number])
    if not height or not width:
        return ""
    limit = np.array([width, height, width, height], np.float64)
    corners = np.clip(boxes.astype(np.float64) / limit, 0, 1)
    size = corners[:, 2:] - corners[:, :2]
    centre = (corners[:, :2] + corners[:, 2:]) / 2
    kept = (size > 0).all(axis=1) & ~crowd
    rows = zip(labels[kept], np.concatenate([centre, size], axis=1)[kept], strict=True)
    return "".join(f"{label} {' '.join(f'{value:.6f}' for value in row)}\n" for label, row in rows)


YOLO = Format(
    name="yolo",
    title="YOLO txt (a data.yaml with folders of images and labels)",
    sniff=sniff,
    read=read,
    write=write,
    images=images,
    strays=strays,
    has_crowd=False,
    says_sizes=False,
)
