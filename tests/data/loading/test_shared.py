"""Shared memory: what is appended is read, and a parcel brings an object's arrays without copying them."""

from __future__ import annotations

import gc
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eyas.data.loading.shared import Parcel, SharedBlock, mapped, new_memory, open_parcel


def arrived(parcel: Parcel) -> Any:
    """Return the thing as another process gets it, which has descriptors of its own."""
    start, *descriptors = parcel.address
    return open_parcel([start, *(os.dup(descriptor) for descriptor in descriptors)])


def test_a_block_gives_what_was_appended_at_aligned_places() -> None:
    block = SharedBlock()
    assert block.read_only().shape == (0,)
    starts = [block.append(b"abc"), block.append(np.arange(5).data), block.append(np.zeros((0, 4)).data)]
    assert starts == [0, 64, 104]
    assert block.read_only()[:3].tobytes() == b"abc"
    assert block.read_only()[64:104].view(np.int64).tolist() == [0, 1, 2, 3, 4]
    copy = pickle.loads(pickle.dumps(block))
    assert copy.read_only().tobytes() == block.read_only().tobytes() and copy.descriptor != block.descriptor


def test_a_parcel_brings_arrays_of_every_form_and_blocks_once() -> None:
    block = SharedBlock()
    block.append(b"kept")
    sent = {
        "rows": np.arange(10).reshape(2, 5), "none": np.zeros((0, 4)), "columns": np.asfortranarray(np.ones((3, 2))),
        "strided": np.arange(10)[::3], "flags": np.array([True, False]), "text": ("a", "ß"), "blocks": [block, block],
    }  # fmt: skip
    got = arrived(Parcel(sent))
    for name, value in sent.items():
        if isinstance(value, np.ndarray):
            assert got[name].dtype == value.dtype and np.array_equal(got[name], value) and got[name].flags.writeable
    assert got["text"] == sent["text"]
    first, second = got["blocks"]
    assert first is second and first.read_only().tobytes() == b"kept"


def test_what_a_receiver_writes_is_its_own() -> None:
    parcel = Parcel(np.zeros(10_000))
    one, other = arrived(parcel), arrived(parcel)
    one += 1
    assert one.sum() == 10_000 and other.sum() == arrived(parcel).sum() == 0
    with pytest.raises(ValueError, match="read-only"):
        SharedBlock(new_memory(64)).read_only()[0] = 1


def test_memory_lives_as_long_as_somebody_holds_it() -> None:
    gc.collect()
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    descriptor = new_memory(6)
    one, other = mapped(os.dup(descriptor), (1, 2, 3)), mapped(descriptor, (1, 2, 3))
    one[0, 1, 2] = 7
    assert other.tolist() == [[[0, 0, 0], [0, 0, 7]]]
    block = SharedBlock()
    block.append(b"abc")
    kept = block.read_only()
    del block, one, other
    gc.collect()
    assert kept.tobytes() == b"abc"
    del kept
    gc.collect()
    assert not folder.is_dir() or len(list(folder.iterdir())) == before
