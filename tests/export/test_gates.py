"""The comparison of outputs: order does not matter, differences do, and something is always compared."""

from __future__ import annotations

import numpy as np
import pytest

from eyas.errors import UserError
from eyas.export.gates import BOUNDS, Parity, check_parity, matched, shapes_to_try
from eyas.types import InputSpec

BOXES = np.random.default_rng(0).uniform(0, 100, (20, 4)).astype(np.float32)
SCORES = np.sort(np.random.default_rng(1).uniform(0.1, 0.9, (20, 3)).astype(np.float32), axis=0)[::-1].copy()


@pytest.mark.parametrize("precision", BOUNDS)
def test_order_does_not_matter_and_a_difference_is_found(precision: str) -> None:
    order = np.random.default_rng(2).permutation(20)
    boxes_px, scores = matched((BOXES, SCORES), (BOXES[order], SCORES[order]), BOUNDS[precision])
    assert len(boxes_px) >= 19 and boxes_px.max() == scores.max() == 0
    boxes_px, scores = matched((BOXES, SCORES), (BOXES + 0.25, SCORES), BOUNDS[precision])
    assert boxes_px.max() == pytest.approx(0.25, abs=1e-4)


def test_something_is_compared_even_where_nothing_scores() -> None:
    low = SCORES * 0.01
    for bound in BOUNDS.values():
        boxes_px, _ = matched((BOXES, low), (BOXES + 3, low), bound)
        assert len(boxes_px) >= 1 and boxes_px.max() > 0
    same = np.full_like(SCORES, 0.5)
    assert len(matched((BOXES, same), (BOXES, same), BOUNDS["fp32"])[0]) == 1


def test_what_lies_beyond_the_bound_is_refused() -> None:
    check_parity(Parity(boxes_px=0.49, scores=9e-4, quantile=1, images=1), BOUNDS["fp32"], "onnx")
    for found in ((0.51, 0.0), (0.0, 2e-3), (float("nan"), 0.0)):
        with pytest.raises(UserError, match="does not reproduce the network's outputs"):
            check_parity(
                Parity(boxes_px=found[0], scores=found[1], quantile=1, images=1), BOUNDS["fp32"], "onnx in fp32"
            )


def test_every_end_of_the_ranges_is_tried() -> None:
    spec = InputSpec(96, 96)
    assert shapes_to_try(spec, None, (1, 1)) == [(spec, 1)]
    tried = shapes_to_try(spec, (64, 128), (1, 16))
    assert [(one.height, num) for one, num in tried] == [(96, 3), (96, 1), (64, 1), (128, 1)]
