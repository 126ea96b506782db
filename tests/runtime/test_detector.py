"""The detector: one image or many, in every form, from many threads, with thresholds and classes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.fakes import CLASSES, ColourSession, colour_detector, make_image, write_jpeg

from eyas.errors import UserError
from eyas.runtime.detector import Detector, Image
from eyas.types import Detections, InputSpec, Thresholds


def as_bytes(path: Path) -> Image:
    return path.read_bytes()


def as_array(path: Path) -> Image:
    return make_image()


@pytest.mark.parametrize("form", [Path, str, as_bytes, as_array])
def test_an_image_in_every_form(tmp_path: Path, form: Callable[[Path], Image]) -> None:
    detector, _ = colour_detector()
    found = detector(form(write_jpeg(tmp_path / "a.jpg")))
    assert isinstance(found, Detections)
    assert [name for _, _, name in found] == ["red"]
    np.testing.assert_allclose(found.boxes, [[10, 10, 40, 30]], atol=1.01)


@pytest.mark.parametrize("size", [(64, 96), (128, 192), (200, 80), (30, 301)])
def test_boxes_are_in_the_pixels_of_the_image(size: tuple[int, int]) -> None:
    height, width = size
    box = (width // 4, height // 4, width // 2, height // 2)
    found = colour_detector()[0](make_image(height, width, box))
    scale = max(height / 64, width / 96)
    np.testing.assert_allclose(found.boxes, [box], atol=max(1.0, 1.5 * scale))
    assert (found.height, found.width) == size


def test_a_list_is_batched_and_gives_the_same_as_one_by_one() -> None:
    detector, session = colour_detector()
    images = [make_image(60 + i, 96, (i, 5, i + 30, 40)) for i in range(7)]
    found = detector(images, batch=3)
    assert session.batches == [3, 3, 1]
    for image, one in zip(images, found, strict=True):
        np.testing.assert_array_equal(detector(image).boxes, one.boxes)
    assert detector([]) == []


def test_thresholds_and_classes_of_a_call() -> None:
    detector, _ = colour_detector()
    image = make_image()
    image[40:60, 50:90] = (20, 20, 230)
    assert [name for _, _, name in detector(image)] == ["red", "blue"]
    assert [name for _, _, name in detector(image, confidence=0.7)] == ["red"]
    assert [name for _, _, name in detector(image, classes=["blue"])] == ["blue"]
    assert [name for _, _, name in detector(image, classes="blue")] == ["blue"]
    assert detector.thresholds == Thresholds()


def test_the_suppression_is_a_calls_own() -> None:
    crowded = np.array([[[10, 10, 40, 30], [11, 10, 41, 30]]], np.float32), np.array([[[0.9, 0], [0.8, 0]]], np.float32)
    session = ColourSession()
    session.run = lambda images: crowded  # type: ignore[method-assign]
    one_box = Detector(session, CLASSES, InputSpec(64, 96, margin=0), Thresholds(suppression="none"))
    several = Detector(session, CLASSES, InputSpec(64, 96, margin=0))
    assert [len(one_box(make_image())), len(several(make_image()))] == [2, 1]
    assert [len(one_box(make_image(), suppression="class_wise")), len(several(make_image(), suppression="none"))] == [
        1,
        2,
    ]
    assert len(one_box(make_image(), iou=0.1)) == 2  # nothing is dropped, whatever overlaps
    assert "confidence 0.25, no suppression, at most 300" in one_box.describe()
    assert "IoU 0.7 (class_wise)" in several.describe()


def test_an_unknown_class_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match=r"no class 'bleu' .did you mean 'blue'"):
        colour_detector()[0](make_image(), classes=["bleu"])


@pytest.mark.parametrize("name", ["confidence", "iou"])
def test_a_threshold_out_of_range(name: str) -> None:
    with pytest.raises(UserError, match=f"{name} threshold is 1.5"):
        colour_detector()[0](make_image(), **{name: 1.5})  # type: ignore[call-overload]


def test_an_empty_batch_size() -> None:
    with pytest.raises(UserError, match="batch is 0"):
        colour_detector()[0]([make_image()], batch=0)


def test_a_missing_image() -> None:
    with pytest.raises(UserError, match="can't be read"):
        colour_detector()[0]("nowhere.jpg")


def test_too_many_pixels(tmp_path: Path) -> None:
    detector = Detector(ColourSession(), CLASSES, InputSpec(64, 64), max_pixels=1000)
    with pytest.raises(UserError, match="million pixels"):
        detector(write_jpeg(tmp_path / "a.jpg"))


def test_closing_frees_the_session_once_and_ends_its_use() -> None:
    detector, session = colour_detector()
    with detector as same:
        assert same is detector
    detector.close()
    assert session.closed == 1
    with pytest.raises(UserError, match="closed"):
        detector(make_image())


def test_many_threads_at_once_get_their_own_answers() -> None:
    detector, session = colour_detector(seconds=0.002)
    wrong: list[int] = []

    def work(offset: int) -> None:
        for step in range(10):
            left = 4 * offset + step
            if abs(float(detector(make_image(red=(left, 5, left + 20, 40))).boxes[0, 0]) - left) > 1e-3:
                wrong.append(left)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(session.threads) == 6


def test_describe_names_what_matters() -> None:
    text = colour_detector()[0].describe()
    for part in ("finds colours", "96 x 64", "red, blue", "confidence 0.25", "IoU 0.7"):
        assert part in text


def test_describe_shortens_many_classes() -> None:
    detector = Detector(ColourSession(), [f"c{i}" for i in range(80)], InputSpec(64, 64))
    assert "80: c0, c1" in detector.describe() and "68 more" in detector.describe()
