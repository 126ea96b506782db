"""From images to the network's uint8 batch: resize and pad, nothing else; the rest is in the graph."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from eyas.errors import UserError
from eyas.letterbox import Placement, letterbox
from eyas.types import InputSpec, UInt8Array


class Preprocessor:
    """Letterboxes images into one array that is kept from call to call, one for each thread.

    Args:
        spec: the input contract.
    """

    def __init__(self, spec: InputSpec) -> None:
        self._spec = spec
        self._kept = threading.local()

    def __call__(self, images: Sequence[UInt8Array]) -> tuple[UInt8Array, list[Placement]]:
        """Return the batch, uint8 [N, H, W, 3], and where each image lies in it.

        The batch is valid until the next call from the same thread.

        Args:
            images: N images, uint8 [h, w, 3], RGB, of any sizes.
        """
        batch = self._room(len(images))
        return batch, [letterbox(image, self._spec, slot)[1] for image, slot in zip(images, batch, strict=True)]

    def _room(self, num: int) -> UInt8Array:
        held: UInt8Array | None = vars(self._kept).get("array")
        if held is None or len(held) < num:
            held = np.empty((num, self._spec.height, self._spec.width, 3), np.uint8)
            self._kept.array = held
        return held[:num]


def checked_image(image: UInt8Array) -> UInt8Array:
    """Return the array if it is an image: uint8 [H, W, 3], at least 1 x 1.

    Raises:
        UserError: it is of another type or shape; says how to convert it.
    """
    fine = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if fine and image.shape[0] and image.shape[1]:
        return image
    given = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else type(image).__name__
    raise UserError(
        f"An image is given as {given}.",
        expected="a path, the bytes of an image file, or a uint8 array [height, width, 3] in RGB",
        fix="grey: np.stack([grey] * 3, axis=-1); floats in 0..1: (255 * x).astype(np.uint8); "
        "OpenCV's BGR: image[..., ::-1]",
    )
