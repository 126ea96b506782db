"""What is judged of a bundle: its outputs, order aside, its suppression against the greedy one, its own file's time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.greedy import nms
from torch import Tensor, nn

from eyas.artifacts.bundle import Bundle
from eyas.errors import UserError
from eyas.export.gates import BOUNDS, Parity, check_parity, matched, shapes_to_try
from eyas.export.graph import Suppressed, survivors
from eyas.export.timing import device_name, interleaved, time_bundle, versions
from eyas.machine.gpus import Gpu
from eyas.machine.processor import processor
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


def scene(seed: int, num: int = 120, labels: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes [1, num, 4] in clumps, falling scores [num] and labels [1, num]."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(12, 2, generator=generator) * 300
    middle = centres[torch.randint(0, 12, (num,), generator=generator)] + 6 * torch.randn(num, 2, generator=generator)
    sides = 40 + 6 * torch.randn(num, 2, generator=generator)
    boxes = torch.cat([middle - sides / 2, middle + sides / 2], 1)
    scores = torch.rand(num, generator=generator).sort(descending=True).values
    return boxes[None], scores, torch.randint(0, labels, (1, num), generator=generator)


@pytest.mark.parametrize("seed", range(5))
def test_with_enough_rounds_it_is_greedy_suppression(seed: int) -> None:
    boxes, scores, labels = scene(seed)
    kept = survivors(boxes, labels, 0.5, rounds=40)[0].numpy()
    greedy = nms(boxes[0].numpy(), scores.numpy(), labels[0].numpy(), 0.5, 1000)
    assert set(np.flatnonzero(kept)) == set(greedy.tolist()) and 10 < len(greedy) < 100


def test_one_round_drops_too_many_and_five_nearly_none() -> None:
    differences = {1: 0, 5: 0}
    for seed in range(10):
        boxes, scores, labels = scene(seed)
        greedy = set(nms(boxes[0].numpy(), scores.numpy(), labels[0].numpy(), 0.5, 1000).tolist())
        for rounds in differences:
            kept = set(np.flatnonzero(survivors(boxes, labels, 0.5, rounds)[0].numpy()).tolist())
            differences[rounds] += len(kept ^ greedy)
    assert differences[1] > 20 and differences[5] <= 0.02 * 1200


class Given(nn.Module):
    """A deployed network that always answers the same."""

    def __init__(self, boxes: Tensor, scores: Tensor) -> None:
        super().__init__()
        self.boxes, self.scores = boxes, scores

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes [B, K, 4] and scores [B, K, C]."""
        return self.boxes.expand(len(images), -1, -1), self.scores.expand(len(images), -1, -1)


def test_a_row_has_one_class_and_a_box_may_have_two_rows() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]]])
    scores = torch.tensor([[[0.9, 0.3], [0.8, 0.1], [0.0, 0.7]]])
    found, rated = Suppressed(Given(boxes, scores), iou=0.6, pairs=5, most=5)(torch.zeros(2, 1, 1, 3))
    assert found.shape == (2, 5, 4) and rated.shape == (2, 5, 2)
    expected = [[0.9, 0], [0, 0.7], [0, 0.3], [0, 0], [0, 0]]  # 0.8 and 0.1 overlap better boxes of their classes
    torch.testing.assert_close(rated[0], torch.tensor(expected))
    torch.testing.assert_close(found[0, :3], boxes[0, [0, 2, 0]])
    fewer = Suppressed(Given(boxes, scores), iou=0.6, pairs=5, most=2)(torch.zeros(1, 1, 1, 3))
    torch.testing.assert_close(fewer[1][0], torch.tensor(expected[:2]))  # a dropped one leaves its place to the next


def test_calls_take_turns() -> None:
    order: list[str] = []
    times = interleaved({("a", ""): lambda: order.append("a"), ("b", ""): lambda: order.append("b")}, rounds=2, each=2)
    assert "".join(order) == "aaabbb" + "aabb" and [len(one) for one in times.values()] == [4, 4]


def test_a_bundle_says_how_long_its_file_takes_and_where(bundle: Bundle) -> None:
    (told,) = bundle.manifest.latency
    found = time_bundle(bundle.folder, bundle.manifest, threads=1)
    assert found.threads == 1 and told.threads == 0
    for one in (told, found):
        assert 0 < one.median_ms <= one.p90_ms
        assert (one.device, one.batch, one.size) == (processor().name, 1, (96, 96))
        assert one.versions == versions("onnxruntime")


def test_the_device_is_the_one_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.export.timing.gpus", lambda: (Gpu("a card", "8.9", "24 GiB", "580"),))
    assert device_name("tensorrt-rtx") == "a card" and device_name("openvino") == processor().name
