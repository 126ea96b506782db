"""Detections beside the network: the same ones, the network not waiting for them, faults told, no thread left."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from eyas.data.loading.batch import Batch
from eyas.runtime.postprocess import select
from eyas.training import detecting
from eyas.training.batches import placement_of
from eyas.training.detecting import Collector
from eyas.types import EVALUATE, Detections, Suppression, Thresholds

CLASSES = ("a", "b", "c")


def candidates(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return 60 candidates an image, which depend on it alone: what a deployed network returns."""
    boxes, scores = [], []
    for image in batch.images:
        rng = torch.Generator().manual_seed(int(image.long().sum()))
        corner = torch.rand(60, 2, generator=rng) * 40
        boxes.append(torch.cat([corner, corner + 8 + torch.rand(60, 2, generator=rng) * 30], 1))
        scores.append(torch.rand(60, len(CLASSES), generator=rng))
    return torch.stack(boxes), torch.stack(scores)


def batches(count: int = 6) -> list[Batch]:
    """Return batches of 3 images; the last has one."""
    rng = np.random.default_rng(2)
    made = []
    for number in range(count):
        images = 3 if number + 1 < count else 1
        placements = np.array([[0.5, 0.5, 4, 0, 50, 64]] * images, np.float32)
        none = torch.zeros(0, dtype=torch.int64)
        made.append(
            Batch(
                images=torch.from_numpy(rng.integers(0, 255, (images, 8, 8, 3), np.uint8)),
                boxes=torch.zeros(0, 4),
                labels=none,
                counts=torch.zeros(images, dtype=torch.int64),
                indices=torch.arange(images) + 3 * number,
                placements=torch.from_numpy(placements),
                sizes=torch.tensor([[128, 100]] * images),
                skipped=none,
            )
        )
    return made


def expected(thresholds: Thresholds) -> Iterator[tuple[int, Detections]]:
    """Yield each image and its detections, one batch after the other."""
    for batch in batches():
        boxes, scores = (value.numpy() for value in candidates(batch))
        for row, index in enumerate(batch.indices.tolist()):
            placement = placement_of(batch.placements[row].tolist())
            height, width = batch.sizes[row].tolist()
            yield index, select(boxes[row], scores[row], placement, height, width, CLASSES, thresholds)


@pytest.mark.parametrize("kind", ["class_wise", "class_agnostic", "soft"])
def test_detections_are_those_of_one_batch_after_the_other(kind: Suppression) -> None:
    thresholds = Thresholds(0.1, 0.4, 100, 20, kind)
    with Collector(CLASSES, thresholds, keep=4) as collector:
        for batch in batches():
            collector.add(*candidates(batch), batch)
        found = collector.finish()
    one_by_one = list(expected(thresholds))
    assert np.array_equal(found.images, np.repeat([i for i, _ in one_by_one], [len(each) for _, each in one_by_one]))
    for name in ("boxes", "scores", "labels"):
        assert np.array_equal(getattr(found, name), np.concatenate([getattr(each, name) for _, each in one_by_one]))
    assert list(collector.detections) == [0, 1, 2, 3]
    assert np.array_equal(collector.detections[3].boxes, one_by_one[3][1].boxes)


@pytest.mark.parametrize("kind", ["class_wise", "class_agnostic"])
def test_what_a_gpu_suppresses_is_what_the_host_would(kind: Suppression) -> None:
    with Collector(CLASSES, Thresholds(0.1, 0.4, 100, 20, kind)) as collector:
        for batch in batches():
            outputs = candidates(batch)
            pairs = zip(collector._suppressed(*outputs, batch), collector._selected(*outputs, batch), strict=True)
            for one, other in pairs:
                assert all(
                    np.array_equal(getattr(one, name), getattr(other, name)) for name in ("boxes", "scores", "labels")
                )
                assert (one.height, one.width, one.classes) == (128, 100, CLASSES)


def test_the_network_does_not_wait_and_few_batches_do(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    thread: set[str] = set()

    def late(*arguments: object) -> Detections:
        assert held.wait(300)
        thread.add(threading.current_thread().name)
        return select(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(detecting, "select", late)
    with Collector(CLASSES, EVALUATE) as collector:
        first, second, third, *_ = batches()
        collector.add(*candidates(first), first)
        collector.add(*candidates(second), second)
        assert not thread  # nothing has been selected yet
        more = threading.Thread(target=collector.add, args=(*candidates(third), third))
        more.start()
        more.join(0.2)
        assert more.is_alive()  # a third one waits for the first
        held.set()
        more.join(300)
        assert len(set(collector.finish().images.tolist())) == 9
    assert thread == {"eyas-detections_0"}


def test_a_fault_beside_the_network_is_told_and_no_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> Detections:
        raise MemoryError("no room")

    monkeypatch.setattr(detecting, "select", fails)
    before = threading.active_count()
    with pytest.raises(MemoryError, match="no room"), Collector(CLASSES, EVALUATE) as collector:
        for batch in batches():
            collector.add(*candidates(batch), batch)
    assert threading.active_count() == before


def test_nothing_evaluated_is_no_prediction() -> None:
    with Collector(CLASSES, EVALUATE) as collector:
        assert len(collector.finish()) == 0
