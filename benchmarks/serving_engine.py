"""What the serving engine costs around the bare pipeline: CPU and time a request, the round trip, the start.

    python benchmarks/serving_engine.py [--bundle BUNDLE] [--requests 1500] [--json benchmarks/serving_engine.json]

The bare pipeline (decode, letterbox, network, selection of the same JPEG of 50 kB) and the engine (front, scheduler,
shared memory, worker process) run interleaved in rounds on one machine; CPU is that of all processes together, from
the kernel's clocks, so a loaded machine blurs the times more than the CPU. Without `--bundle` the network is one
that costs next to nothing, so that what is left is the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from eyas.artifacts.manifest import Manifest
from eyas.files import write_json
from eyas.machine.processor import processor
from eyas.runtime.loading import load
from eyas.serve.api import Request
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.workers.base import Task, WorkerSpec
from eyas.serve.workers.pipeline import Pipeline
from eyas.serve.workers.process_worker import ProcessWorker

BYTES = 50_000
ROUNDS = 5


def make_image() -> bytes:
    """Return a JPEG of 640 x 480 pixels and about 50 kB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (30, 40, 3), dtype=np.uint8)
    image = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    for noise in np.arange(0, 50, 0.5):
        noisy = np.clip(image + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
        data = bytes(simplejpeg.encode_jpeg(noisy, quality=85))
        if len(data) >= BYTES:
            return data
    return data


def cpu_of(pid: int) -> float:
    """Return the processor seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def children(task: Path) -> list[str]:
    """Return the processes that a thread has started."""
    return (task / "children").read_text("ascii").split()


def bare(pipeline: Pipeline, data: bytes, thresholds: Any, num: int) -> dict[str, float]:
    """Run the pipeline `num` times; return CPU and median time an image."""
    task, times = Task(data, thresholds), []
    cpu = time.process_time()
    for _ in range(num):
        start = time.perf_counter()
        pipeline.run([task])
        times.append(time.perf_counter() - start)
    return {"cpu_ms": 1e3 * (time.process_time() - cpu) / num, "p50_ms": 1e3 * statistics.median(times)}


async def served(engine: LocalEngine, pid: int, data: bytes, num: int, clients: int) -> dict[str, float]:
    """Ask the engine `num` times from `clients` at once; return CPU of front and worker and median time a request."""
    left, times = num, []

    async def client() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            start = time.perf_counter()
            await engine.detect(Request("r", "", "", (data,)))
            times.append(time.perf_counter() - start)

    front, worker = time.process_time(), cpu_of(pid)
    await asyncio.gather(*(client() for _ in range(clients)))
    front, worker = time.process_time() - front, cpu_of(pid) - worker
    return {
        "cpu_ms": 1e3 * (front + worker) / len(times),
        "front_cpu_ms": 1e3 * front / len(times),
        "p50_ms": 1e3 * statistics.median(times),
    }


async def round_trips(bundle: Path, classes: tuple[str, ...], num: int) -> dict[str, dict[str, float]]:
    """Return the time from handing a payload to a worker until its answer, which is a refusal at first sight."""
    worker = ProcessWorker("w", WorkerSpec(bundle, threads=1), classes)
    await worker.start(print)
    thresholds, found = Manifest.read(bundle).thresholds, {}
    for size in (1_000, BYTES, 1_200_000):
        times, task = [], Task(b"x" * size, thresholds)
        for _ in range(num):
            done = asyncio.get_running_loop().create_future()
            start = time.perf_counter()
            worker.submit([task], done.set_result)
            await done
            times.append(1e6 * (time.perf_counter() - start))
        found[f"{size} bytes"] = {"p50_us": statistics.median(times), "p99_us": sorted(times)[int(0.99 * num)]}
    await worker.stop(0.0)
    return found


async def measure(bundle: Path, num: int) -> dict[str, Any]:
    """Return all numbers of one bundle."""
    data, manifest = make_image(), Manifest.read(bundle)
    pipeline = Pipeline(load(bundle, threads=1, spin=False))
    pipeline.warm_up(1)
    start = time.perf_counter()
    async with LocalEngine(EngineSettings(workers=1, threads=1, goal=30.0)) as engine:
        await engine.load("m", bundle=bundle)
        started = time.perf_counter() - start
        (pid,) = [
            int(each) for task in Path("/proc/self/task").iterdir() for each in (task / "children").read_text().split()
        ]
        rows: dict[str, list[dict[str, float]]] = {"bare": [], "clients 1": [], "clients 16": []}
        start_cpu = cpu_of(pid)
        await served(engine, pid, data, num // ROUNDS, 1)  # to warm up
        for _ in range(ROUNDS):
            rows["bare"].append(bare(pipeline, data, manifest.thresholds, num // ROUNDS))
            rows["clients 1"].append(await served(engine, pid, data, num // ROUNDS, 1))
            rows["clients 16"].append(await served(engine, pid, data, num // ROUNDS, 16))
        memory = engine.models()[0].memory
    best = {name: {key: round(min(row[key] for row in each), 4) for key in each[0]} for name, each in rows.items()}
    middle = {
        name: {key: round(statistics.median(row[key] for row in each), 4) for key in each[0]}
        for name, each in rows.items()
    }
    return {
        "machine": processor().name,
        "load_average": os.getloadavg()[0],
        "jpeg_bytes": len(data),
        "median_of_rounds": middle,
        "best_of_rounds": best,
        "overhead_cpu_ms": {
            name: round(middle[name]["cpu_ms"] - middle["bare"]["cpu_ms"], 4) for name in ("clients 1", "clients 16")
        },
        "overhead_p50_ms": round(middle["clients 1"]["p50_ms"] - middle["bare"]["p50_ms"], 4),
        "start_s": round(started, 3),
        "worker_start_cpu_s": round(start_cpu, 3),
        "worker_memory_mib": round(memory / 2**20, 1),
        "round_trip": await round_trips(bundle, manifest.classes, num),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a compiled bundle; a network that costs next to nothing if absent")
    parser.add_argument("--requests", type=int, default=1500, help="requests of each kind in all")
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bundle = arguments.bundle
        if bundle is None:
            from tests.serve.bundles import write_bundle

            bundle = write_bundle(Path(folder) / "tiny")
        numbers = asyncio.run(measure(bundle, arguments.requests))
    print(json.dumps(numbers, indent=2))
    if arguments.json:
        write_json(arguments.json, numbers)


if __name__ == "__main__":
    main()
