"""Timing the very file that a bundle holds, as an engine of this machine runs it."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.measured import Latency
from eyas.export.target import TARGETS
from eyas.machine.gpus import gpus
from eyas.machine.processor import processor
from eyas.runtime.loading import open_bundle
from eyas.runtime.sessions.base import Session

ROUNDS = 5
RUNS = 8  # a round
Name = TypeVar("Name")


def time_bundle(folder: Path, manifest: Manifest, threads: int | None = None) -> Latency:
    """Return the time of the bundle's network alone, for its least batch, a few rounds long."""
    session = open_bundle(folder, manifest, threads)
    try:
        times = interleaved({"": caller(session, manifest)})[""]
    finally:
        session.close()
    return latency(times, manifest, threads)


def caller(session: Session, manifest: Manifest) -> Callable[[], object]:
    """Return a function that runs the session once, on noise of the bundle's input size and least batch."""
    spec = manifest.input
    shape = (manifest.batch[0], spec.height, spec.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return lambda: session.run(images)


def interleaved(
    runs: Mapping[Name, Callable[[], object]], rounds: int = ROUNDS, each: int = RUNS
) -> dict[Name, list[float]]:
    """Return name -> milliseconds of every call; the functions are called by turns, `each` times a round."""
    times: dict[Name, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name, call in runs.items():
            if number == 0:
                call()  # the first call makes buffers
            for _ in range(each):
                started = time.perf_counter()
                call()
                times[name].append(1000 * (time.perf_counter() - started))
    return times


def latency(times: list[float], manifest: Manifest, threads: int | None) -> Latency:
    """Return the measured milliseconds as the manifest holds them."""
    packages = [info.package[0] for info in TARGETS.values() if info.engine == manifest.target]
    median, p90 = (float(np.percentile(times, part)) for part in (50, 90))
    return Latency(
        device=device_name(manifest.target),
        threads=threads or 0,
        batch=manifest.batch[0],
        size=(manifest.input.height, manifest.input.width),
        median_ms=median,
        p90_ms=p90,
        versions=versions(packages[0]),
    )


def device_name(target: str) -> str:
    """Return what ran the network: the first GPU for an engine of GPUs, else the processor."""
    cards = gpus() if target.startswith("tensorrt") else ()
    return cards[0].name if cards else processor().name


def versions(package: str) -> dict[str, str]:
    """Return import name -> version, for whatever distribution brings the package."""
    names = importlib.metadata.packages_distributions().get(package, [package])
    return {package: importlib.metadata.version(names[0])}
