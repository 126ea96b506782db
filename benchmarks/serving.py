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
import signal
import socket
import statistics
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import simplejpeg
from benchmarks.serving_peers import body
from tests.serve.bundles import write_bundle
from tests.serve.simulator import Simulator, items, linear

from eyas.runtime.bench_chart import save_chart
from eyas.runtime.bench_picture import made_up_picture
from eyas.runtime.machine import processor
from eyas.serve.latency import Profile
from eyas.serve.load.arrivals import arrivals
from eyas.serve.load.chart import draw_load
from eyas.serve.load.generator import closed_loop, open_loop
from eyas.serve.load.http import Client, Target
from eyas.serve.load.local import LocalServer, family
from eyas.serve.load.report import LoadReport, Step, named, percentile, summarize
from eyas.serve.load.sweep import allow_connections
from eyas.serve.scheduler import Scheduler
from eyas.serve.settings import SchedulerConfig
from eyas.serve.workers.base import PictureLimits, Task
from eyas.serve.workers.pipeline import Pipeline

HERE = Path(__file__).parent
OURS = ["--workers", "1", "--threads", "1"]
LOADS = (0.1, 0.5, 0.75, 0.9, 1.15, 1.5, 2.0)
GOAL = 0.1
PATH = "/v1/detect"


def pictures(num: int = 4) -> list[bytes]:
    """Return made-up pictures of 640 x 480 pixels and 49 kB."""
    made = (made_up_picture(seed) for seed in range(num))
    return [simplejpeg.encode_jpeg(each, quality=76, colorsubsampling="420") for each in made]


def free_port() -> int:
    """Return a port that is free now, as are the next two."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def started(name: str, python: str, bundle: Path, goal: float) -> LocalServer:
    """Return the server of that name, to be entered."""
    if name == "eyas":
        return LocalServer([str(bundle), *OURS, "--slo", f"{1e3 * goal:g}"])
    script = HERE / ("serving_litserve.py" if name == "litserve" else "serving_peers.py")
    # standard error is not read here: a server that talks would fill the pipe and stand still
    command = ("sh", "-c", f'exec "{python}" "{script}" {name} "{bundle}" {free_port()} 2>/dev/null')
    return LocalServer([], command, ready=r"REST +(http://\S+)")


def target(name: str, server: LocalServer) -> Target:
    """Return what the server is sent."""
    url = server.url + (PATH if name in ("eyas", "greedy") else "")
    bodies = [body(picture, name) for picture in pictures()]
    return Target(url, [each for each, _ in bodies], bodies[0][1])


def pipeline(bundle: Path) -> Pipeline:
    """Return what a worker runs, in this process: nothing around it."""
    import cv2

    from eyas.runtime.loading import load

    cv2.setNumThreads(1)
    return Pipeline(load(bundle, threads=1, spin=False), PictureLimits())


def bare(found: Pipeline, tasks: Sequence[Task], seconds: float) -> tuple[float, float]:
    """Return milliseconds of processor time a picture, and the median milliseconds, without any server."""
    walls, number = [], 0
    processor_time, begin = time.process_time(), time.perf_counter()
    while time.perf_counter() < begin + seconds:
        start = time.perf_counter()
        found.run([tasks[number % len(tasks)]])
        walls.append(time.perf_counter() - start)
        number += 1
    return 1e3 * (time.process_time() - processor_time) / number, 1e3 * statistics.median(walls)


# ---------------------------------------------------------------------------------------------------------- overhead


def overhead(bundle: Path, peers: dict[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    """Return each server's cost of a request around the bare work, one request at a time."""
    found = pipeline(bundle)
    thresholds = found._detector.thresholds
    tasks = [Task(picture, thresholds) for picture in pictures()]
    rows: dict[str, Any] = {}
    for name, python in peers.items():
        with started(name, python, bundle, 1.0) as server:
            aim = target(name, server)
            asyncio.run(warmed(aim))
            cells = []
            for _ in range(rounds):
                alone = bare(found, tasks, seconds)
                before = server.taken()
                played = asyncio.run(closed(aim, 1, seconds))
                after = server.taken()
                served = [each for each in played.samples if each.served]
                p50 = 1e3 * statistics.median(each.ended - each.sent for each in served)
                cells.append(((after.cpu - before.cpu) * 1e3 / len(served), alone[0], p50, alone[1]))
            rows[name] = {
                "cpu_ms": statistics.median(cell[0] for cell in cells),
                "bare_cpu_ms": statistics.median(cell[1] for cell in cells),
                "cpu_over_bare_ms": statistics.median(cell[0] - cell[1] for cell in cells),
                "p50_ms": statistics.median(cell[2] for cell in cells),
                "bare_p50_ms": statistics.median(cell[3] for cell in cells),
                "p50_over_bare_ms": statistics.median(cell[2] - cell[3] for cell in cells),
                "start_s": server.start_seconds,
                "memory_mib": after.memory / 2**20,
                "processes": after.processes,
                "rounds": cells,
            }
        line = {key: round(value, 3) for key, value in rows[name].items() if key != "rounds"}
        print(name, json.dumps(line), flush=True)
    return rows


