"""Small datasets on disk for the tests of formats and of the work on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from eyas.data.index import DatasetIndex, build_index

CLASSES = ("cat", "dog", "traffic light")
Box = Sequence[float]


def write_jpeg(path: Path, height: int = 30, width: int = 40, seed: int = 0) -> Path:
    """Write a smooth random image, another one for each seed."""
    import cv2

    rough = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simplejpeg.encode_jpeg(image, quality=90))
    return path


def coco_dict(names: Sequence[str], rows: Sequence[tuple[int, int, Box]]) -> dict[str, Any]:
    """Return a COCO file's dict: images 1, 2, ... of 40 x 30, and (image id, category id, xywh) rows."""
    return {
        "images": [{"id": i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names, 1)],
        "annotations": [
            {"id": n, "image_id": i, "category_id": c, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
            for n, (i, c, box) in enumerate(rows, 1)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }


def write_json(path: Path, value: Any) -> Path:
    """Write a JSON file, folders included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def edit_coco(root: Path, change: Callable[[dict[str, Any]], object], split: str = "train") -> Path:
    """Change the annotation file of a split of a COCO dataset and return the root."""
    path = root / "annotations" / f"instances_{split}.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    change(document)
    write_json(path, document)
    return root


def coco_root(root: Path, splits: Mapping[str, Sequence[tuple[int, int, Box]]] | None = None) -> Path:
    """Write a COCO dataset with two images a split and return its root."""
    rows = splits or {"train": [(1, 1, (2, 3, 10, 12)), (1, 3, (20, 5, 8, 8))], "val": [(2, 2, (0, 0, 40, 30))]}
    for number, (split, its_rows) in enumerate(rows.items()):
        names = ["a.jpg", "b.jpg"]
        for i, name in enumerate(names):
            write_jpeg(root / split / name, seed=10 * number + i)
        write_json(root / "annotations" / f"instances_{split}.json", coco_dict(names, its_rows))
    return root


def yolo_root(root: Path, rows: str = "0 0.5 0.5 0.25 0.5\n") -> Path:
    """Write a YOLO dataset with a training and a validation image and return its root."""
    for number, split in enumerate(("train", "val")):
        write_jpeg(root / "images" / split / "a.jpg", seed=number)
        label = root / "labels" / split / "a.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(rows, encoding="utf-8")
    (root / "data.yaml").write_text(
        "train: images/train\nval: images/val\nnc: 3\nnames: [cat, dog, traffic light]\n", encoding="utf-8"
    )
    return root


def voc_xml(name: str, boxes: Sequence[tuple[str, Box]], size: tuple[int, int] = (30, 40), difficult: int = 0) -> str:
    """Return a VOC annotation."""
    objects = "".join(
        f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox><xmin>{b[0]}</xmin><ymin>{b[1]}</ymin>"
        f"<xmax>{b[2]}</xmax><ymax>{b[3]}</ymax></bndbox></object>"
        for label, b in boxes
    )
    return (
        f"<annotation>\n<filename>{name}</filename>\n<size><width>{size[1]}</width><height>{size[0]}</height>"
        f"<depth>3</depth></size>\n{objects}\n</annotation>\n"
    )


def voc_root(root: Path) -> Path:
    """Write a VOC dataset with a training and a validation image and return its root."""
    for number, (split, stem) in enumerate((("train", "a"), ("val", "b"))):
        write_jpeg(root / "JPEGImages" / f"{stem}.jpg", seed=number)
        (root / "Annotations").mkdir(exist_ok=True)
        text = voc_xml(f"{stem}.jpg", [("dog", (1, 1, 40, 30)), ("cat", (3, 4, 12, 20))])
        (root / "Annotations" / f"{stem}.xml").write_text(text, encoding="utf-8")
        sets = root / "ImageSets" / "Main"
        sets.mkdir(parents=True, exist_ok=True)
        (sets / f"{split}.txt").write_text(f"{stem}\n", encoding="utf-8")
    return root


def small_index(root: Path, boxes: Sequence[Box], images: Sequence[int], labels: Sequence[int]) -> DatasetIndex:
    """Return an index of two images of 40 x 30 that need not exist."""
    return build_index(
        root=root, split="train", classes=CLASSES, names=["train/a.jpg", "train/b.jpg"], sizes=[(30, 40), (30, 40)],
        images=images, boxes=boxes, labels=labels,
    )  # fmt: skip
