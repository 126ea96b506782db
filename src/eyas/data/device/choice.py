"""Where a dataset is kept while it is trained on: checked against the memory there is, before anything is decoded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch

from eyas.data.device.layout import MemoryLayout
from eyas.data.device.memory import DeviceRoom, drawing_bytes, free_memory, gib
from eyas.data.device.store import file_sizes, store_bytes
from eyas.data.index import DatasetIndex
from eyas.data.loading.cache import CacheKind, HostCache
from eyas.errors import UserError
from eyas.machine.memory import available_memory
from eyas.types import IntArray

# Of what is free, the most that images take: on a GPU where it was asked for (training needs some too), and unasked.
GPU_PART = 0.8
AUTO_PART = 0.4


class CacheChoice(NamedTuple):
    """What was chosen.

    Attributes:
        kind: what is kept in the machine's memory; "none" if a device keeps the images.
        why: the reason, empty where nothing was to be chosen.
        store: where on a device the images are to be kept, if they are.
    """

    kind: HostCache
    why: str = ""
    store: DeviceRoom | None = None

    def told(self) -> str:
        """Return "images are kept in memory, decoded (decoded): why"."""
        places = {"none": "on disk", "jpeg": "in memory, as files (jpeg)", "decoded": "in memory, decoded (decoded)"}
        where = places[self.kind] if self.store is None else f"decoded in the memory of {self.store.device} (gpu)"
        return f"images are kept {where}: {self.why}"


def choose(
    cache: CacheKind,
    index: DatasetIndex,
    layout: MemoryLayout,
    *,
    batch_size: int,
    device: torch.device | None,
    processes: int = 1,
) -> CacheChoice:
    """Return where the images are kept.

    Args:
        cache: what was asked for.
        index: the images.
        layout: what a device would keep of each.
        batch_size: images in a batch of one process.
        device: the GPU that trains, None if there is none.
        processes: training processes on this machine, each of which keeps the images.

    Raises:
        UserError: "gpu" where there is none, or where the images do not fit.
    """
    if cache != "gpu" and cache != "auto":
        return CacheChoice(cache)
    if device is None:
        if cache == "gpu":
            raise UserError(
                "The images can't be kept in GPU memory: training uses no GPU.",
                expected="an NVIDIA GPU that PyTorch detects, and trainer.accelerator auto or cuda",
                where="data.cache",
                fix="--data.cache auto, which caches images where there is room, or --data.cache none",
            )
        return _in_memory(index, layout, processes, "there is no GPU to keep images on")
    sizes = file_sizes(index)
    needed = store_bytes(layout, sizes) + drawing_bytes(layout.spec, batch_size)
    free = free_memory(device)
    text = f"{len(index):,} decoded images need {gib(needed)}, {device} has {gib(free)} free"
    if needed <= (GPU_PART if cache == "gpu" else AUTO_PART) * free:
        return CacheChoice("none", text, DeviceRoom(device, sizes))
    if cache == "gpu":
        raise UserError(
            f"The images do not fit into GPU memory: {text}, of which at most {GPU_PART:.0%} may be used.",
            where="data.cache",
            fix=_smaller(index, layout, sizes, batch_size, free, processes),
        )
    return _in_memory(index, layout, processes, f"{text}, of which auto uses at most {AUTO_PART:.0%}")


def _in_memory(index: DatasetIndex, layout: MemoryLayout, processes: int, reason: str) -> CacheChoice:
    """Return how much of the images is kept in the machine's memory: pixels, files or nothing."""
    room = AUTO_PART * available_memory() / processes
    kinds: tuple[tuple[HostCache, str, Callable[[], int]], ...] = (
        ("decoded", "decoded", lambda: _decoded_bytes(layout, file_sizes(index))),
        ("jpeg", "as files", lambda: _file_bytes(index)),
    )
    for kind, what, measure in kinds:
        needed = measure()
        if needed <= room:
            return CacheChoice(
                kind, f"{reason}; {what} they need {gib(needed)} of memory, of {gib(int(room))} that may be used"
            )
    return CacheChoice(
        "none", f"{reason}; even as files they need more than the {gib(int(room))} of memory that may be used"
    )


def _smaller(
    index: DatasetIndex, layout: MemoryLayout, sizes: IntArray, batch_size: int, free: int, processes: int
) -> str:
    """Return what can be done where images do not fit into a GPU."""
    other = _in_memory(index, layout, processes, "").kind
    fix = f"--data.cache {other}"
    for side in range(layout.spec.height - 32, 31, -32):
        spec = dataclasses.replace(layout.spec, height=side, width=side)
        smaller = MemoryLayout(spec, layout.policies)
        if store_bytes(smaller, sizes) + drawing_bytes(spec, batch_size) <= GPU_PART * free:
            return f"{fix}, or a smaller input: --size {side}"
    return fix


def _decoded_bytes(layout: MemoryLayout, sizes: IntArray) -> int:
    return sum(3 * height * width for height, width in (layout.decoded(*size) for size in sizes.tolist()))


def _file_bytes(index: DatasetIndex) -> int:
    """Return the size of all image files together; one that is missing has none."""
    return sum(path.stat().st_size for path in index.files if path.is_file())
