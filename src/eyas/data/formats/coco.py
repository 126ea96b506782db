"""COCO JSON: boxes as (left, top, width, height) in pixels, one JSON file a split.

Read from any of these:
    root/annotations/instances_SPLIT.json with pictures in root/SPLIT, root/images/SPLIT, root/images or root
    root/annotations/SPLIT.json, the same without the prefix
    root/SPLIT/_annotations.coco.json beside its pictures (Roboflow's export)
    one .json file of such a layout, given directly
Written as the first, with root/SPLIT.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eyas.checks import check_class_names
from eyas.data.formats.coco_parse import Columns, parse
from eyas.data.formats.found import Format, Found, Problems, canonical, relative_name
from eyas.data.index import DatasetIndex, build_index
from eyas.errors import UserError
from eyas.files import write_text
from eyas.text import json_text

ROBOFLOW = "_annotations.coco.json"
_PLAIN_SPLITS = frozenset({"train", "val", "test"})


def sniff(root: Path) -> tuple[Found, ...]:
    """Return the splits that lie in `root` as COCO JSON, in order of name."""
    if root.is_file():
        return (_found_file(root),) if root.suffix.lower() == ".json" else ()
    folder = root / "annotations"
    named = {path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("instances_*.json"))}
    if not named:
        named = {path.stem: path for path in sorted(folder.glob("*.json")) if canonical(path.stem) in _PLAIN_SPLITS}
    beside = {path.parent.name: path for path in sorted(root.glob(f"*/{ROBOFLOW}"))}
    if (root / ROBOFLOW).is_file():
        beside[root.name] = root / ROBOFLOW
    return tuple(Found(split, path, root) for split, path in {**named, **beside}.items())


def _found_file(path: Path) -> Found:
    """Return the split that one JSON file stands for; the root is where its layout begins."""
    if path.name == ROBOFLOW:
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
    ids, classes = _categories(columns.categories, found.source, _used(columns))
    image_ids = np.frombuffer(columns.image_ids, np.int64)
    pictures = _lookup(image_ids, np.frombuffer(columns.box_images, np.int64), "image", columns, problems)
    labels = _lookup(
        np.array(ids, np.int64), np.frombuffer(columns.box_categories, np.int64), "category", columns, problems
    )
    _check_ids(columns, problems)
    problems.raise_any("ids that stand once, and annotations of images and categories that the file lists")
    boxes = np.frombuffer(columns.boxes, np.float64).reshape(-1, 4).copy()
    boxes[:, 2:] += boxes[:, :2]
    folder = _picture_folder(found, columns.names)
    prefix = relative_name(folder, found.root)
    return build_index(
        root=found.root,
        split=canonical(found.split),
        classes=classes,
        names=columns.names
        if prefix == "."
        else [f"{prefix}/{name}" if name[:1] != "/" else name for name in columns.names],
        sizes=np.frombuffer(columns.sizes, np.int64).reshape(-1, 2),
        pictures=pictures,
        boxes=boxes,
        labels=labels,
        crowd=np.frombuffer(columns.crowd, np.int8) != 0,
        areas=np.frombuffer(columns.areas, np.float64),
        image_ids=image_ids,
        category_ids=ids,
    )


def _used(columns: Columns) -> frozenset[int]:
    """Return the category ids that annotations use."""
    return frozenset(np.unique(np.frombuffer(columns.box_categories, np.int64)).tolist())


def _categories(categories: Sequence[Any], source: Path, used: frozenset[int]) -> tuple[list[int], list[str]]:
    """Return the categories' ids, rising, and their names."""
    rows: dict[int, str] = {}
    problems = Problems(source)
    for category in categories:
        if (
            not isinstance(category, dict)
            or type(category.get("id")) is not int
            or not isinstance(category.get("name"), str)
        ):
            problems.add(f"the category {category!r:.80} lacks an integer 'id' or a 'name'")
        elif category["id"] in rows:
            problems.add(
                f"the category id {category['id']} stands twice ('{rows[category['id']]}', '{category['name']}')"
            )
        else:
            rows[category["id"]] = category["name"]
    problems.raise_any('categories such as {"id": 1, "name": "cat"}')
    rest = [c for c in categories if c["id"] != 0]
    placeholder = rows.get(0)
    # Roboflow's exports put the project's name as category 0, the supercategory of all others; it is no class.
    if rest and placeholder is not None and 0 not in used and all(c.get("supercategory") == placeholder for c in rest):
        del rows[0]
    ids = sorted(rows)
    classes = [rows[i] for i in ids]
    check_class_names(classes, str(source))
    return ids, classes


