"""A synthetic detection dataset, made in seconds: coloured shapes on noisy backgrounds, for tests and the quickstart.

Five classes of varied size, colour and rotation, some overlapping, among distractors (bars, arcs, hexagons) that must
not be detected. The same arguments give the same images, whatever else is made beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from eyas.data.formats.coco import COCO
from eyas.data.index import DatasetIndex, build_index
from eyas.data.rewrite.export import fresh_folder
from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.types import FloatArray, UInt8Array

CLASSES = ("circle", "square", "triangle", "star", "cross")
_SETTINGS = "shapes.json"
_SHIFT = 4  # cv2 draws with this many fractional bits
_FINE = 4  # shapes are drawn this much larger, and shrunk
_QUALITY = 92

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Scene:
    """An image and its truth: uint8 [H, W, 3], float32 [M, 4] xyxy pixels, class indices."""

    image: UInt8Array
    boxes: FloatArray
    labels: list[int]


def make_shapes(root: Path | str, *, train: int = 400, val: int = 100, size: int = 320, seed: int = 0) -> Path:
    """Write the dataset as COCO: root/{train,val}/*.jpg and root/annotations/instances_{train,val}.json.

    Args:
        root: a new or empty folder, or one that holds this very dataset already (then nothing is done).
        train, val: number of images of each split.
        size: width of the images in pixels; heights vary from 3/4 of it to all of it.
        seed: images of another seed have nothing in common with these.

    Returns:
        The root.

    Raises:
        UserError: the folder holds something else, or a number is out of range.
    """
    folder = Path(root)
    settings = {"train": train, "val": val, "size": size, "seed": seed, "revision": 3}
    if min(train, val) < 1 or not 64 <= size <= 4096:
        raise UserError(
            f"Can't generate {train} training and {val} validation images of {size} pixels.",
            expected="at least one image per split, and a size from 64 to 4096",
        )
    if (folder / _SETTINGS).is_file() and read_json(folder / _SETTINGS) == settings:
        return folder
    with fresh_folder(folder) as partial:
        splits = [_make_split(partial, name, count, size, seed) for name, count in (("train", train), ("val", val))]
        COCO.write(splits, partial)
        write_json(partial / _SETTINGS, settings)
    return folder


def make_scene(size: int, seed: int, number: int) -> tuple[UInt8Array, FloatArray, list[int]]:
    """Return image `number` of the stream `seed`: (uint8 [H, W, 3], boxes float32 [M, 4], labels)."""
    rng = np.random.default_rng([seed, number])
    height = round(size * float(rng.choice([0.75, 0.875, 1.0])))
    image = _background(rng, height, size)
    for _ in range(int(rng.integers(0, 4))):
        _draw_distractor(rng, image)
    scene = _place_shapes(rng, image)
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1, 7))
    noisy = np.clip(scene.image + noise[..., None], 0, 255).astype(np.uint8)
    return noisy, scene.boxes, scene.labels


def _make_split(root: Path, split: str, count: int, size: int, seed: int) -> DatasetIndex:
    """Write the images of one split and return its index."""
    (root / split).mkdir(parents=True, exist_ok=True)
    names, sizes, images = [], [], []
    boxes, labels = [np.zeros((0, 4), np.float32)], list[int]()
    for number in range(count):
        # The splits are two streams: a val image never depends on how many training images there are.
        image, its_boxes, its_labels = make_scene(size, 2 * seed + (split == "val"), number)
        names.append(f"{split}/{number + 1:06d}.jpg")
        (root / names[-1]).write_bytes(simplejpeg.encode_jpeg(image, quality=_QUALITY, colorsubsampling="420"))
        sizes.append(image.shape[:2])
        images += [number] * len(its_labels)
        boxes.append(its_boxes)
        labels += its_labels
    return build_index(
        root=root,
        split=split,
        classes=CLASSES,
        names=names,
        sizes=sizes,
        images=images,
        boxes=np.concatenate(boxes),
        labels=labels,
    )


def _background(rng: np.random.Generator, height: int, width: int) -> UInt8Array:
    """Return a gradient with soft blotches and fine texture, uint8 [height, width, 3]."""
    corners = rng.uniform(30, 225, (2, 2, 3)).astype(np.float32)
    gradient = cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)
    cells = int(rng.integers(3, 12))
    blotches = rng.normal(0, rng.uniform(4, 22), (cells, cells, 3)).astype(np.float32)
    texture = rng.normal(0, rng.uniform(2, 14), (height // 3, width // 3)).astype(np.float32)
    image = gradient + cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    image += cv2.resize(texture, (width, height), interpolation=cv2.INTER_LINEAR)[..., None]
    return np.asarray(np.clip(image, 0, 255), dtype=np.uint8)


def _place_shapes(rng: np.random.Generator, image: UInt8Array) -> _Scene:
    """Draw up to eight shapes into the image; none hides more than a third of another."""
    height, width = image.shape[:2]
    boxes: list[list[float]] = []
    labels: list[int] = []
    wanted = 0 if rng.random() < 0.04 else int(rng.integers(1, 7))
    for _ in range(wanted * 2):
        if len(boxes) == wanted:
            break
        radius = min(height, width) * float(np.exp(rng.uniform(np.log(0.08), np.log(0.26))))
        label = int(rng.integers(len(CLASSES)))
        points = _outline(CLASSES[label], rng.uniform(0, 2 * np.pi)) * radius
        low, high = points.min(axis=0), points.max(axis=0)
        centre = rng.uniform(1 - low, np.array([width, height]) - 1 - high)
        box = [*(low + centre), *(high + centre)]
        if any(_hides(box, other) for other in boxes):
            continue
        _draw_shape(rng, image, points + centre)
        boxes.append(box)
        labels.append(label)
    return _Scene(image, np.array(boxes, np.float32).reshape(-1, 4), labels)


def _hides(first: list[float], second: list[float]) -> bool:
    a, b = np.array(first), np.array(second)
    shared = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    return bool(shared > min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2])) / 3)


def _outline(name: str, angle: float) -> Points:
    """Return the outline of a shape of radius 1, turned by `angle`: [K, 2]."""
    if name == "cross":
        arm = 0.32
        quarter = np.array([[1.0, -arm], [1.0, arm], [arm, arm]])
        turns = [np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, 1), (-1, 0), (0, -1))]
        points = np.concatenate([quarter @ turn for turn in turns])
    else:
        corners = {"circle": 64, "square": 4, "triangle": 3, "star": 10, "hexagon": 6}[name]
        phi = np.arange(corners) * 2 * np.pi / corners
        radius = np.where(np.arange(corners) % 2, 0.45, 1.0) if name == "star" else np.ones(corners)
        points = np.stack([np.cos(phi), np.sin(phi)], axis=1) * radius[:, None]
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cosine, sine], [-sine, cosine]]))


def _draw_shape(rng: np.random.Generator, image: UInt8Array, points: Points) -> None:
    """Fill the outline with a colour that stands out from what lies there; some get an edge of another colour."""
    x, y = np.clip(points.mean(axis=0).astype(int), 0, [image.shape[1] - 1, image.shape[0] - 1])
    under = image[y, x].astype(np.float64)
    colour = rng.uniform(0, 255, 3)
    while np.abs(colour - under).sum() < 110:
        colour = rng.uniform(0, 255, 3)
    _fill(image, points, colour)
    if rng.random() < 0.3:
        centre = points.mean(axis=0)
        _fill(image, (points - centre) * 0.72 + centre, rng.uniform(0, 255, 3))


def _fill(image: UInt8Array, points: Points, colour: Points) -> None:
    """Fill the outline, which lies inside the image, with smooth edges and not a pixel wider than it is.

    OpenCV's own smooth polygons grow by most of a pixel, which would make every box too small.
    """
    left, top = np.floor(points.min(axis=0)).astype(int) - 1
    right, bottom = np.ceil(points.max(axis=0)).astype(int) + 1
    left, top = max(left, 0), max(top, 0)
    patch = image[top:bottom, left:right]
    height, width = patch.shape[:2]
    fine = np.zeros((height * _FINE, width * _FINE), np.float32)
    # Half a pixel off: OpenCV's whole numbers are the centres of pixels, ours their corners.
    inside = np.round((points - [left, top]) * _FINE - 0.5).astype(np.int32)
    cv2.fillPoly(fine, [inside], 1.0)
    cover = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)[..., None]
    patch[...] = np.round(patch * (1 - cover) + colour.astype(np.float32) * cover)


def _draw_distractor(rng: np.random.Generator, image: UInt8Array) -> None:
    """Draw something that is no object: a bar, an open arc or a hexagon."""
    height, width = image.shape[:2]
    centre = rng.uniform([0, 0], [width, height])
    radius = min(height, width) * rng.uniform(0.05, 0.2)
    colour = rng.uniform(0, 255, 3).tolist()
    thickness = max(2, round(radius / 6))
    kind = rng.integers(3)
    if kind == 0:
        step = radius * np.array([np.cos(angle := rng.uniform(0, np.pi)), np.sin(angle)])
        ends = [tuple(int(v) for v in np.round((centre + sign * step) * 2**_SHIFT)) for sign in (-1, 1)]
        cv2.line(image, ends[0], ends[1], colour, thickness, cv2.LINE_AA, _SHIFT)
    elif kind == 1:
        at = tuple(int(v) for v in np.round(centre))
        cv2.ellipse(
            image, at, (round(radius), round(radius)), rng.uniform(0, 360), 0, 200, colour, thickness, cv2.LINE_AA
        )
    else:
        points = _outline("hexagon", rng.uniform(0, np.pi)) * radius + centre
        cv2.polylines(
            image, [np.round(points * 2**_SHIFT).astype(np.int32)], True, colour, thickness, cv2.LINE_AA, _SHIFT
        )
