"""`eyas serve` beside LitServe, Ray Serve, the real Triton and a greedy batcher; swaps, drains and kills under load.

    python -m benchmarks.serving BUNDLE [--parts overhead,load,faults] [--triton PY] [--litserve PY] [--ray PY]

The peers' interpreters are of environments as `serving_peers.py` says. Prints what `serving.md` tells, keeps the
numbers in `results/serving_PART.json`. Everything runs on one machine, by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.serving_drive import HERE, PATH, closed, images, opened, started, target, warmed
from benchmarks.serving_faults import faults
from tests.serve.bundles import write_bundle
from tests.serve.simulator import Simulator, items, linear

from eyas.benchmark.chart import save_chart
from eyas.benchmark.load.arrivals import arrivals
from eyas.benchmark.load.chart import draw_load
from eyas.benchmark.load.http import Target
from eyas.benchmark.load.local import LocalServer
from eyas.benchmark.load.report import LoadReport, Step, percentile, summarize
from eyas.benchmark.load.sweep import allow_connections
from eyas.machine.processor import processor
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.scheduler import Scheduler
from eyas.serve.workers.base import Task
from eyas.serve.workers.pipeline import Pipeline

LOADS = (0.1, 0.5, 0.75, 0.9, 1.15, 1.5, 2.0)
GOAL = 0.1


def pipeline(bundle: Path) -> Pipeline:
    """Return what a worker runs, in this process: nothing around it."""
    import cv2

    from eyas.runtime.loading import load

    cv2.setNumThreads(1)
    return Pipeline(load(bundle, threads=1, spin=False))


def bare(found: Pipeline, tasks: Sequence[Task], seconds: float) -> tuple[float, float]:
    """Return milliseconds of processor time an image, and the median milliseconds, without any server.

    Args:
        found: what runs.
        tasks: the images, by turns.
        seconds: for how long.
    """
    walls, processor_time, end = [], 0.0, time.perf_counter() + seconds
    while time.perf_counter() < end:
        before, start = time.process_time(), time.perf_counter()
        found.run([tasks[len(walls) % len(tasks)]])
        walls.append(time.perf_counter() - start)
        processor_time += time.process_time() - before
    return 1e3 * processor_time / len(walls), 1e3 * statistics.median(walls)


# ---------------------------------------------------------------------------------------------------------- overhead


def overhead(bundle: Path, peers: dict[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    """Return each server's cost of a request around the bare work, one request at a time.

    The bridge, which is the least that two processes can be, runs beside Eyas, and they are played by turns.
    """
    found = pipeline(bundle)
    tasks = [Task(image, found._detector.thresholds) for image in images()]
    rows: dict[str, Any] = {}
    for name, python in peers.items():
        turns = {name: python} | ({"bridge": sys.executable} if name == "eyas" else {})
        with ExitStack() as stack:
            servers = {each: stack.enter_context(started(each, turns[each], bundle, 1.0)) for each in turns}
            for each, server in servers.items():
                asyncio.run(warmed(target(each, server)))
            cells = []
            for number in range(rounds):
                cell = {"bare": bare(found, tasks, seconds)}
                for each in list(servers)[:: -1 if number % 2 else 1]:  # neither always comes first
                    cell[each] = alone(each, servers[each], seconds)
                cells.append(cell)
            for each, server in servers.items():
                rows[each] = {"start_s": server.start_seconds, "memory_mib": server.taken().memory / 2**20}
                rows[each] |= {"processes": server.taken().processes, **costs(cells, each), "rounds": cells}
                line = {key: round(value, 3) for key, value in rows[each].items() if key != "rounds"}
                print(each, json.dumps(line), flush=True)
    return rows


def costs(cells: Sequence[dict[str, tuple[float, float]]], name: str) -> dict[str, float]:
    """Return medians over the rounds: what a server takes, and what it takes over each other one of its rounds."""
    found = {}
    for index, what in enumerate(("cpu", "p50")):
        found[f"{what}_ms"] = statistics.median(cell[name][index] for cell in cells)
        for other in sorted(cells[0].keys() - {name}):
            differences = [cell[name][index] - cell[other][index] for cell in cells]
            found[f"{what}_over_{other}_ms"] = statistics.median(differences)
    return found


def alone(name: str, server: LocalServer, seconds: float) -> tuple[float, float]:
    """Return a server's milliseconds of processor time a request, and the client's median, for one client."""
    before = server.taken()
    played = asyncio.run(closed(target(name, server), 1, seconds))
    after = server.taken()
    served = [each for each in played.samples if each.served]
    p50 = statistics.median(each.ended - each.sent for each in served)
    return 1e3 * (after.cpu - before.cpu) / len(served), 1e3 * p50


# -------------------------------------------------------------------------------------------------------------- load


def load(bundle: Path, peers: dict[str, str], seconds: float) -> dict[str, Any]:
    """Return what becomes of requests from 10 to 200 % of capacity, all servers by turns, and in the simulator."""
    allow_connections()
    steps: dict[str, list[Step]] = {name: [] for name in (*peers, "simulator")}
    with ExitStack() as stack:
        aims = {}
        for name, python in peers.items():
            aims[name] = target(name, stack.enter_context(started(name, python, bundle, GOAL)))
            asyncio.run(warmed(aims[name]))
        profile = shape(bundle)
        capacities = {name: capacity(aim) for name, aim in aims.items()}
        most = max(capacities.values())  # what is more than any of them can do is an overload for all
        print({name: round(value, 1) for name, value in capacities.items()}, flush=True)
        for share in LOADS:
            length = seconds * (3 if share == 1.15 else 1)
            times = arrivals("poisson", share * most, length, seed=round(100 * share))
            rate = most
            for name, aim in aims.items():
                before = worked(aim) if name == "eyas" else (0.0, 0.0)
                steps[name].append(summarize(asyncio.run(opened(aim, times, length)), GOAL, share))
                told(name, steps[name][-1])
                if name == "eyas" and share > 1:  # how fast its worker was then: the machine is not always as fast
                    rate = (worked(aim)[0] - before[0]) / (worked(aim)[1] - before[1])
            steps["simulator"].append(simulated(times, length, profile, rate, share))
            told(f"simulator, {rate:.0f} a second", steps["simulator"][-1])
    return {"capacities": capacities, "steps": steps, "profile": vars(profile)}


def worked(aim: Target) -> tuple[float, float]:
    """Return how many images Eyas' worker has answered so far, and the seconds that it was busy with them."""
    with urllib.request.urlopen(aim.url.replace(PATH, "/metrics")) as answer:
        text = answer.read().decode()
    values = [
        re.search(rf"^{name}_total{{.*}} (\S+)$", text, flags=re.M) for name in ("eyas_images", "eyas_busy_seconds")
    ]
    return float(values[0][1]), float(values[1][1])


