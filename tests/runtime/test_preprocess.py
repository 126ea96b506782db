"""The batch is each image letterboxed; its array is kept, one for each thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from eyas.errors import UserError
from eyas.letterbox import letterbox
from eyas.runtime.preprocess import Preprocessor, checked_image
from eyas.types import InputSpec, PadMode, UInt8Array


@pytest.mark.parametrize("mode", ["center", "bottom_right"])
def test_a_batch_is_each_image_letterboxed(mode: PadMode) -> None:
    rng = np.random.default_rng(0)
    spec = InputSpec(64, 96, pad_mode=mode)
    sizes = [(48, 60), (600, 20), (1, 1), (20, 900), (64, 96), (60, 92)]
    images = [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    batch, placements = Preprocessor(spec)(images)
    assert batch.shape == (6, 64, 96, 3) and batch.flags.c_contiguous
    for i, image in enumerate(images):
        alone, placed = letterbox(image, spec)
        np.testing.assert_array_equal(batch[i], alone)
        assert placements[i] == placed


def test_nothing_of_an_earlier_batch_is_left() -> None:
    preprocess = Preprocessor(InputSpec(64, 64))
    preprocess([np.full((64, 64, 3), 255, np.uint8)] * 3)
    batch, _ = preprocess([np.zeros((10, 64, 3), np.uint8)])
    assert set(np.unique(batch).tolist()) == {0, 114}


def test_the_array_is_kept_and_a_thread_has_its_own() -> None:
    preprocess = Preprocessor(InputSpec(64, 64))
    image = np.zeros((8, 8, 3), np.uint8)
    first, _ = preprocess([image, image])
    assert np.shares_memory(preprocess([image])[0], first)
    other: list[UInt8Array] = []
    thread = threading.Thread(target=lambda: other.append(preprocess([image])[0]))
    thread.start()
    thread.join()
    assert not np.shares_memory(other[0], first)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 3), np.uint8),
        [[1, 2], [3, 4]],
        None,
    ],
)
def test_what_is_no_image_is_refused_with_the_way_to_convert_it(image: UInt8Array) -> None:
    with pytest.raises(UserError, match=r"uint8 array \[height, width, 3\]"):
        checked_image(image)


@pytest.mark.parametrize("size", [(480, 640), (481, 641), (1080, 1920), (350, 350), (20, 900), (3, 1400)])
@pytest.mark.parametrize("phase", [0, 1, 5])
def test_every_pixel_counts_when_a_image_shrinks(size: tuple[int, int], phase: int) -> None:
    # One bright column in eight: sampling would see none of them, or too many.
    image = np.zeros((*size, 3), np.uint8)
    image[:, phase::8] = 240
    spec = InputSpec(64, 64, margin=0)
    batch, [placed] = Preprocessor(spec)([image])
    inner = batch[0, placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
    assert abs(float(inner.mean()) - 30) < 4
