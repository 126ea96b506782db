"""What the network gets of an image, at the size that it was trained at or another one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.export.build import BuildPlan
from eyas.export.bundle import other_size
from eyas.export.settings import BuildSettings
from eyas.letterbox import letterbox
from eyas.runtime.preprocess import Preprocessor, checked_image
from eyas.runtime.trained_size import size_note, trained_size
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
def test_every_pixel_counts_when_an_image_shrinks(size: tuple[int, int], phase: int) -> None:
    # One bright column in eight: sampling would see none of them, or too many.
    image = np.zeros((*size, 3), np.uint8)
    image[:, phase::8] = 240
    spec = InputSpec(64, 64, margin=0)
    batch, [placed] = Preprocessor(spec)([image])
    inner = batch[0, placed.top : placed.top + placed.height, placed.left : placed.left + placed.width]
    assert abs(float(inner.mean()) - 30) < 4


SMALL = InputSpec(height=192, width=192)


def test_a_run_tells_its_size(tmp_path: Path) -> None:
    Run(tmp_path, RunConfig(model={}, classes=("a",), input=replace(SMALL, width=256))).write()
    assert trained_size(tmp_path) == (192, 256)


@pytest.mark.parametrize("told", ["640", [640], [640, "640"], [1, 2, 3]])
def test_a_manifest_that_tells_no_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: object
) -> None:
    class Told:
        details = {"trained_size": told}  # noqa: RUF012

    (tmp_path / MANIFEST).write_text("{}")
    monkeypatch.setattr("eyas.runtime.trained_size.Manifest.read", lambda *_, **__: Told)
    with pytest.raises(UserError, match="trained_size is"):
        trained_size(tmp_path)


@pytest.mark.parametrize(
    ("trained", "used", "note"),
    [
        (None, SMALL, ""),
        ((192, 192), SMALL, ""),
        ((640, 640), SMALL, "trained at 640 x 640, measured at 192 x 192: another size costs accuracy"),
        ((192, 256), SMALL, "trained at 256 x 192, measured at 192 x 192: another size costs accuracy"),
    ],
)
def test_one_line(trained: tuple[int, int] | None, used: InputSpec, note: str) -> None:
    assert size_note(trained, used) == note


def test_a_build_tells_what_it_takes_and_where_it_is_measured() -> None:
    large = InputSpec(height=960, width=960)
    settings, unmeasured = BuildSettings(), BuildSettings(measured=0)
    assert other_size(SMALL, BuildPlan(settings, SMALL)) == ""
    assert other_size(SMALL, BuildPlan(settings, large, (320, 960))) == (
        "trained at 192 x 192, built for 320 to 960: another size costs accuracy; "
        "mAP is measured at 960 x 960, like the trained network"
    )
    assert other_size(SMALL, BuildPlan(unmeasured, SMALL, (96, 256))).endswith(
        "built for 96 to 256: another size costs accuracy; mAP is not measured"
    )
    assert "built for 960 x 960" in other_size(SMALL, BuildPlan(settings, large))
