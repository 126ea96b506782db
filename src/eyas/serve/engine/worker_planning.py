"""How many workers with how many threads each answer the most on this machine: measured once, then kept.

It is kept in the user's cache folder, never in the bundle: it belongs to the machine, and a bundle may be anybody's.

Run as `python -m eyas.serve.engine.worker_planning BUNDLE DEVICE CORES` it measures and prints JSON: in a process of
its own, so that the server's does not hold an engine.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.machine.cores import usable_cores
from eyas.machine.processor import processor
from eyas.runtime.loading import load
from eyas.runtime.sessions.cache import bundle_key, cache_folder
from eyas.serve.blocking import in_thread

MAX_BYTES = 2**20  # of a file of profiles; real ones have hundreds of bytes
MEASURE_SECONDS = 0.4  # for each choice
LIMIT_SECONDS = 120.0  # for all of them together
MOST_WORKERS = 16
NEARLY = 0.95  # choices within this of the most images a second count as equal


@dataclass(frozen=True)
class Choice:
    """So many workers with so many threads each; None lets the engine choose.

    Attributes:
        workers, threads: the choice.
        rate: images a second, all workers together.
        seconds: median time of one image while all of them work.
    """

    workers: int
    threads: int | None
    rate: float = 0.0
    seconds: float = 0.0


def choose(measured: Sequence[Choice], goal: float | None = None) -> Choice:
    """Return the choice with the most images a second; of those that are nearly equal, the quickest one.

    Args:
        measured: at least one.
        goal: latency goal in seconds: a choice that needs more than half of it for one image is taken only if all do.
    """
    fitting = [each for each in measured if goal is None or each.seconds <= goal / 2] or list(measured)
    best = max(each.rate for each in fitting)
    return min((each for each in fitting if each.rate >= NEARLY * best), key=lambda each: (each.seconds, each.workers))


def candidates(cores: int) -> list[tuple[int, int]]:
    """Return the (workers, threads) that share out the cores: threads are powers of two, and all cores."""
    threads = sorted({1 << i for i in range(cores.bit_length()) if 1 << i <= cores} | {cores})
    return [(cores // each, each) for each in threads if cores // each <= MOST_WORKERS]


async def plan(bundle: Path, manifest: Manifest, device: str, goal: float | None = None) -> Choice:
    """Return the best choice for a bundle on this machine, from the profile that is kept, or measured now.

    Takes some seconds when it has to measure; cancelled, it ends the measuring. An accelerator gets one worker; what
    can't be measured, all cores.
    """
    cores = usable_cores()
    if manifest.target.startswith("tensorrt") or device not in ("auto", "cpu"):
        return Choice(1, None)
    if cores == 1:
        return Choice(1, 1)
    key = f"{processor().name}, {cores} cores, {device}"
    folder = cache_folder("profiles")
    place = None if folder is None else folder / f"{bundle_key(manifest.files)}.json"
    measured = await asyncio.to_thread(_kept, place, key, cores)
    if not measured:
        measured = await _measured_apart(bundle, device, cores)
        if not measured:
            return Choice(1, cores)
        await asyncio.to_thread(_keep, place, key, measured)
    return choose(measured, goal)


def measure(bundle: Path, device: str, cores: int) -> list[Choice]:
    """Return what each way to share out the cores makes of the bundle."""
    return [_measure(bundle, device, workers, threads) for workers, threads in candidates(cores)]


def _measure(bundle: Path, device: str, workers: int, threads: int) -> Choice:
    """Run one image after the other in `workers` engines side by side, as workers would."""
    detectors = [load(bundle, device=device, threads=threads, spin=False) for _ in range(workers)]
    spec = detectors[0].input
    blank = np.full((1, spec.height, spec.width, 3), spec.pad_value, np.uint8)
    for detector in detectors:
        detector.infer(blank)
    times: list[float] = []
    end = time.perf_counter() + MEASURE_SECONDS

    def work(index: int) -> None:
        while True:
            start = time.perf_counter()
            detectors[index].infer(blank)
            now = time.perf_counter()
            times.append(now - start)
            if now > end:
                return

    group = [threading.Thread(target=work, args=(index,)) for index in range(workers)]
    begin = time.perf_counter()
    for thread in group:
        thread.start()
    for thread in group:
        thread.join()
    taken = time.perf_counter() - begin
    for detector in detectors:
        detector.close()
    return Choice(workers, threads, round(len(times) / taken, 2), round(median(times), 6))


async def _measured_apart(bundle: Path, device: str, cores: int) -> list[Choice]:
    """Measure in another process; [] when that fails: the bundle's own error is told when it is loaded."""
    command = [sys.executable, "-m", "eyas.serve.engine.worker_planning", str(bundle), device, str(cores)]
    # Not asyncio's own: uvloop forks, which gRPC's threads do not like; this one starts it without.
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    try:
        process = subprocess.Popen(command, stdin=nothing, stdout=pipe, stderr=nothing)
    except OSError:
        return []
    try:
        written, _ = await in_thread(process.communicate, timeout=LIMIT_SECONDS)
        return _choices(json.loads(written), cores) if process.returncode == 0 else []
    except (subprocess.TimeoutExpired, ValueError):
        return []
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _kept(place: Path | None, key: str, cores: int) -> list[Choice]:
    if place is None:
        return []
    try:
        return _choices(read_json(place, max_bytes=MAX_BYTES)[key], cores)
    except (UserError, OSError, ValueError, KeyError, TypeError):
        return []


def _choices(rows: object, cores: int) -> list[Choice]:
    """Return choices that were written as JSON: each is one of the ways to share out the cores, with what it makes.

    Raises:
        ValueError: they make no sense.
    """
    try:
        found = msgspec.convert(rows, list[Choice])
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    ways = candidates(cores)
    if not all(
        (each.workers, each.threads) in ways and 0 < each.rate < inf and 0 < each.seconds < inf for each in found
    ):
        raise ValueError("numbers out of range")
    return found


def _keep(place: Path | None, key: str, measured: Sequence[Choice]) -> None:
    """Write down what was measured, beside what was measured on other machines that share the folder."""
    if place is None:
        return
    try:
        fields = read_json(place, max_bytes=MAX_BYTES)
    except (UserError, OSError):
        fields = {}
    kept = fields if isinstance(fields, dict) else {}
    with suppress(OSError, UserError):
        write_json(place, {**kept, key: [asdict(each) for each in measured]})


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps([asdict(each) for each in measure(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))]))
