"""Running a detector over a dataset: each image's detections reach that image, whatever the batch."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.colours import IMAGES, colour_detector, write_dataset

from eyas.data.formats import load_dataset
from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.predictions import predict_dataset
from eyas.types import Detections, UInt8Array


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    return load_dataset(write_dataset(tmp_path_factory.mktemp("colours")), "val")


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_every_image_gets_its_own_detections(index: DatasetIndex, batch: int) -> None:
    sizes = []
    detector = colour_detector()

    def detect(images: list[UInt8Array]) -> list[Detections]:
        sizes.append(len(images))
        return detector(images)

    run = predict_dataset(detect, index, batch=batch)
    assert sizes == [min(batch, len(IMAGES) - start) for start in range(0, len(IMAGES), batch)]
    assert np.bincount(run.predictions.images, minlength=5).tolist() == [len(rows) for rows in IMAGES]
    assert evaluate_predictions(index, run.predictions).ap == pytest.approx(1.0)
    assert run.unreadable == () and run.resized == () and run.warnings(index) == () and run.seconds > 0


def test_broken_image_is_named_and_its_objects_count_as_missed(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    (root / "val" / "1.png").write_bytes(b"not an image")
    (root / "val" / "3.png").unlink()
    index = load_dataset(root, "val")
    run = predict_dataset(colour_detector(), index, batch=2)
    assert [i for i, _ in run.unreadable] == [1, 3]
    (warning,) = run.warnings(index)
    assert "2 of 5 images could not be read" in warning and "1.png" in warning
    result = evaluate_predictions(index, run.predictions)
    assert result.metrics["AR_100"] == pytest.approx((1 + 1 + 0.5) / 3)  # one of the two blue ones is in 1.png


def test_no_readable_image_is_refused(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    index = load_dataset(root, "val")
    for path in (root / "val").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match="None of the 5 images can be read"):
        predict_dataset(colour_detector(), index)


def test_images_of_another_size_than_annotated_are_warned_of(tmp_path: Path) -> None:
    index = load_dataset(write_dataset(tmp_path), "val")
    sizes = index.sizes.copy()
    sizes[2, 1] = 256
    index = dataclasses.replace(index, sizes=sizes)
    run = predict_dataset(colour_detector(), index)
    assert run.resized == (2,) and "differ in size" in run.warnings(index)[0] and "2.png" in run.warnings(index)[0]


def test_a_detector_that_loses_images_is_noticed(index: DatasetIndex) -> None:
    with pytest.raises(ValueError, match="zip"):
        predict_dataset(lambda images: colour_detector()(images)[:-1], index)
