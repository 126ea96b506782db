"""COCO JSON: boxes as (left, top, width, height) in pixels, one JSON file a split.

Read from any of these:
    root/annotations/instances_SPLIT.json with images in root/SPLIT, root/images/SPLIT, root/images or root
    root/annotations/SPLIT.json, the same without the prefix
    root/SPLIT/_annotations.coco.json beside its images (Roboflow's export)
    one .json file of such a layout, given directly
Written as the first, with root/SPLIT.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyas.data.formats.base import Format, Found, Problems, canonical, label_files, relative_name
from eyas.data.formats.class_names import class_names
from eyas.data.formats.coco_parse import Columns, parse
from eyas.data.formats.ids import Ids, places
from eyas.data.index import DatasetIndex, build_index, id_order
from eyas.errors import UserError
from eyas.files import write_text
from eyas.text import json_text
from eyas.types import Id, IntArray, plain_id

ROBOFLOW = "_annotations.coco.json"
_PLAIN_SPLITS = frozenset({"train", "val", "test"})


def sniff(root: Path) -> tuple[Found, ...]:
    """Return the splits that lie in `root` as COCO JSON, in order of name."""
    if root.is_file():
        return (_found_file(root),) if root.suffix.lower() == ".json" else ()
    if not root.is_dir():
        return ()
    files = label_files(root / "annotations", ".json")
    named = {stem.removeprefix("instances_"): path for stem, path in files.items() if stem.startswith("instances_")}
    if not named:
        named = {stem: path for stem, path in files.items() if canonical(stem) in _PLAIN_SPLITS}
    folders = [root, *(path for path in sorted(root.iterdir()) if path.is_dir())]
    beside = {folder.name: path for folder in folders if (path := _beside(folder))}
    return tuple(Found(split, path, root) for split, path in {**named, **beside}.items())


def _beside(folder: Path) -> Path | None:
    return next((path for path in label_files(folder, ".json").values() if path.name.lower() == ROBOFLOW), None)


def _found_file(path: Path) -> Found:
    """Return the split that one JSON file stands for; the root is where its layout begins."""
    if path.name.lower() == ROBOFLOW:
        return Found(path.parent.name, path, path.parent)
    root = path.parent.parent if path.parent.name == "annotations" else path.parent
    return Found(path.stem.removeprefix("instances_"), path, root)


def read(found: Found) -> DatasetIndex:
    """Return the index of one split.

    Raises:
        UserError: the file is no COCO JSON, or ids, categories or boxes in it are wrong; the first few are named.
    """
    columns = parse(found.source)
    problems = Problems(found.source)
    category_ids, classes = _categories(columns, found.source)
    images = _lookup(columns.image_ids, columns.box_images, "image", columns, problems)
    labels = _lookup(category_ids, columns.box_categories, "category", columns, problems)
    _check_ids(columns, problems)
    problems.raise_any("unique ids, and annotations whose image and category are listed")
    boxes = np.frombuffer(columns.boxes, np.float64).reshape(-1, 4).copy()
    boxes[:, 2:] += boxes[:, :2]
    folder, names = _images(found, columns.names)
    prefix = relative_name(folder, found.root)
    return build_index(
        root=found.root,
        split=canonical(found.split),
        classes=classes,
        names=names if prefix == "." else [f"{prefix}/{name}" if name[:1] != "/" else name for name in names],
        sizes=np.frombuffer(columns.sizes, np.int64).reshape(-1, 2),
        images=images,
        boxes=boxes,
        labels=labels,
        crowd=np.frombuffer(columns.crowd, np.int8) != 0,
        areas=np.frombuffer(columns.areas, np.float64),
        image_ids=columns.image_ids.values() if columns.image_ids.others else columns.image_ids.array(),
        category_ids=category_ids.values(),
    )


def _categories(columns: Columns, source: Path) -> tuple[Ids, list[str]]:
    """Return the categories' ids, rising, and their names."""
    rows: dict[Id, str] = {}
    problems = Problems(source)
    for entry in columns.categories:
        number = plain_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str):
            problems.add(f"the category {entry!r:.80} lacks an 'id' (an integer or text) or a 'name'")
        elif number in rows:
            problems.add(f"the category id {number!r} occurs twice ('{rows[number]}', '{entry['name']}')")
        else:
            rows[number] = entry["name"]
    problems.raise_any('categories such as {"id": 1, "name": "cat"}')
    rest = [entry for entry in columns.categories if plain_id(entry["id"]) != 0]
    placeholder = rows.get(0)
    # Roboflow's exports put the project's name as category 0, the supercategory of all others; it is no class.
    if rest and placeholder is not None and all(entry.get("supercategory") == placeholder for entry in rest):
        found, _ = places(Ids([0]), columns.box_categories)
        if (found < 0).all():
            del rows[0]
    ids = sorted(rows, key=id_order)
    return Ids(ids), class_names([rows[i] for i in ids], str(source))


