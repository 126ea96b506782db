"""Where a label, list or settings file belongs lies a pipe or a device: it is refused at once, and never waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.cases import coco_root, voc_root, yolo_root

from eyas.data.formats import load_dataset
from eyas.errors import UserError

SETS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "coco": (coco_root, "annotations/*.json"),
    "voc": (voc_root, "Annotations/*.xml"),
    "voc's list": (voc_root, "ImageSets/Main/*.txt"),
    "yolo": (yolo_root, "labels/train/*.txt"),
    "yolo's settings": (yolo_root, "data.yaml"),
}


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("which", SETS)
def test_what_is_no_file_is_refused(tmp_path: Path, which: str, kind: str) -> None:
    make, pattern = SETS[which]
    root = make(tmp_path)
    for path in sorted(root.glob(pattern)):
        path.unlink()
        if kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero")
    with pytest.raises(UserError):
        load_dataset(root, "train")
