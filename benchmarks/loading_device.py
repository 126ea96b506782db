"""How fast batches are planned and drawn on a device that keeps the images, beside the processor's own way.

    python benchmarks/loading_device.py [--device cuda] [--size 640] [--batch 64] [--rounds 5]

Makes 128 textured images (640 x 480) in a temporary folder. Three rates, in images a second: plans of one process, in
its CPU time; drawing planned batches on the device, by the clock; and the same batches made by OpenCV from decoded
images in memory, in CPU time of one thread. The best of some rounds, in which all run in turn. Prints a table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from loading import IMAGES, make_dataset

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device.batches import DeviceBatches
from eyas.data.loading.batch import Batch
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.training.recipes import yolo_nas_coco
from eyas.types import InputSpec

POLICIES = {
    "default": AugmentPolicy(),
    "default, last epochs": AugmentPolicy().closing(),
    "with rotation": AugmentPolicy(degrees=10.0),
    "yolo_nas_coco": yolo_nas_coco().augment,
}


def plan_rate(batches: DeviceBatches) -> float:
    """Return how many samples a CPU second are planned."""
    _, pipe = batches.prepare()
    numbers = tuple(range(len(batches.order)))
    start = time.process_time()
    count = sum(len(arrays.counts) for arrays in pipe.make(1, numbers, False, lambda shape: np.empty(shape, np.uint8)))
    return count / (time.process_time() - start)


def draw_rate(batches: DeviceBatches, planned: list[Batch], device: torch.device) -> float:
    """Return how many samples a second are drawn, the copies of their plans included; a processor's time is its own."""
    pixels, _ = batches.prepare()
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    _wait(device)
    start = clock()
    for batch in planned:
        batches.drawn(batch, pixels, batches.policies.usual)
    _wait(device)
    return sum(map(len, planned)) / (clock() - start)


def host_rate(loader: TrainLoader) -> float:
    """Return how many samples a CPU second OpenCV makes."""
    start = time.process_time()
    return sum(map(len, loader)) / (time.process_time() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--size", type=int, default=320)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    if arguments.device == "cpu":
        torch.set_num_threads(1)
    device, spec = torch.device(arguments.device), InputSpec(arguments.size, arguments.size)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one thread of the processor"
    print(f"{IMAGES} images of 640 x 480, samples of {arguments.size} px, batch {arguments.batch}; drawn by {name}\n")
    print("| policy | planned, images a CPU second | drawn on the device, images a second | OpenCV, a CPU second |")
    print("| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        index = make_dataset(Path(folder))
        for title, policy in POLICIES.items():
            options = {"batch_size": arguments.batch, "seed": 1}
            ours = train_loader(index, spec, policy, cache="gpu", device=device, **options)
            host = train_loader(index, spec, policy, cache="decoded", **options)
            batches = ours.batches
            assert isinstance(batches, DeviceBatches)
            planned = list(batches.prepare()[1].run([(1, tuple(range(len(ours))), False)]))
            list(host)
            planned = planned if device.type == "cuda" else planned[:1]  # a processor takes its time
            rates = [
                (plan_rate(batches), draw_rate(batches, planned, device), host_rate(host))
                for _ in range(arguments.rounds)
            ]
            best = [f"{max(column):,.0f}" for column in zip(*rates, strict=True)]
            print(f"| {title} | {' | '.join(best)} |", flush=True)


if __name__ == "__main__":
    main()
