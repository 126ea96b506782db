"""Drawing boxes with their class names into images, and images into one sheet: numpy and OpenCV, nothing else."""

from __future__ import annotations

import colorsys
import math
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from eyas.files import write_bytes
from eyas.glyphs import drawable
from eyas.text import to_utf8
from eyas.types import Detections, FloatArray, UInt8Array

Colour = tuple[int, int, int]
_Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in whole pixels

_WEIGHT = 400  # of the font: regular
# Bright, far apart in hue and lightness, in an order that keeps neighbours apart.
_PALETTE: tuple[Colour, ...] = (
    (255, 82, 82), (64, 156, 255), (255, 205, 40), (56, 200, 110), (214, 96, 255), (255, 140, 40), (40, 214, 214),
    (255, 110, 180), (160, 220, 50), (130, 120, 255), (190, 130, 80), (120, 200, 255), (255, 170, 150), (30, 160, 130),
    (200, 200, 120), (220, 50, 120), (150, 170, 200), (255, 230, 140), (110, 110, 220), (140, 230, 190),
)  # fmt: skip


class _Fonts(threading.local):
    """OpenCV's own font, an object for each thread since it keeps the glyphs that it has drawn."""

    def __init__(self) -> None:
        self.face = cv2.FontFace("sans")


_FONTS = _Fonts()


def class_colour(label: int) -> Colour:
    """Return the RGB colour of class number `label`: always the same one, and far from those of other low numbers."""
    if label < len(_PALETTE):
        return _PALETTE[label]
    # The golden angle never repeats a hue; three lightness steps part those that come near each other.
    hue = (label * 0.618034) % 1
    red, green, blue = colorsys.hls_to_rgb(hue, (0.45, 0.6, 0.75)[label % 3], 0.85)
    return round(red * 255), round(green * 255), round(blue * 255)


def name_colour(name: str) -> Colour:
    """Return an RGB colour that depends on the text alone, for names without a class number."""
    return class_colour(zlib.crc32(to_utf8(name).encode()) % 64)