async def warmed(aim: Target, num: int = 40) -> None:
    """Ask until the server answers, then some more."""
    client = Client(aim)
    try:
        for _ in range(600):
            if 200 <= await client.ask(0, 30.0) < 300:
                break
            await asyncio.sleep(0.1)
        for number in range(num):
            status = await client.ask(number, 30.0)
            assert status == 200, f"{aim.url} answers {status}"
    finally:
        await client.close()


async def closed(aim: Target, clients: int, seconds: float) -> Any:
    """Play a closed loop."""
    client = Client(aim)
    try:
        await client.warm(clients)
        return await closed_loop(client.ask, clients, seconds)
    finally:
        await client.close()


async def opened(aim: Target, times: Sequence[float], seconds: float) -> Any:
    """Play an open loop."""
    client = Client(aim)
    try:
        await client.warm(8)
        return await open_loop(client.ask, times, seconds, patience=60.0)
    finally:
        await client.close()


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
            for name, aim in aims.items():
                steps[name].append(summarize(asyncio.run(opened(aim, times, length)), GOAL, share))
                told(name, steps[name][-1])
            steps["simulator"].append(simulated(times, length, profile, most, share))
            told("simulator", steps["simulator"][-1])
    return {"capacities": capacities, "steps": steps, "profile": vars(profile)}


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


def shape(bundle: Path) -> Profile:
    """Return how long batches take, from bytes to detections, without a server."""
    found = pipeline(bundle)
    tasks = [Task(picture, found._detector.thresholds) for picture in pictures()] * 2
    rows = []
    for size in (1, 2, 4, 8):
        walls = []
        for _ in range(12):
            start = time.perf_counter()
            found.run(tasks[:size])
            walls.append(time.perf_counter() - start)
        rows.append((size, statistics.median(walls)))
    return Profile.measured(rows)


