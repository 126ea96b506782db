"""Where images are kept: what fits, said before anything is decoded, and what the store keeps of each image."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.data.scenes import dataset, textured

from eyas.data.augment.affine import FITTED
from eyas.data.augment.config import AugmentPolicy
from eyas.data.device import choice, memory
from eyas.data.device.choice import choose
from eyas.data.device.layout import COLUMNS, MemoryLayout, column_of
from eyas.data.device.memory import drawing_bytes, gib
from eyas.data.device.store import margin, store_bytes
from eyas.data.index import DatasetIndex
from eyas.data.loading.loader import train_loader
from eyas.data.loading.source import Source
from eyas.errors import UserError
from eyas.letterbox import letterbox
from eyas.training.recipes import yolo_nas_coco
from eyas.types import InputSpec

CPU = torch.device("cpu")
SPEC = InputSpec(64, 64)
LAYOUT = MemoryLayout(SPEC, (AugmentPolicy(),))


@pytest.fixture
def index(tmp_path: Path) -> DatasetIndex:
    return dataset(tmp_path, 12, sizes=((400, 600),))


def set_memory(monkeypatch: pytest.MonkeyPatch, *, device: int = 1 << 40, machine: int = 1 << 40) -> None:
    """Have the device and the machine so many bytes free."""
    monkeypatch.setattr(choice, "free_memory", lambda _: device)
    monkeypatch.setattr(choice, "available_memory", lambda: machine)


def needed(index: DatasetIndex, batch_size: int) -> int:
    return store_bytes(LAYOUT, index.sizes.astype(np.int64)) + drawing_bytes(SPEC, batch_size)


def test_what_fits_goes_to_the_gpu(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, device=int(needed(index, 4) / choice.GPU_PART) + 1)
    chosen = choose("gpu", index, LAYOUT, batch_size=4, device=CPU)
    assert chosen.store is not None and chosen.store.device == CPU
    assert np.array_equal(chosen.store.sizes, index.sizes)


def test_what_does_not_fit_is_refused_before_anything_is_decoded(
    index: DatasetIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_memory(monkeypatch, device=needed(index, 4))
    for path in index.files:
        path.unlink()  # nobody needs them
    with pytest.raises(UserError, match="do not fit into GPU memory") as error:
        train_loader(index, SPEC, AugmentPolicy(), batch_size=4, cache="gpu", device=CPU)
    assert gib(needed(index, 4)) in error.value.problem and "free" in error.value.problem
    assert error.value.where == "data.cache"
    assert error.value.fix.startswith("--data.cache decoded, or a smaller input: --size ")
    side = int(error.value.fix.split()[-1])  # and that size does fit
    smaller = InputSpec(side, side)
    assert train_loader(index, smaller, AugmentPolicy(), batch_size=4, cache="gpu", device=CPU).chosen.store
    set_memory(monkeypatch, device=1000, machine=1000)
    with pytest.raises(UserError) as error:
        choose("gpu", index, LAYOUT, batch_size=4, device=CPU)
    assert error.value.fix == "--data.cache jpeg" or error.value.fix == "--data.cache none"


def test_without_a_gpu_there_is_none_to_keep_images_on(index: DatasetIndex) -> None:
    with pytest.raises(UserError, match="training uses no GPU") as error:
        train_loader(index, SPEC, AugmentPolicy(), batch_size=4, cache="gpu")
    assert error.value.where == "data.cache" and "--data.cache auto" in error.value.fix
    assert train_loader(index, SPEC, AugmentPolicy(), batch_size=4, cache="auto").chosen.kind == "decoded"


def file_bytes(index: DatasetIndex) -> int:
    return sum(path.stat().st_size for path in index.files)


AUTO = {  # the device's free memory in stores, the machine's in decoded datasets, and in datasets as files
    "the GPU has ample room": (2.6, 10.0, 0.0, "gpu"),
    "the GPU has room, but no ample one": (2.4, 2.6, 0.0, "decoded"),
    "neither has ample room for pixels": (2.4, 0.0, 2.6, "jpeg"),
    "nothing has ample room": (2.4, 0.0, 2.4, "none"),
}


@pytest.mark.parametrize("name", AUTO)
def test_auto_takes_the_first_place_with_ample_room(
    index: DatasetIndex, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores, decoded, files, expected = AUTO[name]
    machine = decoded * 12 * 3 * 100 * 150 + files * file_bytes(index)
    set_memory(monkeypatch, device=int(stores * needed(index, 4)), machine=int(machine))
    chosen = choose("auto", index, LAYOUT, batch_size=4, device=CPU)
    assert (chosen.kind if chosen.store is None else "gpu") == expected
    assert "GiB" in chosen.why and chosen.told().startswith("images are kept ")
    assert expected == "none" or f"({expected})" in chosen.told()


def test_processes_share_the_machines_memory(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, machine=int(2.6 * 12 * 3 * 100 * 150))
    kinds = [choose("auto", index, LAYOUT, batch_size=4, device=None, processes=n).kind for n in (1, 1000)]
    assert kinds == ["decoded", "none"]


@pytest.mark.parametrize("cache", ["none", "jpeg", "decoded"])
def test_what_is_asked_for_in_memory_is_not_looked_into(index: DatasetIndex, cache: str) -> None:
    chosen = choose(cache, index, LAYOUT, batch_size=4, device=None)  # type: ignore[arg-type]
    assert (chosen.kind, chosen.why, chosen.store) == (cache, "", None)


def test_free_memory_of_a_gpu_counts_what_torch_holds_and_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 100)
    assert memory.free_memory(torch.device("cuda", 0)) == 1200
    assert memory.free_memory(CPU) > 1 << 20


NONE = AugmentPolicy.none()
WIDE = InputSpec(64, 96)


def blank(height: int, width: int) -> Source:
    return Source(textured(1, height, width), np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (height, width))


@pytest.mark.parametrize("policy", [NONE, AugmentPolicy(), yolo_nas_coco().augment], ids=["none", "scratch", "coco"])
@given(height=st.integers(1, 300), width=st.integers(1, 300))
def test_parts_lie_where_the_table_says(policy: AugmentPolicy, height: int, width: int) -> None:
    layout, image = MemoryLayout(WIDE, (policy,)), blank(height, width)
    packed, starts = layout.pack(image), layout.starts(height, width)
    assert packed.shape == (layout.pixels(height, width), 3) and starts.shape == (COLUMNS,)
    for part in layout.parts(height, width):
        start = starts[column_of(part.level, part.mirrored)]
        pixels = packed[start : start + part.height * part.width].reshape(part.height, part.width, 3)
        if part.level == FITTED:
            whole, placed = letterbox(image.image, WIDE)
            expected = whole[placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
        elif part.mirrored:
            expected = cv2.flip(source_of(cv2.flip(image.image, 1)).level(part.level), 1)
        else:
            expected = image.level(part.level)
        assert np.array_equal(pixels, expected)


def source_of(image: np.ndarray) -> Source:
    return Source(image, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), image.shape[:2])


def test_what_no_policy_asks_for_is_not_kept() -> None:
    levels = [part.level for part in MemoryLayout(WIDE, (AugmentPolicy(scale=(0.5, 1.5)),)).parts(640, 960)]
    assert levels == [2, 3, 4]  # a tenth fits: 0.15 to 0.05 of the image
    assert [part.level for part in MemoryLayout(WIDE, (NONE,)).parts(640, 960)] == [FITTED]
    both = MemoryLayout(WIDE, (AugmentPolicy(scale=(0.5, 1.5)), NONE))
    assert [part.level for part in both.parts(640, 960)] == [FITTED, 2, 3, 4]
    assert MemoryLayout(WIDE, (NONE,)).parts(0, 0) == ()


def test_memory_is_said_from_sizes_alone() -> None:
    layout = MemoryLayout(WIDE, (AugmentPolicy(),))
    sizes = np.array([[480, 640], [480, 640], [64, 96], [0, 0], [7, 5]])
    pixels = sum(layout.pixels(*layout.decoded(*size)) for size in sizes.tolist())
    assert layout.nbytes(sizes) == 3 * pixels
    assert store_bytes(layout, sizes) == 3 * pixels + 6 * margin(layout, sizes)
    assert layout.decoded(480, 640) == (120, 160)  # 1/7.5 fits, and half as much again may be asked for
    assert MemoryLayout(WIDE, (NONE,)).decoded(480, 640) == (480, 640)


def test_halves_of_a_mirrored_image_are_kept_where_they_are_others() -> None:
    mixed = dataclasses.replace(yolo_nas_coco().augment, mixup=1.0, flip=0.5)
    starts = MemoryLayout(InputSpec(32, 32), (mixed,)).starts(40, 36)
    assert starts[column_of(1, mirrored=True)] == starts[column_of(1, mirrored=False)]  # 36 has a half,
    assert starts[column_of(2, mirrored=True)] == starts[column_of(2, mirrored=False)]  # and that one too,
    assert starts[column_of(3, mirrored=True)] != starts[column_of(3, mirrored=False)]  # 9 has none
    assert starts[column_of(0, mirrored=True)] == starts[column_of(0, mirrored=False)] >= 0
