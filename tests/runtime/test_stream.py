"""The stream: frames in order, stages overlapped, memory bounded, live sources dropped or awaited, faults told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.fakes import colour_detector, make_image, write_jpeg, write_video

from eyas.errors import UserError
from eyas.runtime import stream as stream_module
from eyas.runtime.sources import Frame, Item, Live, Pixels


def moving(num: int) -> list[np.ndarray]:
    """Return images in which the red rectangle is two pixels further each time."""
    return [make_image(red=(2 * i, 10, 2 * i + 20, 40)) for i in range(num)]


@pytest.mark.parametrize("draw", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
def test_frames_come_in_order_with_their_own_detections(batch: int, draw: bool) -> None:
    detector, session = colour_detector()
    images = moving(10)
    seen = list(detector.stream(images, batch=batch, draw=draw))
    assert len(seen) == 10
    for i, (frame, found) in enumerate(seen):
        assert frame.image is images[i]
        np.testing.assert_allclose(found.boxes[0], [2 * i, 10, 2 * i + 20, 40], atol=1e-3)
        assert (frame.drawn is not None) == draw
        if frame.drawn is not None:
            assert (frame.drawn != frame.image).any() and frame.drawn.shape == frame.image.shape
    assert session.batches == ([1] * 10 if batch == 1 else [4, 4, 2])


def test_a_video_and_images_together(tmp_path: Path) -> None:
    detector, _ = colour_detector()
    source = [write_jpeg(tmp_path / "a.jpg"), write_video(tmp_path / "v.mp4", num=5), write_jpeg(tmp_path / "b.jpg")]
    seen = list(detector.stream(source, batch=2))
    assert [(frame.item.name, frame.index) for frame, _ in seen] == [
        ("a.jpg", 0), ("v.mp4", 0), ("v.mp4", 1), ("v.mp4", 2), ("v.mp4", 3), ("v.mp4", 4), ("b.jpg", 0),
    ]  # fmt: skip
    assert all(len(found) == 1 for _, found in seen)


def test_a_call_and_the_stream_agree(tmp_path: Path) -> None:
    detector, _ = colour_detector()
    path = write_jpeg(tmp_path / "a.jpg")
    [(_, found)] = detector.stream(path, classes=["red"], confidence=0.5)
    np.testing.assert_array_equal(found.boxes, detector(path).boxes)
    assert [len(found) for _, found in detector.stream(path, confidence=0.95)] == [0]


def test_what_is_missing_is_told_at_the_call_and_not_at_the_first_frame() -> None:
    detector, _ = colour_detector()
    with pytest.raises(UserError, match="no file or folder"):
        detector.stream("nowhere.jpg")
    with pytest.raises(UserError, match="no class"):
        detector.stream(make_image(), classes=["green"])
    with pytest.raises(UserError, match="batch is 0"):
        detector.stream(make_image(), batch=0)


def noted_frames(num: int, made: list[int]) -> object:
    """Return a stand-in for `frames` that notes what it made."""

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index in range(num):
            made.append(index)
            yield Frame(make_image(), item, index)

    return frames


def test_reading_inference_and_the_caller_s_work_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each stage waits, in the middle of its work, for the stage before to be busy with the next frame."""
    num = 6
    reading, running = ([threading.Event() for _ in range(num)] for _ in range(2))
    detector, session = colour_detector()
    run = session.run

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index in range(num):
            reading[index].set()
            yield Frame(make_image(), item, index)

    def noted_run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index = len(session.batches)
        running[index].set()
        assert index + 1 == num or reading[index + 1].wait(timeout=60)
        return run(images)

    monkeypatch.setattr(stream_module, "frames", frames)
    monkeypatch.setattr(session, "run", noted_run)
    for frame, _ in detector.stream(make_image()):
        assert frame.index + 1 == num or running[frame.index + 1].wait(timeout=60)


def test_a_slow_caller_is_waited_for_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(stream_module, "frames", noted_frames(100, made))
    detector, _ = colour_detector()
    iterator = detector.stream(make_image())
    for _ in range(3):
        next(iterator)
    time.sleep(0.1)
    assert len(made) < 15
    iterator.close()  # type: ignore[attr-defined]