def simulated(times: Sequence[float], seconds: float, profile: Profile, rate: float, share: float) -> Step:
    """Return what the simulator makes of the same arrivals, with a worker as fast as the server was."""
    policy = Scheduler(SchedulerConfig(slo=GOAL, max_batch=8))
    size = 8 if profile.base > 0 else 1
    scale = (size / rate) / (profile.base + profile.per_item * size)
    known = Profile(profile.base * scale, profile.per_item * scale, profile.deviation)
    policy.register("m", ["w"], known)
    result = Simulator(policy, linear(known.base, known.per_item)).run(items(times))
    latencies = sorted(event.ended - event.arrived for event in result.events if event.outcome.name == "SERVED")
    good = sum(latency <= GOAL for latency in latencies)
    return Step(
        share, len(times) / seconds, len(times) / seconds, len(latencies) / seconds, good / seconds, good / len(times),
        1e3 * percentile(latencies, 0.5), 1e3 * percentile(latencies, 0.99), 1e3 * percentile(latencies, 0.999),
        {"200": len(latencies), "429": len(times) - len(latencies)}, len(times), seconds, 0.0, 0.0, 0.0, False,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ faults


def faults(bundle: Path, rate: float, folder: Path) -> dict[str, Any]:
    """Return what becomes of requests while versions are swapped, a worker is killed, and the server ends."""
    found = {"swap": swap(bundle, rate), "kill": kill(bundle, rate), "drain": drain(bundle, rate, folder)}
    print(json.dumps(found, indent=1), flush=True)
    return found


def swap(bundle: Path, rate: float, flips: int = 20) -> dict[str, Any]:
    """Flip the champion between two versions, load a third one and unload the first, all under load."""
    token, port = "a-token-of-the-benchmark", free_port()
    os.environ["EYAS_ADMIN_TOKEN"] = token
    options = [f"m={bundle}", f"m={bundle}", *OURS, "--slo", "2000", "--admin-port", str(port)]

    def admin(method: str, path: str, content: dict[str, Any]) -> int:
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}{path}",
            json.dumps(content).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(asked) as answer:
            return int(answer.status)

    async def play(aim: Target) -> tuple[Any, list[int]]:
        seconds = 0.5 * flips + 1
        load = asyncio.ensure_future(opened(aim, arrivals("poisson", rate, seconds), seconds))
        statuses = []
        for number in range(flips):
            await asyncio.sleep(0.5)
            version = str(1 + number % 2)
            path = "/v1/models/m/aliases/champion"
            statuses.append(await asyncio.to_thread(admin, "PUT", path, {"version": version}))
        return await load, statuses

    with LocalServer(options) as server:
        aim = Target(server.url + PATH, pictures())
        asyncio.run(warmed(aim))
        played, statuses = asyncio.run(play(aim))
    step = summarize(played, 2.0)
    return {"flips": statuses.count(200), "requests": step.requests, "codes": dict(step.codes), "p99_ms": step.p99}


def kill(bundle: Path, rate: float, kills: int = 3) -> dict[str, Any]:
    """Kill the worker with SIGKILL, again and again, under load."""

    async def play(aim: Target, pid: int) -> Any:
        load = asyncio.ensure_future(opened(aim, arrivals("poisson", rate, 4.0 * kills), 4.0 * kills))
        for _ in range(kills):
            await asyncio.sleep(2.0)
            os.kill(family(pid)[-1], signal.SIGKILL)
            await asyncio.sleep(2.0)
        return await load

    with LocalServer([str(bundle), *OURS, "--slo", "2000"]) as server:
        aim = Target(server.url + PATH, pictures())
        asyncio.run(warmed(aim))
        step = summarize(asyncio.run(play(aim, server.pid)), 2.0)
    return {"kills": kills, "requests": step.requests, "codes": dict(step.codes), "p99_ms": step.p99}


def drain(bundle: Path, rate: float, folder: Path, times: int = 3) -> dict[str, Any]:
    """End the server with SIGTERM under load; what its log says it answered must have arrived."""
    lost, told_codes, answered = 0, Counter[str](), 0
    for number in range(times):
        log = folder / f"access-{number}.jsonl"

        async def play(aim: Target, pid: int) -> Any:
            load = asyncio.ensure_future(opened(aim, arrivals("poisson", rate, 2.0), 2.0))
            await asyncio.sleep(1.5)
            os.kill(pid, signal.SIGTERM)
            return await load

        with LocalServer([str(bundle), *OURS, "--slo", "2000", "--access-log", str(log)]) as server:
            aim = Target(server.url + PATH, pictures())
            asyncio.run(warmed(aim, 0))
            played = asyncio.run(play(aim, server.pid))
        here = sum(sample.served for sample in played.samples)
        lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
        there = Counter(line["status"] for line in lines if line["path"] == PATH)
        lost += there[200] - 1 - here + there[0]
        answered += here
        told_codes += Counter(named(sample.status) for sample in played.samples)
        log.unlink()
    return {"drains": times, "answered": answered, "lost": lost, "codes": dict(told_codes)}


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
        rows["nearly no network"] = overhead(tiny, {"eyas": ""}, args.rounds, args.seconds)
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
