"""`eyas serve --on ray` as a function: bundles to an application of Ray Serve, and its end in order."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any

from eyas.cluster import tokens
from eyas.cluster.application import Application
from eyas.cluster.routing_table import NAMESPACE, read_entry
from eyas.cluster.settings import ClusterSettings
from eyas.errors import UserError, missing_extra
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.launch import Registered, Serving, follower_of, greeting, named
from eyas.serve.server_settings import ServerSettings


def serve_on_ray(
    bundles: Sequence[str],
    settings: ServerSettings,
    engine: EngineSettings,
    cluster: ClusterSettings,
    *,
    registered: Registered | None = None,
    say: Callable[[str], None] = print,
    seconds: float | None = None,
) -> None:
    """Serve the bundles on a Ray cluster until SIGTERM or SIGINT.

    Joins the cluster that the environment names (`RAY_ADDRESS`), or starts Ray on this machine.

    Args:
        bundles: folders of bundles, or NAME=FOLDER; a name that comes again is the next version.
        settings: how each node's server is started.
        engine: how a replica serves bundles.
        cluster: how many replicas there are, and how they are asked.
        registered: what of a registry is served besides; this process follows it.
        say: prints a line.
        seconds: after which it ends by itself; None for never.

    Raises:
        UserError: a bundle can't be served, Ray is missing, or its cluster lets anybody in.
    """
    wanted = named(bundles, more=registered is not None)
    read = [read_entry(each.key, each.bundle) for each in wanted]
    connect()
    stop = threading.Event()
    former = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        application = Application.start(read, settings, engine, cluster)

        def tell(lines: Sequence[str]) -> None:
            for line in introduction(application, settings, cluster, lines):
                say(line)

        try:
            asyncio.run(_run(application, wanted, registered, tell, stop, seconds))
        finally:
            application.stop()
        say("Stopped: all accepted requests have been answered.")
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        disconnect()


async def _run(
    application: Application,
    wanted: Sequence[Serving],
    registered: Registered | None,
    tell: Callable[[Sequence[str]], None],
    stop: threading.Event,
    seconds: float | None,
) -> None:
    """Say what is served, and follow the registry, if there is one, until it is time to end."""
    lines = [each.line for each in wanted]
    following: asyncio.Task[None] | None = None
    if registered is not None:
        follower = await follower_of(application.control(), registered, wanted)
        lines += await follower.start()
        following = asyncio.ensure_future(follower.run())
    tell(lines)
    await asyncio.to_thread(stop.wait, seconds)
    if following is not None:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def connect() -> None:
    """Join the cluster of `RAY_ADDRESS`, or start Ray here, without a dashboard; tokens are asked for.

    Raises:
        UserError: Ray is missing, the cluster can't be joined, or it lets anybody in.
    """
    tokens.ask_for_tokens()
    address = os.environ.get("RAY_ADDRESS")
    _knock(address or "")
    try:
        import ray
        import ray.serve
    except ModuleNotFoundError as error:
        raise missing_extra(error.name or "ray", "cluster") from None

    options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    if not ray.is_initialized():
        try:
            ray.init(namespace=NAMESPACE, logging_level="warning", **options)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise UserError(
                f"The Ray cluster can't be joined: {error}", where=address or "", fix="check RAY_ADDRESS and its token"
            ) from error
    tokens.check_tokens(ray.get_runtime_context().gcs_address)


def _knock(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if "/" in address or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10.0).close()
    except OSError as error:
        raise UserError(
            f"No Ray cluster can be reached: {error.strerror or error}.",
            where=f"RAY_ADDRESS={address}",
            fix="ray start --head on one machine, or unset RAY_ADDRESS to start Ray here",
        ) from None


def disconnect() -> None:
    """Leave the cluster; one that was started by `connect` ends."""
    import ray

    ray.shutdown()


def introduction(
    application: Application, settings: ServerSettings, cluster: ClusterSettings, served: Sequence[str]
) -> list[str]:
    """Return what a person wants to know of an application that has just started."""
    import ray

    nodes = sum(node["Alive"] for node in ray.nodes())
    where = "on each node" if not settings.loopback else "on the head node, for that machine only"
    return [
        f"Ray cluster {ray.get_runtime_context().gcs_address}, {nodes} node(s); "
        f"{cluster.min_replicas} to {cluster.max_replicas} replicas, the server {where}",
        *greeting(settings, application.addresses, served),
    ]