def _lookup(
    known: np.ndarray[Any, np.dtype[np.int64]],
    given: np.ndarray[Any, np.dtype[np.int64]],
    what: str,
    columns: Columns,
    problems: Problems,
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return for each of `given` its place in `known`; ids that are not there become problems."""
    if not len(known):
        raise UserError(f"The file lists no {what}.", where=str(problems.where))
    order = np.argsort(known, kind="stable")
    place = np.minimum(np.searchsorted(known[order], given), len(known) - 1)
    result = order[place]
    for row in np.flatnonzero(known[result] != given):
        problems.add(f"annotation {columns.annotation_ids[row]} is of {what} {given[row]}, which is not listed")
    return np.asarray(result, dtype=np.int64)


def _check_ids(columns: Columns, problems: Problems) -> None:
    """Note ids of images and annotations that stand twice."""
    for what, column in (("image", columns.image_ids), ("annotation", columns.annotation_ids)):
        values, counts = np.unique(np.frombuffer(column, np.int64), return_counts=True)
        for value, count in zip(values[counts > 1], counts[counts > 1], strict=True):
            if value >= 0 or what == "image":
                problems.add(f"the {what} id {value} stands {count} times")


def _picture_folder(found: Found, names: Sequence[str]) -> Path:
    """Return the folder that the picture names are relative to: the first where any picture is."""
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
    candidates = [beside] if found.source.name == ROBOFLOW else [*dict.fromkeys([*candidates, beside])]
    candidates = [folder for folder in candidates if folder.is_dir()]
    for some in (names[:20], names[20:]):
        for folder in candidates:
            if any((folder / name).is_file() for name in some):
                return folder
    if not names:
        return candidates[0] if candidates else root
    raise UserError(
        f"None of the {len(names)} pictures that {found.source.name} names is there, for example {names[0]}.",
        where=str(found.source),
        expected="the pictures in one of " + ", ".join(str(folder) for folder in candidates or [root / found.split]),
    )


def pictures(out: Path, split: str) -> Path:
    """Return the folder that the pictures of `split` go to."""
    return out / split


def write(splits: Sequence[DatasetIndex], out: Path) -> None:
    """Write out/annotations/instances_SPLIT.json of each split; its pictures lie in out/SPLIT already."""
    for index in splits:
        text = json_text(to_coco(index, out / index.split), separators=(",", ":"))
        write_text(out / "annotations" / f"instances_{index.split}.json", text + "\n")


def to_coco(index: DatasetIndex, folder: Path | None = None) -> dict[str, Any]:
    """Return the index as the dict of a COCO file; file names are relative to `folder` (the index's root if None)."""
    base = folder or index.root
    images = [
        {"id": int(image_id), "file_name": relative_name(path, base), "width": int(size[1]), "height": int(size[0])}
        for image_id, path, size in zip(index.image_ids, index.files, index.sizes, strict=True)
    ]
    # float32 prints with noise in its last digits as a float64: four decimals are far below any box's accuracy.
    xyxy = index.boxes.astype(np.float64)
    xywh = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1).round(4)
    ids = index.image_ids[index.picture_of_row()]
    annotations = [
        {
            "id": row + 1,
            "image_id": int(ids[row]),
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
    """Return no file: a COCO file that lists a missing picture shows in the index itself."""
    del found
    return ()


COCO = Format(
    name="coco",
    title="COCO JSON (annotations/instances_*.json or */_annotations.coco.json)",
    sniff=sniff,
    read=read,
    write=write,
    pictures=pictures,
    strays=strays,
    has_crowd=True,
)