def draw_boxes(
    image: UInt8Array,
    boxes: FloatArray,
    names: Sequence[str],
    scores: FloatArray | Sequence[float] | None = None,
    *,
    colours: Sequence[Colour] | None = None,
) -> UInt8Array:
    """Return a copy of the image with the boxes and their names; line width and font go by the image's size.

    Args:
        image: uint8 [H, W, 3], RGB.
        boxes: float [M, 4], xyxy pixels; parts outside the frame are left out.
        names: M texts; an empty one draws no label.
        scores: M numbers that are added to the names, as "cat 0.87".
        colours: M RGB colours; None takes `name_colour` of each name.
    """
    canvas = np.ascontiguousarray(image).copy()
    height, width = canvas.shape[:2]
    line = max(1, round(min(height, width) / 240))
    shown = [i for i in range(len(boxes)) if _visible(boxes[i], height, width)]
    shown.sort(key=lambda i: -float((boxes[i][2] - boxes[i][0]) * (boxes[i][3] - boxes[i][1])))
    chosen = [name_colour(name) for name in names] if colours is None else list(colours)
    frames = {i: _frame(boxes[i], height, width) for i in shown}
    for i in shown:
        left, top, right, bottom = frames[i]
        # A darker rim keeps the line visible on a background of its own colour.
        rim = tuple(channel // 3 for channel in chosen[i])
        cv2.rectangle(canvas, (left, top), (right, bottom), rim, line + 2)
        cv2.rectangle(canvas, (left, top), (right, bottom), chosen[i], line)
    taken: list[_Rectangle] = []
    for i in shown:
        text = names[i] if scores is None else f"{names[i]} {float(scores[i]):.2f}".strip()
        if text:
            _draw_label(canvas, text, frames[i], chosen[i], taken)
    return canvas


def text_height(height: int, width: int) -> int:
    """Return the font's height in pixels that suits an image of this size."""
    return max(10, min(40, round(8 + min(height, width) / 90)))


def put_text(image: UInt8Array, text: str, left: int, bottom: int, size: int, colour: Colour) -> None:
    """Write one line of text into the image, in place; `bottom` is its baseline, `size` the line's height."""
    cv2.putText(image, drawable(text), (left, bottom), colour, _FONTS.face, _points(size), _WEIGHT)


def text_width(text: str, size: int) -> int:
    """Return the width in pixels of one line of text."""
    return int(cv2.getTextSize((0, 0), drawable(text), (0, 0), _FONTS.face, _points(size), _WEIGHT)[2])


def cut_text(text: str, size: int, room: int) -> str:
    """Return the text, or as much of its beginning as fits into `room` pixels, with two dots."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "..", size) > room:
        text = text[:-1]
    return text + ".." if text else ""


def grid(
    tiles: Sequence[UInt8Array],
    columns: int = 0,
    *,
    captions: Sequence[str] | None = None,
    gap: int = 6,
    background: Colour = (24, 26, 30),
) -> UInt8Array:
    """Return one image with the tiles in rows, each in a cell as large as the largest tile.

    Args:
        tiles: uint8 [h, w, 3] images of any sizes.
        columns: tiles a row; 0 makes the sheet about square.
        captions: a line under each tile.
        gap: pixels between cells and around them.
        background: RGB of the space between.
    """
    across = columns or max(1, math.ceil(math.sqrt(len(tiles))))
    across = max(1, min(across, len(tiles)))
    rows = max(1, math.ceil(len(tiles) / across))
    cell_height = max((tile.shape[0] for tile in tiles), default=1)
    cell_width = max((tile.shape[1] for tile in tiles), default=1)
    size = text_height(cell_height, cell_width)
    strip = size + 8 if captions else 0
    step_y, step_x = cell_height + strip + gap, cell_width + gap
    sheet = np.full((rows * step_y + gap, across * step_x + gap, 3), background, np.uint8)
    for i, tile in enumerate(tiles):
        top, left = gap + i // across * step_y, gap + i % across * step_x
        # A low tile stands on its caption.
        down, right = (cell_height - tile.shape[0]) // (1 if captions else 2), (cell_width - tile.shape[1]) // 2
        sheet[top + down : top + down + tile.shape[0], left + right : left + right + tile.shape[1]] = tile
        if captions:
            text = cut_text(captions[i], size, cell_width - 4)
            put_text(sheet, text, left + 2, top + cell_height + strip - 6, size, (215, 215, 215))
    return sheet


def write_png(image: UInt8Array, path: Path) -> None:
    """Write an RGB image as a PNG file, atomically."""
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    write_bytes(path, data.tobytes())


def _points(size: int) -> int:
    return max(6, round(size * 0.85))


def _visible(box: npt.NDArray[np.floating], height: int, width: int) -> bool:
    """Return whether any of the box lies in the frame; False for NaN and infinite ones."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return math.isfinite(x0 + y0 + x1 + y1) and x0 < width and y0 < height and x1 > 0 and y1 > 0


def _frame(box: npt.NDArray[np.floating], height: int, width: int) -> _Rectangle:
    """Return the box in whole pixels, clipped to the image."""
    x0, y0, x1, y1 = (float(v) for v in box)
    return (
        int(min(max(round(x0), 0), width - 1)),
        int(min(max(round(y0), 0), height - 1)),
        int(min(max(round(x1) - 1, 0), width - 1)),
        int(min(max(round(y1) - 1, 0), height - 1)),
    )


def _draw_label(image: UInt8Array, text: str, frame: _Rectangle, colour: Colour, taken: list[_Rectangle]) -> None:
    """Draw a filled label at the box: above it, inside its top or below, where no label is yet, inside the image."""
    height, width = image.shape[:2]
    size = min(text_height(height, width), height)
    text = cut_text(text, size, width - 6)
    if not text:
        return
    label_width, label_height = min(text_width(text, size) + 6, width), min(size + 4, height)
    left, top, _, bottom = frame
    x = min(left, width - label_width)
    for y in (top - label_height, top, bottom + 1, bottom - label_height, top):
        place = (x, y, x + label_width, y + label_height)
        if y >= 0 and place[3] <= height and not any(_overlap(place, other) for other in taken):
            break
    else:
        y = min(max(top - label_height, 0), height - label_height)
        place = (x, y, x + label_width, y + label_height)
    taken.append(place)
    cv2.rectangle(image, place[:2], (place[2] - 1, place[3] - 1), colour, -1)
    dark = 0.3 * colour[0] + 0.59 * colour[1] + 0.11 * colour[2] > 120
    put_text(image, text, x + 3, place[3] - 2 - size // 5, size, (10, 10, 10) if dark else (255, 255, 255))


def _overlap(first: _Rectangle, second: _Rectangle) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def annotate(image: UInt8Array, detections: Detections) -> UInt8Array:
    """Return a copy of the image with boxes, class names and scores; a class has the same colour everywhere.

    Args:
        image: uint8 [H, W, 3], RGB: the image that the detections are of.
        detections: what was found in it.
    """
    names = [detections.classes[label] for label in detections.labels]
    colours = [class_colour(int(label)) for label in detections.labels]
    return draw_boxes(image, detections.boxes, names, detections.scores, colours=colours)
