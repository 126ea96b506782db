"""A contact sheet after each evaluation: the truth beside what was predicted."""

from __future__ import annotations

from pathlib import Path

import cv2
import lightning as L
import numpy as np

from eyas.artifacts import layout
from eyas.data.index import DatasetIndex
from eyas.decode import read_image
from eyas.draw import class_colour, draw_boxes, grid
from eyas.errors import UserError
from eyas.files import atomic_path
from eyas.training.data import DetectionData
from eyas.training.module import DetectionModule
from eyas.types import Detections, UInt8Array

SHOWN = 0.25  # least score that is drawn; an image without any shows its best three
LONGEST = 480  # pixels of a tile's longest side


class Sheets(L.Callback):
    """Writes `images/epoch_001.jpg`, ...: the first images of the validation split, truth left, prediction right.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the sheet if this epoch was evaluated."""
        assert isinstance(pl_module, DetectionModule)
        data = trainer.datamodule  # type: ignore[attr-defined]
        if pl_module.result is None or not pl_module.detections or not isinstance(data, DetectionData):
            return
        if not trainer.is_global_zero:
            return
        sheet = draw_sheet(data.val_index, pl_module.detections)
        with atomic_path(self.folder / layout.SHEETS / f"epoch_{trainer.current_epoch + 1:03d}.jpg") as path:
            _, encoded = cv2.imencode(".jpg", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88])
            path.write_bytes(encoded.tobytes())


def draw_sheet(index: DatasetIndex, found: dict[int, Detections]) -> UInt8Array:
    """Return one image: for each image of `found` its truth and its detections side by side, two pairs a row."""
    tiles: list[UInt8Array] = []
    captions: list[str] = []
    for number, detections in sorted(found.items()):
        try:
            image = read_image(index.path(number))
        except UserError:
            continue
        scale = min(1.0, LONGEST / max(image.shape[:2]))
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        boxes, labels, _ = index.truth(number)
        colours = [class_colour(int(label)) for label in labels]
        tiles.append(draw_boxes(image, boxes * scale, [index.classes[int(i)] for i in labels], colours=colours))
        captions.append(f"ground truth: {index.path(number).name}")
        shown = detections[detections.scores >= SHOWN]
        shown = shown if len(shown) else detections[:3]
        colours = [class_colour(int(label)) for label in shown.labels]
        names = [shown.classes[int(i)] for i in shown.labels]
        tiles.append(draw_boxes(image, shown.boxes * scale, names, shown.scores, colours=colours))
        captions.append("predicted")
    return grid(tiles, 4, captions=captions)
