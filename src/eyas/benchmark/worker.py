"""The measuring process: one model, alone in it, so that its memory and its threads are its own.

`eyas.benchmark.process` is at the other end.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import cv2

from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest
from eyas.benchmark.resource_usage import Meter
from eyas.child_process import Parent
from eyas.machine.memory import peak_memory
from eyas.runtime.loading import load


class BenchWorker:
    """Opens the model of a job and does what it is asked; each method's answer can be written as JSON."""

    def __init__(self) -> None:
        self._meter: Meter | None = None
        self._base = 0

    def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do what job["do"] names: a method of this class."""
        methods = {"open": self.open, "round": self.round, "stream": self.stream}
        return methods[job["do"]](job)

    def open(self, job: dict[str, Any]) -> dict[str, Any]:
        """Open the model and detect once; return how long that took, and what there is.

        Args:
            job: path, threads (None: the engine's choice), batch, device, size (None: the model's own), images.
        """
        folder, threads = Path(job["path"]), job["threads"]
        if threads is not None:
            cv2.setNumThreads(threads)
        bundle = Manifest.read(folder, verify=False) if (folder / MANIFEST).is_file() else None
        self._base = peak_memory() or 0
        began = time.perf_counter()
        detector = load(folder, size=job["size"], threads=threads if bundle is not None else None, device=job["device"])
        self._meter = Meter(detector, [Path(name) for name in job["images"]], job["batch"])
        opened = time.perf_counter()
        self._meter.call()
        return {
            "engine": detector.session.description,
            "input": [detector.input.width, detector.input.height],
            "most_at_once": bundle.batch[1] if bundle is not None else None,
            "open_s": opened - began,
            "first_s": time.perf_counter() - opened,
        }

    def round(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return the calls that fill job["seconds"], and the memory grown since before the model was opened."""
        assert self._meter is not None
        done = self._meter.round(job["seconds"])
        peak = peak_memory()
        return {**dataclasses.asdict(done), "memory": None if peak is None else peak - self._base}

    def stream(self, job: dict[str, Any]) -> dict[str, Any]:
        """Return what streaming job["frames"] frames cost."""
        assert self._meter is not None
        return dataclasses.asdict(self._meter.stream(job["frames"]))


if __name__ == "__main__":
    Parent().answer(BenchWorker())
