"""Image ids of an annotation file: by the end of the path, and never one id for two images."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyas.errors import UserError
from eyas.runtime.like import ImageIds


def test_namesakes_in_folders_stay_apart() -> None:
    ids = ImageIds({"cam1/0001.jpg": 1, "cam2/0001.jpg": 2, "b.jpg": 3}, "truth.json")
    assert ids.find(Path("/data/cam2/0001.jpg")) == 2
    assert ids.find("cam1/0001.jpg") == 1
    assert ids.find("/elsewhere/b.jpg") == 3
    with pytest.raises(UserError, match=r"0001\.jpg could be cam1/0001\.jpg, cam2/0001\.jpg"):
        ids.find("0001.jpg")
    with pytest.raises(UserError, match="is not among the images"):
        ids.find("cam1/0002.jpg")


def test_two_images_never_get_one_id() -> None:
    ids = ImageIds({"0001.jpg": 7}, "truth.json")
    assert ids.find("cam1/0001.jpg") == 7
    assert ids.find("cam1/0001.jpg") == 7  # the same image
    with pytest.raises(UserError, match=r"cam1/0001\.jpg and cam2/0001\.jpg both match the image 0001\.jpg"):
        ids.find("cam2/0001.jpg")
    with pytest.raises(UserError, match="both match"):
        ids.find("cam1/0001.jpg", once=True)


def test_windows_paths_of_annotation_files() -> None:
    assert ImageIds({"a.jpg": 1}, "").find("C:\\x\\a.jpg") == 1
