"""Compiled bundles under load: streams in order, memory bounded, live sources dropped, eight threads on one engine."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tests.runtime.fakes import write_video

from eyas.artifacts.bundle import Bundle
from eyas.errors import UserError
from eyas.runtime import stream as stream_module
from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.runtime.sources import Frame, Item, Live
from eyas.types import Detections, FloatArray, UInt8Array


@pytest.fixture(params=["onnxruntime", "openvino"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle of each runtime; what OpenVINO keeps lies in the test's folder."""
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    made: Bundle = request.getfixturevalue("bundle" if request.param == "onnxruntime" else "ir_bundle")
    assert made.manifest.target == request.param
    return made.folder


@pytest.fixture
def detector(folder: Path) -> Iterator[Detector]:
    with load(folder, threads=1) as opened:
        yield opened


def scenes(num: int) -> list[UInt8Array]:
    """Return images of different sizes, each with a rectangle of its own place and colour."""
    made = []
    for i in range(num):
        image = np.full((60 + 7 * (i % 5), 90 - 6 * (i % 4), 3), 30 + 5 * i, np.uint8)
        image[8 + i : 40 + i % 8, 3 * i % 40 : 3 * i % 40 + 25] = (255 - 9 * i, 40 + 8 * i, 11 * i % 255)
        made.append(image)
    return made


def same(one: Detections, other: Detections) -> bool:
    """Return whether two answers are one, up to rounding that depends on the batch."""
    best = min(len(one), len(other), 20)
    return (
        best > 3
        and abs(len(one) - len(other)) <= 2
        and np.allclose(one.scores[:best], other.scores[:best], atol=1e-4)
        and np.allclose(one.boxes[:best], other.boxes[:best], atol=0.05)
    )


@pytest.mark.parametrize("batch", [1, 4, 6])
def test_a_stream_gives_each_frame_its_own_answer_in_order(detector: Detector, batch: int) -> None:
    images = scenes(18)
    expected = [detector(image) for image in images]
    # The answers must differ, or their order could not be seen.
    assert not any(same(one, other) for one, other in itertools.pairwise(expected))
    seen = list(detector.stream(images, batch=batch, draw=True))
    assert [frame.image is image for (frame, _), image in zip(seen, images, strict=True)] == [True] * 18
    assert all(same(found, one) for (_, found), one in zip(seen, expected, strict=True))
    for frame, found in seen:
        assert frame.drawn is not None and (frame.drawn != frame.image).any() and found.height == frame.image.shape[0]


def test_a_video_through_a_bundle(detector: Detector, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", num=9)
    seen = list(detector.stream(clip, batch=4))
    assert [frame.index for frame, _ in seen] == list(range(9))
    assert all(same(found, detector(frame.image)) for frame, found in seen)


def test_memory_is_bounded_by_a_few_frames(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    image = scenes(1)[0]

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index in range(1000):
            made.append(index)
            yield Frame(image, item, index)

    monkeypatch.setattr(stream_module, "frames", frames)
    most_ahead = 0
    for num, (frame, _) in enumerate(detector.stream(image, batch=2)):
        assert frame.index == num
        most_ahead = max(most_ahead, len(made) - num)
        if num == 200:
            break
    assert most_ahead <= 12  # two channels of two, batches in work, and one frame in each hand


def gated(detector: Detector, monkeypatch: pytest.MonkeyPatch, gate: threading.Event) -> None:
    """Let the engine start only when the gate is open."""
    session = vars(detector)["_session"]
    run: Callable[[UInt8Array], tuple[FloatArray, FloatArray]] = session.run

    def late(images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        assert gate.wait(timeout=60)
        return run(images)

    monkeypatch.setattr(session, "run", late)


@pytest.mark.parametrize("drop", [None, False])
def test_a_camera_is_dropped_or_awaited(detector: Detector, monkeypatch: pytest.MonkeyPatch, drop: bool | None) -> None:
    images, gate = scenes(20), threading.Event()

    def frames(item: Item, max_pixels: int = 0) -> Iterator[Frame]:
        for index, image in enumerate(images):
            if drop is False and index == 3:
                gate.set()  # a source that is awaited never gets further than the frames that may wait
            yield Frame(image, item, index, 25.0)
        gate.set()
        raise UserError("The camera stopped sending images.")

    expected = [detector(image) for image in images]
    monkeypatch.setattr(stream_module, "frames", frames)
    gated(detector, monkeypatch, gate)
    problems: list[str] = []
    stream = detector.stream(Live(0, "camera_0"), drop=drop, on_problem=lambda name, _: problems.append(name))
    seen = [(frame.index, found) for frame, found in stream]
    indices = [index for index, _ in seen]
    assert problems == ["camera_0"] and all(same(found, expected[index]) for index, found in seen)
    if drop is False:
        assert indices == list(range(20))
    else:
        assert indices == sorted(set(indices)) and len(indices) <= 4 and indices[-1] == 19


def test_eight_threads_get_the_answers_of_one(detector: Detector) -> None:
    images = scenes(8)
    expected = [detector(image) for image in images]
    together = threading.Barrier(8)

    def work(thread: int) -> list[bool]:
        together.wait(timeout=60)
        right = []
        for turn in range(12):
            i = (turn * (2 * thread + 1) + thread) % 8
            if turn % 3:
                right.append(same(detector(images[i]), expected[i]))
            else:  # lists too, of other sizes than the engine's batch
                found = detector([images[i], images[(i + 1) % 8], images[(i + 2) % 8]], batch=1 + thread % 5)
                right += [same(one, expected[(i + k) % 8]) for k, one in enumerate(found)]
        return right

    with ThreadPoolExecutor(8) as pool:
        right = [one for answers in pool.map(work, range(8)) for one in answers]
    assert len(right) == 8 * (8 + 4 * 3) and all(right)


def test_streams_side_by_side_do_not_mix(detector: Detector) -> None:
    images = scenes(8)
    expected = [detector(image) for image in images]

    def work(first: int) -> bool:
        order = [(first + i) % 8 for i in range(8)]
        found = [answer for _, answer in detector.stream([images[i] for i in order], batch=1 + first)]
        return all(same(one, expected[i]) for one, i in zip(found, order, strict=True))

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(work, range(3))) == [True] * 3


def test_with_closes_and_what_comes_after_is_told(folder: Path) -> None:
    image = scenes(1)[0]
    with load(folder, threads=1) as opened:
        going = opened.stream([image] * 50)
        next(going)
    for use in (lambda: opened(image), lambda: opened([image]), lambda: opened.stream(image), lambda: list(going)):
        with pytest.raises(UserError, match="detector is closed"):
            use()
    opened.close()


def test_closing_waits_for_the_calls_under_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, image = threading.Event(), scenes(1)[0]
    opened = load(folder, threads=1)
    expected = opened(image)
    gated(opened, monkeypatch, gate)
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(opened, image)
        while not vars(opened)["_running"]:
            threading.Event().wait(0.001)
        closing = pool.submit(opened.close)
        while not vars(opened)["_closed"]:
            threading.Event().wait(0.001)
        assert not closing.done() and not call.done()
        gate.set()
        assert same(call.result(timeout=60), expected)
        closing.result(timeout=60)
    with pytest.raises(UserError, match="detector is closed"):
        opened(image)
