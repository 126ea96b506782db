"""Servers and clients that the benchmarks of serving have in common."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import simplejpeg
from benchmarks.serving_peers import body

from eyas.benchmark.images import made_up_image
from eyas.benchmark.load.generator import closed_loop, open_loop
from eyas.benchmark.load.http import Client, Target
from eyas.benchmark.load.local import LocalServer

HERE = Path(__file__).parent
OURS = ["--workers", "1", "--threads", "1"]
PATH = "/v1/detect"


def images(num: int = 4) -> list[bytes]:
    """Return made-up images of 640 x 480 pixels and 49 kB."""
    made = (made_up_image(seed) for seed in range(num))
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
    command = (
        "sh",
        "-c",
        f'PYTHONPATH="{HERE.parent / "src"}" exec "{python}" "{script}" {name} "{bundle}" {free_port()} 2>/dev/null',
    )
    return LocalServer([], command, ready=r"REST +(http://\S+)")


def target(name: str, server: LocalServer) -> Target:
    """Return what the server is sent."""
    url = server.url + (PATH if name in ("eyas", "greedy") else "")
    bodies = [body(image, name) for image in images()]
    return Target(url, [each for each, _ in bodies], bodies[0][1])


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