def camera(num: int, seconds: float) -> object:
    """Return a stand-in for `frames`: a camera that gives a frame every so often and then vanishes."""

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index in range(num):
            time.sleep(seconds)
            yield Frame(make_image(), item, index, 25.0)
        raise UserError("The camera stopped sending images.")

    return frames


@pytest.mark.parametrize("drop", [None, True])
def test_a_live_source_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, drop: bool | None) -> None:
    all_given = threading.Event()

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index in range(40):
            yield Frame(make_image(), item, index, 25.0)
        all_given.set()
        raise UserError("The camera stopped sending images.")

    detector, session = colour_detector()
    run = session.run

    def slow_run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert all_given.wait(timeout=60)  # a source that waited would never get here
        return run(images)

    monkeypatch.setattr(stream_module, "frames", frames)
    monkeypatch.setattr(session, "run", slow_run)
    seen: list[int] = []
    with pytest.raises(UserError, match="stopped"):
        for frame, _ in detector.stream(Live(0, "camera_0"), drop=drop, batch=4):
            seen.append(frame.index)
    assert seen == sorted(set(seen)) and len(seen) <= 4 + 4  # a batch in work, and what may wait
    assert seen[-1] == 39  # the newest frame is never the one that is dropped


def test_a_live_source_waits_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "frames", camera(12, 0.001))
    detector, _ = colour_detector(seconds=0.01)
    problems: list[str] = []
    stream = detector.stream(Live(0, "camera_0"), drop=False, on_problem=lambda name, _: problems.append(name))
    assert [frame.index for frame, _ in stream] == list(range(12))
    assert problems == ["camera_0"]


def test_a_live_source_does_not_wait_for_a_full_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    received = [threading.Event() for _ in range(5)]

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index, event in enumerate(received):
            yield Frame(make_image(), item, index, 25.0)
            assert event.wait(timeout=60)  # the next frame is not there before this one came out at the other end

    monkeypatch.setattr(stream_module, "frames", frames)
    detector, session = colour_detector()
    for frame, _ in detector.stream(Live(0, "camera_0"), batch=8):
        received[frame.index].set()
    assert session.batches == [1] * 5


def test_a_file_is_never_dropped_by_a_live_source_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = stream_module.frames

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        return real(item) if isinstance(item, Pixels) else camera(20, 0.0)(item)  # type: ignore[operator, no-any-return]

    monkeypatch.setattr(stream_module, "frames", frames)
    detector, _ = colour_detector(seconds=0.01)
    seen: list[str] = []
    with pytest.raises(UserError):
        for frame, _ in detector.stream([*moving(4), Live(0, "camera_0")]):
            seen.append(frame.item.name)
    assert sum(name.startswith("array") for name in seen) == 4


def test_unreadable_images_are_skipped_with_a_warning_that_names_them(tmp_path: Path) -> None:
    detector, _ = colour_detector()
    good, bad = write_jpeg(tmp_path / "good.jpg"), tmp_path / "bad.jpg"
    bad.write_bytes(good.read_bytes()[:300])
    with pytest.warns(UserWarning, match=r"bad\.jpg was skipped.*truncated"):
        assert [frame.item.name for frame, _ in detector.stream([good, bad, good])] == ["good.jpg", "good.jpg"]


def test_if_nothing_can_be_read_the_first_fault_is_raised(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    with pytest.warns(UserWarning), pytest.raises(UserError, match="empty"):
        list(colour_detector()[0].stream(tmp_path))


def test_a_broken_video_keeps_the_frames_before_the_break(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", num=40).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    problems: list[str] = []
    detector, _ = colour_detector()
    stream = detector.stream(
        [tmp_path / "cut.avi", make_image()], on_problem=lambda name, error: problems.append(f"{name}: {error}")
    )
    seen = [frame.item.name for frame, _ in stream]
    assert seen.count("cut.avi") > 5 and seen[-1].startswith("array")
    assert len(problems) == 1 and "cut.avi: The video ends early, after" in problems[0]


def test_a_fault_of_the_engine_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, session = colour_detector()
    monkeypatch.setattr(session, "run", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(detector.stream(moving(20), draw=True))


@pytest.mark.parametrize("draw", [False, True])
def test_leaving_early_ends_the_threads(draw: bool) -> None:
    detector, _ = colour_detector()
    before = threading.active_count()
    for _ in detector.stream(moving(50), draw=draw):
        break
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
