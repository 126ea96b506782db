"""Suppression of whole batches on the device gives the host's answer, ties, duds and empty images included."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eyas.letterbox import Placement
from eyas.runtime.postprocess import select
from eyas.training.suppression import suppressed
from eyas.types import FloatArray, Suppression, Thresholds

WHOLE = Placement(1.0, 1.0, 0, 0, 4096, 4096)


def same_as_on_the_host(boxes: FloatArray, scores: FloatArray, thresholds: Thresholds) -> int:
    """Compare the two image by image, and return how many candidates were dropped."""
    classes = tuple(str(number) for number in range(scores.shape[2]))
    found, values, labels, kept = suppressed(torch.from_numpy(boxes), torch.from_numpy(scores), thresholds)
    for row in range(len(boxes)):
        # Boxes are shifted, so that none of those that are compared is cut off at the image's edge.
        expected = select(boxes[row], scores[row], WHOLE, 1 << 20, 1 << 20, classes, thresholds)
        rows = kept[row].nonzero()[:, 0][: thresholds.max_detections]
        whole = (found[row][rows][:, 2:] > found[row][rows][:, :2]).all(1)
        rows = rows[whole]
        np.testing.assert_array_equal(found[row][rows].numpy(), expected.boxes)
        np.testing.assert_array_equal(values[row][rows].numpy(), expected.scores)
        np.testing.assert_array_equal(labels[row][rows].numpy(), expected.labels)
    return int((values >= thresholds.confidence).sum() - kept.sum())


@st.composite
def batches(draw: st.DrawFn) -> tuple[FloatArray, FloatArray]:
    """Draw candidates on a grid: many exact ties of overlaps and of scores."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(1, 12)))
    boxes = draw(arrays.arrays(np.float32, (*shape, 4), elements=st.integers(0, 24).map(float)))
    levels = st.integers(0, 5).map(lambda level: level / 5)
    return boxes, draw(arrays.arrays(np.float32, (*shape, draw(st.integers(1, 3))), elements=levels))


@settings(max_examples=80, deadline=None)
@given(
    batches(),
    st.sampled_from(["class_wise", "class_agnostic"]),
    st.sampled_from([0.0, 0.25, 1 / 3, 0.7, 1.0]),
    st.sampled_from([0.0, 0.2, 0.4, 1.0]),
    st.sampled_from([1, 5, 1000]),
    st.integers(1, 9),
)
def test_equal_to_the_hosts(
    case: tuple[FloatArray, FloatArray], kind: Suppression, iou: float, confidence: float, candidates: int, most: int
) -> None:
    same_as_on_the_host(*case, Thresholds(confidence, iou, candidates, most, kind))


@pytest.mark.parametrize("kind", ["class_wise", "class_agnostic"])
def test_equal_to_the_hosts_on_crowds(kind: Suppression) -> None:
    rng = np.random.default_rng(3)
    centers = rng.uniform(200, 600, (9, 40, 2))[:, rng.integers(0, 40, 400)] + rng.normal(0, 6, (9, 400, 2))
    sizes = rng.uniform(30, 90, (9, 400, 2))
    boxes = np.concatenate([centers - sizes / 2, centers + sizes / 2], axis=2).astype(np.float32)
    scores = (
        torch.from_numpy(rng.random((9, 400, 4), np.float32)).bfloat16().float().numpy()
    )  # as from bf16: many equal
    boxes[1, ::7], boxes[2, ::5, 0], scores[3], scores[4, ::9] = np.inf, np.nan, 0.0, np.nan
    assert same_as_on_the_host(boxes, scores, Thresholds(0.01, 0.5, 300, 100, kind)) > 500


def test_no_image_and_no_class_at_all_are_no_trouble() -> None:
    empty = suppressed(torch.zeros(1, 3, 4), torch.zeros(1, 3, 2), Thresholds(0.5))
    assert not empty.kept.any()
