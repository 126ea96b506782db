"""YOLO txt: one label file a picture, a row "class centre_x centre_y width height" an object, in fractions of the size.

Read: data.yaml (or the file itself) with splits that are folders, lists of folders or .txt lists of pictures; label
files in the folder "labels" beside "images", or beside the pictures. Polygon rows become their bounding boxes. A
picture without a label file is a background picture. Written as out/images/SPLIT, out/labels/SPLIT, out/data.yaml.
"""

from __future__ import annotations

import json
import warnings
from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eyas.checks import check_class_names
from eyas.data.formats.found import Format, Found, Problems, canonical, list_pictures, read_sizes, relative_name
from eyas.data.formats.yolo_rows import parse_rows
from eyas.data.formats.yolo_yaml import DataYaml, find_yaml, read_yaml
from eyas.data.index import DatasetIndex, build_index
from eyas.errors import UserError
from eyas.files import write_text


def sniff(root: Path) -> tuple[Found, ...]:
    """Return the splits that the root's data.yaml names; a test split that was not exported is left out."""
    path = find_yaml(root)
    if path is None:
        return ()
    data = read_yaml(path)
    found = []
    for split, entries in data.splits.items():
        if canonical(split) == "test" and not any(data.resolve(entry) for entry in entries):
            warnings.warn(f"{path.name} names a test split that is not there: {', '.join(entries)}.", stacklevel=2)
            continue
        found.append(Found(split, path, path.parent))
    return tuple(found)


def read(found: Found) -> DatasetIndex:
    """Return the index of one split; picture sizes come from the pictures' headers.

    Raises:
        UserError: a folder is missing, no label file is there at all, or rows are malformed (file and line are named).
    """
    data = read_yaml(found.source)
    check_class_names(data.classes, str(found.source))
    paths = _pictures(found, data)
    labels = label_paths(paths)
    problems = Problems(found.source.parent, "label files")
    pictures, classes, boxes = array("q"), array("q"), array("d")
    seen = 0
    for number, path in enumerate(labels):
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            continue
        seen += 1
        rows = parse_rows(text, path, len(data.classes), data.has_keypoints, problems)
        pictures.extend([number] * len(rows))
        for label, box in rows:
            classes.append(label)
            boxes.extend(box)
    problems.raise_any('rows "class centre_x centre_y width height", the last four from 0 to 1')
    if not seen:
        raise UserError(
            f"No label file was found for any of the {len(paths)} pictures of the split '{found.split}'.",
            where=str(paths[0].parent),
            expected=f"for {paths[0].name} the file {labels[0]}",
        )
    sizes = read_sizes(paths)
    owner = np.frombuffer(pictures, np.int64)
    scale = sizes[owner][:, [1, 0, 1, 0]].astype(np.float64)
    known = scale.all(axis=1)  # a broken picture has no size, so its boxes have no pixels
    return build_index(
        root=found.root,
        split=canonical(found.split),
        classes=data.classes,
        names=[relative_name(path, found.root) for path in paths],
        sizes=sizes,
        pictures=owner[known],
        boxes=(np.frombuffer(boxes, np.float64).reshape(-1, 4) * scale)[known],
        labels=np.frombuffer(classes, np.int64)[known],
    )


def _pictures(found: Found, data: DataYaml) -> list[Path]:
    """Return the pictures of the split in order.

    Raises:
        UserError: an entry leads nowhere, or there is no picture.
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
            paths += list_pictures(target)
        elif target.suffix == ".txt":
            lines = [line.strip() for line in target.read_text(encoding="utf-8").splitlines()]
            paths += [_listed(line, target, data) for line in lines if line]
        else:
            paths.append(target)
    if not paths:
        raise UserError(f"The split '{found.split}' has no picture.", where=", ".join(data.splits[found.split]))
    return paths


def _listed(line: str, source: Path, data: DataYaml) -> Path:
    """Return the path that a line of a list of pictures means: from the list's folder, the root, or absolute."""
    for base in (source.parent, data.base):
        if (base / line).is_file():
            return base / line
    return data.base / line


def label_paths(paths: Sequence[Path]) -> list[Path]:
    """Return where each picture's label file is, or would be."""
    folders = {folder: _label_folder(folder) for folder in dict.fromkeys(path.parent for path in paths)}
    return [folders[path.parent] / (path.stem + ".txt") for path in paths]


def _label_folder(folder: Path) -> Path:
    """Return the label folder of a picture folder: "labels" for its last part "images", else beside the pictures."""
    places = [i for i, part in enumerate(folder.parts) if part == "images"]
    swapped = Path(*folder.parts[: places[-1]], "labels", *folder.parts[places[-1] + 1 :]) if places else None
    for candidate in (swapped, folder / "labels", folder):
        if candidate is not None and candidate.is_dir() and next(candidate.glob("*.txt"), None):
            return candidate
    return swapped or folder


def strays(found: Found) -> tuple[Path, ...]:
    """Return the label files of the split that belong to no picture."""
    data = read_yaml(found.source)
    labels = set(label_paths(_pictures(found, data)))
    present = {
        path for folder in {p.parent for p in labels} if folder.name != "images" for path in folder.glob("*.txt")
    }
    listed = {data.resolve(entry) for entries in data.splits.values() for entry in entries}
    return tuple(sorted(p for p in present - labels - listed if p.name != "classes.txt"))


def pictures(out: Path, split: str) -> Path:
    """Return the folder that the pictures of `split` go to."""
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
    lines = [f"{index.split}: images/{index.split}" for index in splits]
    # A JSON string is a YAML string, so any name is quoted right.
    names = [f"  {i}: {json.dumps(name, ensure_ascii=False)}" for i, name in enumerate(splits[0].classes)]
    write_text(out / "data.yaml", "\n".join([*lines, f"nc: {len(names)}", "names:", *names]) + "\n")


def _rows_text(index: DatasetIndex, number: int) -> str:
    """Return the label file's text of one picture."""
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
    title="YOLO txt (a data.yaml beside images and labels)",
    sniff=sniff,
    read=read,
    write=write,
    pictures=pictures,
    strays=strays,
    has_crowd=False,
)
