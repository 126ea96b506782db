"""What becomes of requests while versions are swapped, a worker is killed, and the server ends; see `serving.py`."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.serving_drive import OURS, PATH, free_port, images, opened, warmed

from eyas.benchmark.load.arrivals import arrivals
from eyas.benchmark.load.http import Target
from eyas.benchmark.load.local import LocalServer
from eyas.benchmark.load.report import named, summarize
from eyas.machine.processes import family


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
        aim = Target(server.url + PATH, images())
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
            family(pid)[-1].kill()
            await asyncio.sleep(2.0)
        return await load

    with LocalServer([str(bundle), *OURS, "--slo", "2000"]) as server:
        aim = Target(server.url + PATH, images())
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
            aim = Target(server.url + PATH, images())
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
