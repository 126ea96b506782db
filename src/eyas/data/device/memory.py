"""How much memory a device has, and how much drawing takes of it."""

from __future__ import annotations

from typing import NamedTuple

import torch

from eyas.machine.memory import available_memory
from eyas.types import InputSpec, IntArray

PIXELS_AT_ONCE = 1 << 23  # of samples that are drawn together: bounds the memory for what lies between
BYTES_A_PIXEL = 200  # at most so much lies between for each of them


class DeviceRoom(NamedTuple):
    """A device's memory for a dataset.

    Attributes:
        device: the device.
        sizes: int64 [N, 2], (height, width) of the image files as far as known, which memory is planned for.
    """

    device: torch.device
    sizes: IntArray


def free_memory(device: torch.device) -> int:
    """Return the bytes that can be had on a device: those free, and those that PyTorch holds and does not use."""
    if device.type != "cuda":
        return available_memory()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held


def gib(nbytes: int) -> str:
    """Return "1.5 GiB"."""
    return f"{nbytes / 2**30:.{1 if nbytes > 2**27 else 3}f} GiB"


def drawing_bytes(spec: InputSpec, batch_size: int) -> int:
    """Return the memory that drawing a batch takes."""
    pixels = batch_size * spec.height * spec.width
    return min(pixels, PIXELS_AT_ONCE) * BYTES_A_PIXEL + 3 * pixels
