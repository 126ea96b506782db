"""Every kind of source becomes frames in order; what isn't there is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.runtime.fakes import make_image, write_jpeg, write_video

from eyas.errors import UserError
from eyas.runtime.sources import Frame, ImageFile, Item, Live, Pixels, Source, Video, count_frames, expand, frames


def names(source: Source) -> list[str]:
    return [item.name for item in expand(source)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with images, a video, text, hidden files and folders in folders."""
    for name in ("b.jpg", "a.JPG", "deep/er/c.jpeg", "deep/a.jpg", ".hidden/x.jpg", "._a.jpg"):
        write_jpeg(tmp_path / name)
    cv2.imwrite(str(tmp_path / "d.png"), make_image())
    write_video(tmp_path / "deep" / "clip.mp4", num=3)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_searched_to_its_depths_in_order_without_hidden_files(tree: Path) -> None:
    assert names(tree) == ["a.JPG", "b.jpg", "d.png", "deep/a.jpg", "deep/clip.mp4", "deep/er/c.jpeg"]


def test_a_glob(tree: Path) -> None:
    assert names(f"{tree}/*.jpg") == ["b.jpg"]
    assert names(f"{tree}/**/*.jp*g") == ["b.jpg", "a.jpg", "c.jpeg"]
    assert names(f"{tree}/dee?") == ["a.jpg", "clip.mp4", "er/c.jpeg"]
    assert names(f"{tree}/*") == ["a.JPG", "b.jpg", "d.png", "a.jpg", "clip.mp4", "er/c.jpeg"]


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    assert names(str(write_jpeg(tmp_path / "a[1].jpg"))) == ["a[1].jpg"]


def test_a_mixed_list_keeps_its_order(tree: Path) -> None:
    items = expand([tree / "d.png", 0, str(tree / "deep"), make_image(), "1", "rtsp://here/there", "RTSP://x"])
    kinds: list[type[Item]] = [ImageFile, Live, ImageFile, Video, ImageFile, Pixels, Live, Live, Live]
    assert [type(item) for item in items] == kinds
    assert [item.address for item in items if isinstance(item, Live)] == [0, 1, "rtsp://here/there", "RTSP://x"]
    assert expand(items) == items


def test_a_video_with_too_many_pixels_is_refused(tmp_path: Path) -> None:
    item = expand(write_video(tmp_path / "clip.mp4", num=3))[0]
    with pytest.raises(UserError, match="million pixels") as error:
        next(frames(item, max_pixels=100))
    assert error.value.where.endswith("clip.mp4")
    assert len(list(frames(item))) == 3


def test_a_file_named_like_a_camera_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jpeg(tmp_path / "0")
    monkeypatch.chdir(tmp_path)
    assert expand("0") == [ImageFile(Path("0"), "0")]


def test_a_missing_path_suggests_its_neighbour(tree: Path) -> None:
    with pytest.raises(UserError, match=r"no file or folder .*bb\.jpg .did you mean 'b\.jpg'"):
        expand(str(tree / "bb.jpg"))
    with pytest.raises(UserError, match="no file or folder"):
        expand(str(tree / "no" / "where.jpg"))


def test_an_empty_folder_an_unmatched_glob_and_nothing_at_all(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(UserError, match="no images or videos in the folder"):
        expand(tree / "empty")
    with pytest.raises(UserError, match="matches no image or video"):
        expand(f"{tree}/*.gif")
    with pytest.raises(UserError, match="none of the 1 files that it matches is one"):
        expand(f"{tree}/*.txt")
    with pytest.raises(UserError, match="No source"):
        expand([])


def test_an_array_that_is_no_image() -> None:
    with pytest.raises(UserError, match="uint8 array"):
        expand(np.zeros((4, 4), np.uint8))


def read_all(item: Item) -> tuple[list[Frame], str]:
    """Return the frames that came before the error, and the error's text."""
    got: list[Frame] = []
    iterator = frames(item)
    while True:
        try:
            got.append(next(iterator))
        except StopIteration:
            return got, ""
        except UserError as error:
            return got, str(error)


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_gives_its_frames_in_order_with_its_rate(tmp_path: Path, suffix: str) -> None:
    got, fault = read_all(Video(write_video(tmp_path / f"a{suffix}", num=12), "a"))
    assert not fault and [frame.index for frame in got] == list(range(12))
    assert {frame.fps for frame in got} == {10.0}
    for i, frame in enumerate(got):
        assert frame.image.shape == (64, 96, 3)
        # Red stays red: OpenCV's BGR was turned.
        assert frame.image[25, 2 * i + 15, 0] > 180 and frame.image[25, 2 * i + 15, 2] < 80


def test_a_video_that_breaks_off_gives_what_came_before(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.avi", num=60).read_bytes()
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole[: len(whole) // 2])
    got, fault = read_all(Video(cut, "cut.avi"))
    assert 15 <= len(got) < 45
    assert f"ends early, after {len(got)} of 60 frames" in fault and "cut.avi" in fault


@pytest.mark.parametrize("data", [b"", b"no video", b"\0" * 5000])
def test_a_file_that_is_no_video(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    got, fault = read_all(Video(path, "a.mp4"))
    assert not got and "can't be opened" in fault


def test_a_camera_that_is_not_there() -> None:
    got, fault = read_all(Live(97, "camera_97"))
    assert not got and "camera 97 can't be opened" in fault


class Camera:
    """A camera that vanishes after three frames; stands for cv2.VideoCapture."""

    def __init__(self, address: int) -> None:
        self.left = 3

    def isOpened(self) -> bool:
        return True

    def get(self, what: int) -> float:
        return -1.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, make_image()) if self.left >= 0 else (False, None)

    def release(self) -> None:
        """Do nothing."""


def test_a_camera_that_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    got, fault = read_all(Live(0, "camera_0"))
    assert [frame.index for frame in got] == [0, 1, 2] and got[0].fps == 25.0
    assert "camera_0 stopped sending images after 3 frames" in fault


def test_counting_for_a_progress_bar(tree: Path) -> None:
    assert count_frames(expand(tree)) == 5 + 3
    assert count_frames(expand([tree, 0])) is None
    (tree / "bad.mp4").write_bytes(b"no video")
    assert count_frames(expand(tree)) is None