def told(name: str, step: Step) -> None:
    """Print a row."""
    print(
        f"| {name} | {step.load:.0%} | {step.offered:.0f} | {step.goodput:.1%} | {step.p50:.1f} | {step.p99:.1f} | "
        f"{step.p999:.1f} | {dict(step.codes)} | lag {step.lag_p99:.1f} |",
        flush=True,
    )


def capacity(aim: Target, tries: int = 3) -> float:
    """Return the most answers a second, with 8 and 16 clients."""
    return max(
        summarize(asyncio.run(closed(aim, clients, 2.0)), 60.0).served for _ in range(tries) for clients in (8, 16)
    )


def shape(bundle: Path) -> LatencyProfile:
    """Return how long batches take, from bytes to detections, without a server."""
    found = pipeline(bundle)
    tasks = [Task(image, found._detector.thresholds) for image in images()] * 2
    rows = []
    for size in (1, 2, 4, 8):
        walls = []
        for _ in range(12):
            start = time.perf_counter()
            found.run(tasks[:size])
            walls.append(time.perf_counter() - start)
        rows.append((size, statistics.median(walls)))
    return LatencyProfile.measured(rows)


def simulated(times: Sequence[float], seconds: float, profile: LatencyProfile, rate: float, share: float) -> Step:
    """Return what the simulator makes of the same arrivals, with a worker as fast as the server was."""
    policy = Scheduler()
    size = 8 if profile.base > 0 else 1
    scale = (size / rate) / (profile.base + profile.per_item * size)
    known = LatencyProfile(profile.base * scale, profile.per_item * scale, profile.deviation)
    policy.register("m", "w", known, slo=GOAL, max_batch=8)
    result = Simulator(policy, linear(known.base, known.per_item)).run(items(times))
    latencies = sorted(event.ended - event.arrived for event in result.events if event.outcome.name == "SERVED")
    good = sum(latency <= GOAL for latency in latencies)
    return Step(
        share, len(times) / seconds, len(times) / seconds, len(latencies) / seconds, good / seconds, good / len(times),
        1e3 * percentile(latencies, 0.5), 1e3 * percentile(latencies, 0.99), 1e3 * percentile(latencies, 0.999),
        {"200": len(latencies), "429": len(times) - len(latencies)}, len(times), seconds, 0.0, 0.0, 0.0, False,
    )  # fmt: skip


def keep(part: str, content: dict[str, Any]) -> None:
    """Write a part's numbers."""
    path = HERE / "results" / f"serving_{part}.json"
    text = json.dumps({"machine": vars(processor()) | {"instruction_sets": None}, **content}, indent=1, default=vars)
    path.write_text(re.sub(r"\bNaN\b", "null", text) + "\n", encoding="utf-8")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--parts", default="overhead,load,faults")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rate", type=float, default=60.0, help="requests a second while something goes wrong")
    for name in ("triton", "litserve", "ray"):
        parser.add_argument(f"--{name}", help="its interpreter; left out without")
    args = parser.parse_args()
    given = {name: vars(args)[name] for name in ("litserve", "ray", "triton") if vars(args)[name]}
    work = Path("/tmp") / f"serving-{os.getpid()}"
    parts = args.parts.split(",")
    if "overhead" in parts:
        tiny = write_bundle(work / "tiny")
        rows = {"network": overhead(args.bundle, {"eyas": "", **given}, args.rounds, args.seconds)}
        rows["nearly no network"] = overhead(tiny, {"eyas": "", "floor": sys.executable}, args.rounds, args.seconds)
        keep("overhead", rows)
    if "load" in parts:
        peers = {"eyas": "", "greedy": sys.executable} | {n: p for n, p in given.items() if n == "triton"}
        content = load(args.bundle, peers, args.seconds)
        keep(
            "load",
            {**content, "steps": {name: [vars(each) for each in rows] for name, rows in content["steps"].items()}},
        )
        capacities = content["capacities"]
        most = max(capacities.values())
        reports = [
            LoadReport(name, 1e3 * GOAL, "poisson", capacities.get(name, most), 16, tuple(rows), processor(),
                       "49 kB JPEGs, 640 x 480", "", "0.1")
            for name, rows in content["steps"].items()
        ]  # fmt: skip
        save_chart(draw_load(reports), HERE / "images" / "serving_load.png")
    if "faults" in parts:
        work.mkdir(exist_ok=True)
        keep("faults", faults(args.bundle, args.rate, work))


if __name__ == "__main__":
    main()
