"""What an evaluation in training takes: detections collected beside the network, or after each batch, by turns.

    python benchmarks/evaluation_overlap.py [--threads 1] [--rounds 5]

Row N with random weights at 320 px looks at 6 batches of 8 images of noise; every image has 1000 candidates, as at the
low threshold of an evaluation. Both ways must give the same detections. Prints wall and processor seconds, best and
median, and what the selection and suppression of all batches takes by itself.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from eyas.data.loading.batch import Batch
from eyas.evaluation.predictions import Predictions
from eyas.models.decode import Deployed
from eyas.models.fuse import fused
from eyas.models.zoo import build
from eyas.training.detecting import Collector
from eyas.types import EVALUATE, InputSpec

SIZE, BATCH, BATCHES, CLASSES = 320, 8, 6, 3


def batches() -> list[Batch]:
    """Return batches of noise."""
    rng = np.random.default_rng(0)
    none = torch.zeros(0, dtype=torch.int64)
    return [
        Batch(
            images=torch.from_numpy(rng.integers(0, 255, (BATCH, SIZE, SIZE, 3), np.uint8)),
            boxes=torch.zeros(0, 4), labels=none, counts=torch.zeros(BATCH, dtype=torch.int64),
            indices=torch.arange(BATCH) + BATCH * number,
            placements=torch.tensor([[1.0, 1, 0, 0, SIZE, SIZE]] * BATCH),
            sizes=torch.tensor([[SIZE, SIZE]] * BATCH), skipped=none,
        )
        for number in range(BATCHES)
    ]  # fmt: skip


def evaluate(net: Deployed, given: list[Batch], beside: bool) -> Predictions:
    """Return the detections in the batches."""
    with torch.inference_mode(), Collector(tuple("abc"), EVALUATE) as collector:
        for batch in given:
            collector.add(*net(batch.images), batch)
            if not beside:
                collector.finish()
        return collector.finish()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    net = Deployed(fused(build("n", CLASSES).eval()), InputSpec(SIZE, SIZE), EVALUATE.candidates).eval()
    given = batches()

    def host_alone(outputs: list[tuple[torch.Tensor, torch.Tensor]]) -> Predictions:
        with Collector(tuple("abc"), EVALUATE) as collector:
            for (boxes, scores), batch in zip(outputs, given, strict=True):
                collector.add(boxes, scores, batch)
            return collector.finish()

    with torch.inference_mode():
        outputs = [net(batch.images) for batch in given]
    ways: dict[str, Callable[[], Predictions]] = {
        "after each batch": lambda: evaluate(net, given, beside=False),
        "beside the network": lambda: evaluate(net, given, beside=True),
        "select and suppress alone": lambda: host_alone(outputs),
    }
    found = [way() for way in ways.values()]
    assert len(found[0]) and all(np.array_equal(found[0].boxes, other.boxes) for other in found)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, way in ways.items():
            wall, processor = time.perf_counter(), time.process_time()
            way()
            taken[name].append((time.perf_counter() - wall, time.process_time() - processor))
    load = f"threads {arguments.threads}; load {os.getloadavg()[0]:.0f}"
    print(f"{BATCHES} batches of {BATCH}, {len(found[0])} detections; {load}")
    for name, times in taken.items():
        walls, processors = zip(*times, strict=True)
        numbers = (min(walls), statistics.median(walls), min(processors), statistics.median(processors))
        print(f"{name}: wall {numbers[0]:.2f} / {numbers[1]:.2f} s, processor {numbers[2]:.2f} / {numbers[3]:.2f} s")


if __name__ == "__main__":
    main()