def _lookup(known: Ids, given: Ids, what: str, columns: Columns, problems: Problems) -> IntArray:
    """Return for each of `given` its row in `known`; ids that are not there become problems."""
    if not len(known):
        raise UserError(f"The file lists no {what}.", where=str(problems.where))
    found, differ = places(known, given)
    for row in np.flatnonzero(found < 0).tolist():
        problems.add(f"annotation {columns.annotation_ids[row]!r} refers to {what} {given[row]!r}, which is not listed")
    for number in known.alike():
        problems.add(f'the {what} ids {number} and "{number}" differ only in type')
    if differ:
        warnings.warn(
            f"{problems.where.name}: {differ} of {len(given)} annotations give their {what} id as text and the list "
            "as a number, or vice versa; they are treated as equal.",
            stacklevel=2,
        )
    return found


def _check_ids(columns: Columns, problems: Problems) -> None:
    for what, column in (("image", columns.image_ids), ("annotation", columns.annotation_ids)):
        for value, count in column.twice():
            if what == "image" or not isinstance(value, int) or value >= 0:
                problems.add(f"the {what} id {value!r} occurs {count} times")


def _images(found: Found, names: list[str]) -> tuple[Path, list[str]]:
    """Return the folder that the image names are relative to, and the names; of Windows, if they only fit so."""
    try:
        return _image_folder(found, names), names
    except UserError:
        plain = [name.replace("\\", "/") for name in names]
        if plain == names:
            raise
        return _image_folder(found, plain), plain


def _image_folder(found: Found, names: Sequence[str]) -> Path:
    """Return the folder that the image names are relative to: the first where any image is."""
    beside = found.source.parent
    root = found.root
    other = {"val": "valid", "valid": "val"}.get(found.split, canonical(found.split))
    candidates = [
        root / found.split,
        root / "images" / found.split,
        root / other,
        root / "images" / other,
        root / "images",
        root,
    ]
    candidates = [beside] if found.source.name.lower() == ROBOFLOW else [*dict.fromkeys([*candidates, beside])]
    candidates = [folder for folder in candidates if folder.is_dir()]
    for some in (names[:20], names[20:]):
        for folder in candidates:
            if any((folder / name).is_file() for name in some):
                return folder
    if not names:
        return candidates[0] if candidates else root
    raise UserError(
        f"None of the {len(names)} images listed in {found.source.name} exists, for example {names[0]}.",
        where=str(found.source),
        expected="the images in one of " + ", ".join(str(folder) for folder in candidates or [root / found.split]),
    )


def images(out: Path, split: str) -> Path:
    """Return the folder that the images of `split` go to."""
    return out / split


def write(splits: Sequence[DatasetIndex], out: Path) -> None:
    """Write out/annotations/instances_SPLIT.json of each split; its images lie in out/SPLIT already."""
    for index in splits:
        text = json_text(to_coco(index, out / index.split), separators=(",", ":"))
        write_text(out / "annotations" / f"instances_{index.split}.json", text + "\n")


def to_coco(index: DatasetIndex, folder: Path | None = None) -> dict[str, Any]:
    """Return the index as the dict of a COCO file; file names are relative to `folder` (the index's root if None)."""
    base = folder or index.root
    ids = index.source_ids()
    images = [
        {"id": image_id, "file_name": relative_name(path, base), "width": int(size[1]), "height": int(size[0])}
        for image_id, path, size in zip(ids, index.files, index.sizes, strict=True)
    ]
    # float32 prints with noise in its last digits as a float64: four decimals are far below any box's accuracy.
    xyxy = index.boxes.astype(np.float64)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).round(4)
    owner = index.image_of_row().tolist()
    annotations = [
        {
            "id": row + 1,
            "image_id": ids[owner[row]],
            "category_id": index.category_ids[index.labels[row]],
            "bbox": xywh[row].tolist(),
            "area": round(float(index.areas[row]), 4),
            "iscrowd": int(index.crowd[row]),
        }
        for row in range(len(index.boxes))
    ]
    categories = [{"id": i, "name": name} for i, name in zip(index.category_ids, index.classes, strict=True)]
    return {"info": {}, "licenses": [], "images": images, "annotations": annotations, "categories": categories}


def strays(found: Found) -> tuple[Path, ...]:
    """Return no file: a COCO file that lists a missing image shows in the index itself."""
    del found
    return ()


COCO = Format(
    name="coco",
    title="COCO JSON (annotations/instances_*.json or */_annotations.coco.json)",
    sniff=sniff,
    read=read,
    write=write,
    images=images,
    strays=strays,
    has_crowd=True,
)
