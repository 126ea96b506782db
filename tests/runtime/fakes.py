"""A detector whose network is replaced by looking for coloured rectangles, and a real run with a tiny network."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg

from eyas.artifacts.run import RunConfig
from eyas.runtime.detector import Detector
from eyas.types import FloatArray, InputSpec, Thresholds, UInt8Array

if TYPE_CHECKING:
    from torch import nn

CLASSES = ("red", "blue")
SPEC = InputSpec(64, 96, margin=0)
RED = (230, 20, 20)
GREY = (128, 128, 128)


class ColourSession:
    """Gives two boxes an image: around what is red, score 0.9, and around what is blue, score 0.6.

    Args:
        seconds: how long a run takes at least.
    """

    name = "colours"
    description = "finds colours"

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.batches: list[int] = []
        self.threads: set[int] = set()
        self.closed = 0

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return boxes [N, 2, 4] and scores [N, 2, 2]."""
        assert images.dtype == np.uint8 and images.flags.c_contiguous
        self.batches.append(len(images))
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        boxes, scores = np.zeros((len(images), 2, 4), np.float32), np.zeros((len(images), 2, 2), np.float32)
        for i, image in enumerate(images.astype(int)):
            for label, channel in enumerate((0, 2)):
                rows, columns = np.nonzero(image[..., channel] - image[..., 2 - channel] > 90)
                if len(rows):
                    boxes[i, label] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
                    scores[i, label, label] = 0.9 - 0.3 * label
        return boxes, scores

    def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1


def colour_detector(seconds: float = 0.0) -> tuple[Detector, ColourSession]:
    """Return a detector of coloured rectangles, and its session."""
    session = ColourSession(seconds)
    return Detector(session, CLASSES, SPEC), session


def make_image(
    height: int = 64, width: int = 96, red: tuple[int, int, int, int] | None = (10, 10, 40, 30)
) -> UInt8Array:
    """Return a grey image with a red rectangle (xyxy)."""
    image = np.full((height, width, 3), GREY, np.uint8)
    if red is not None:
        image[red[1] : red[3], red[0] : red[2]] = RED
    return image


def write_jpeg(path: Path, image: UInt8Array | None = None) -> Path:
    """Write an image as a JPEG and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(simplejpeg.encode_jpeg(make_image() if image is None else image, quality=97))
    return path


def write_video(path: Path, num: int = 12, height: int = 64, width: int = 96, fps: float = 10.0) -> Path:
    """Write a video in which a red rectangle wanders to the right, two pixels a frame; return its path."""
    codec = "MJPG" if path.suffix == ".avi" else "mp4v"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    for i in range(num):
        video.write(make_image(height, width, (2 * i, 10, 2 * i + 30, 40))[..., ::-1])
    video.release()
    return path


def write_run(folder: Path, classes: tuple[str, ...] = CLASSES, size: int = 64) -> Path:
    """Write a run with the smallest network, random weights; return the folder."""
    from eyas.artifacts.card import Card
    from eyas.artifacts.layout import CONFIG, WEIGHTS
    from eyas.artifacts.run import Run
    from eyas.models import weights, zoo

    folder.mkdir(parents=True)
    config = RunConfig(zoo.describe("p"), classes, InputSpec(size, size), Thresholds(confidence=0.001))
    Run(folder, config).write()
    weights.save_model(random_net(len(classes)), folder / WEIGHTS)
    Card.write(folder, "run", [CONFIG, WEIGHTS], version="0", created="2026-01-01T00:00:00+00:00")
    return folder


def random_net(num_classes: int) -> nn.Module:
    """Return the smallest network, untrained, but with scores and boxes that depend on the image."""
    import torch
    from torch import nn

    from eyas.models import zoo

    torch.manual_seed(0)
    net = zoo.build("p", num_classes)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "_pred." in name:
                parameter += 0.1 * torch.randn_like(parameter)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the running statistics become the mean over what is seen now
        net.train()
        for _ in range(4):
            net(torch.rand(4, 3, 64, 64))
    return net.eval()
