"""A disk that fills up while `detect` writes: nothing half-written keeps its name, and the error says where."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.runtime.fakes import colour_detector

from eyas.errors import UserError
from eyas.runtime.detect import detect
from eyas.runtime.writers import VideoFile

RNG = np.random.default_rng(0)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: what a full disk does to one file, without needing one."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder with images and a video that can't be made small."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), RNG.integers(0, 255, (100, 100, 3), np.uint8))
    return folder


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_images(noise: Path, tmp_path: Path) -> None:
    with files_of_at_most(20_000), pytest.raises(UserError, match=r"disk is full: 0\.png") as caught:
        detect(colour_detector()[0], noise, out=tmp_path / "out", save_json="r.json", save_txt=True)
    assert caught.value.where == str(tmp_path / "out" / "0.png")
    assert left(tmp_path / "out") == ["labels/0.txt", "r.json"]


def test_results(noise: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "r.json").write_text("the last one")
    with files_of_at_most(1), pytest.raises(UserError, match=r"r\.json could not be saved") as caught:
        detect(colour_detector()[0], noise, out=tmp_path / "out", save_images=False, save_json="r.json")
    assert caught.value.where == str(tmp_path / "out" / "r.json")
    assert left(tmp_path / "out") == ["r.json"] and (tmp_path / "out" / "r.json").read_text() == "the last one"


@pytest.mark.parametrize("frames", [3, 40, 200])
def test_a_video_that_is_incomplete_is_no_success(tmp_path: Path, frames: int) -> None:
    with files_of_at_most(30_000):
        video = VideoFile(tmp_path / "out.mp4", 10, 128, 128)
        with pytest.raises(UserError, match=r"out\.mp4 could not be saved") as caught:
            for _ in range(frames):
                video.write(RNG.integers(0, 255, (128, 128, 3), np.uint8))
            video.close()
    assert caught.value.where == str(tmp_path / "out.mp4") and left(tmp_path) == []
    video.close()  # once more does no harm


@pytest.mark.parametrize("frames", [1, 31, 65])
def test_a_video_that_is_complete_keeps_its_frames(tmp_path: Path, frames: int) -> None:
    video = VideoFile(tmp_path / "out.mp4", 10, 64, 64)
    for _ in range(frames):
        video.write(RNG.integers(0, 255, (64, 64, 3), np.uint8))
    video.close()
    read = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert left(tmp_path) == ["out.mp4"] and sum(1 for _ in iter(lambda: read.read()[0], False)) == frames


CALLER = """
import atexit, threading, time
import numpy as np
from tests.runtime.fakes import colour_detector
atexit.register(lambda: print("threads at the end:", threading.active_count()))  # after what was registered later
detector = colour_detector()[0]
predict = type(detector).predict
def slow(*given, **named):
    time.sleep(0.3)
    return predict(*given, **named)
type(detector).predict = slow
stream = detector.stream([np.zeros((64, 64, 3), np.uint8)] * 50)
for frame, found in stream:
    raise ValueError("the caller's own fault")
"""


def test_an_error_of_the_caller_leaves_no_thread_behind() -> None:
    """Its traceback keeps the stream alive to the end, where a thread in the middle of its work aborts the program."""
    done = subprocess.run([sys.executable, "-c", CALLER], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "the caller's own fault" in done.stderr
    assert done.stdout == "threads at the end: 1\n"
