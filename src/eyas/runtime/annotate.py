"""Drawing detections into an image."""

from __future__ import annotations

from eyas.draw import class_colour, draw_boxes
from eyas.types import Detections, UInt8Array


def annotate(image: UInt8Array, detections: Detections) -> UInt8Array:
    """Return a copy of the image with boxes, class names and scores; a class has the same colour everywhere.

    Args:
        image: uint8 [H, W, 3], RGB: the image that the detections are of.
        detections: what was found in it.
    """
    names = [detections.classes[label] for label in detections.labels]
    colours = [class_colour(int(label)) for label in detections.labels]
    return draw_boxes(image, detections.boxes, names, detections.scores, colours=colours)
