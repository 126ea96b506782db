"""`eyas serve --on ray` as a function: bundles to an application of Ray Serve, and its end in order."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyas.errors import UserError, missing_extra
from eyas.serve.cluster import tokens
from eyas.serve.cluster.catalog import Entry, Files, read_entry, statuses
from eyas.serve.cluster.settings import ClusterSettings
from eyas.serve.engine_settings import EngineSettings
from eyas.serve.keeper import GOAL_SECONDS
from eyas.serve.launch import Serving, greeting, named
from eyas.serve.server import Addresses
from eyas.serve.server_settings import ServerSettings

APPLICATION, NAMESPACE = "eyas", "eyas"
HEAD = {"node:__internal_head__": 0.001}  # Ray's own name for the head node
# What a replica is asked for its numbers, and how many seconds of them count.
INTERVAL_SECONDS, WINDOW_SECONDS = 0.5, 2.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}
CONSTRUCTIONS = 3  # how often a replica, or a door, that can't be started is tried


def serve_on_ray(
    bundles: Sequence[str],
    settings: ServerSettings,
    engine: EngineSettings,
    cluster: ClusterSettings,
    *,
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
        say: prints a line.
        seconds: after which it ends by itself; None for never.

    Raises:
        UserError: a bundle can't be served, Ray is missing, or its cluster lets anybody in.
    """
    wanted = named(bundles)
    read = [read_entry(each.key, each.bundle) for each in wanted]
    connect()
    stop = threading.Event()
    former = {each: signal.signal(each, lambda *_: stop.set()) for each in (signal.SIGTERM, signal.SIGINT)}
    application = None
    try:
        application = Application.start(read, settings, engine, cluster)
        for line in introduction(application, settings, cluster, wanted):
            say(line)
        stop.wait(seconds)
        application.stop()
        say("Ended: everything that was accepted has been answered.")
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        disconnect()


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
                f"The Ray cluster can't be joined: {error}", where=address or "", fix="see RAY_ADDRESS and its token"
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


class Application:
    """The application on the cluster, as whoever started it has it.

    Args:
        doors: handle of the servers.
        shelf: the actor with the bundles' bytes.
        settings: how the servers were started.

    Attributes:
        addresses: where one of the servers listens.
    """

    def __init__(self, doors: Any, shelf: Any, settings: ServerSettings) -> None:
        self._doors, self._shelf, self._settings = doors, shelf, settings
        found = doors.addresses.remote().result(timeout_s=60.0)
        assert isinstance(found, Addresses)
        self.addresses = found

    @classmethod
    def start(
        cls,
        read: Sequence[tuple[Entry, Files]],
        settings: ServerSettings,
        engine: EngineSettings,
        cluster: ClusterSettings,
    ) -> Application:
        """Deploy, and return when a server listens and a replica is warm.

        Args:
            read: the versions to serve, with their bundles' files.
            settings: how each node's server is started.
            engine: how a replica serves bundles.
            cluster: how many replicas there are, and how they are asked.

        Raises:
            UserError: Ray Serve could not start it.
        """
        import ray
        from ray import serve

        from eyas.serve.cluster.detector import Shelf

        entries = [entry for entry, _ in read]
        name = f"shelf-{os.urandom(8).hex()}"
        shelf = (
            ray.remote(Shelf)
            .options(name=name, namespace=NAMESPACE, lifetime="detached", num_cpus=0, resources=HEAD)
            .remote({entry.digest: dict(files) for entry, files in read})
        )
        try:
            serve.start(proxy_location="Disabled", logging_config=QUIET)
            application = _application(entries, name, settings, engine, cluster)
            doors = serve.run(application, name=APPLICATION, route_prefix=None, logging_config=QUIET)
        except RuntimeError as error:
            serve.delete(APPLICATION)
            ray.kill(shelf)
            raise UserError(f"Ray Serve could not start the application: {error}") from error
        return cls(doors, shelf, settings)

    def retried(self) -> int:
        """Return how often a request was given to another replica."""
        return int(sum(self._doors.broadcast("retried").results(timeout_s=60.0)))

    def stop(self) -> None:
        """Close the doors, which answer what they have accepted, then end the replicas."""
        import ray
        from ray import serve

        limit = self._settings.pre_stop + self._settings.grace + 10.0
        self._doors.broadcast("close").results(timeout_s=limit, return_exceptions=True)
        serve.delete(APPLICATION)
        ray.kill(self._shelf)


def _application(
    entries: Sequence[Entry], shelf: str, settings: ServerSettings, engine: EngineSettings, cluster: ClusterSettings
) -> Any:
    """Return the application: doors in front of replicas."""
    import ray
    from ray import serve

    from eyas.serve.cluster.detector import Detector
    from eyas.serve.cluster.door import Door

    workers = engine.workers or 1
    engine = replace(engine, workers=workers, threads=engine.threads or max(1, round(cluster.cpus) // workers))
    detector = serve.deployment(
        Detector,
        name="detector",
        user_config={},
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        # One line only, where the scheduler can see it: it refuses what would be too late, Ray Serve would let it wait.
        max_ongoing_requests=engine.max_waiting,
        autoscaling_config=_autoscaling(engine, cluster),
        graceful_shutdown_timeout_s=engine.batch_seconds + engine.stop_seconds,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        max_constructor_retry_count=CONSTRUCTIONS,
    ).bind(shelf, entries, engine, cluster.models)
    everywhere = not settings.loopback
    nodes = sum(node["Alive"] for node in ray.nodes()) if everywhere else 1
    return serve.deployment(
        Door,
        name="door",
        user_config={},
        num_replicas=nodes,
        **({"max_replicas_per_node": 1} if everywhere else {}),
        ray_actor_options={"num_cpus": 0} if everywhere else {"num_cpus": 0, "resources": HEAD},
        graceful_shutdown_timeout_s=settings.pre_stop + settings.grace + 5.0,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        max_constructor_retry_count=CONSTRUCTIONS,
    ).bind(detector, _anywhere(settings), cluster, statuses(entries))


def _autoscaling(engine: EngineSettings, cluster: ClusterSettings) -> dict[str, Any]:
    """Return the scaling of the replicas: our policy, asked with fresh numbers."""
    bounds = {
        "minimum": cluster.min_replicas,
        "maximum": cluster.max_replicas,
        "queue_delay": (engine.goal or GOAL_SECONDS) / 2,
        "up_after": cluster.up_after,
        "down_after": cluster.down_after,
    }
    return {
        "min_replicas": cluster.min_replicas,
        "max_replicas": cluster.max_replicas,
        "metrics_interval_s": INTERVAL_SECONDS,
        "look_back_period_s": WINDOW_SECONDS,
        "upscale_delay_s": 0.0,  # the policy has its own delays; Ray Serve's would come on top
        "downscale_delay_s": 0.0,
        "policy": {"policy_function": "eyas.serve.cluster.scaling:QueueDelayPolicy", "policy_kwargs": bounds},
    }


def _anywhere(settings: ServerSettings) -> ServerSettings:
    """Return the settings with paths that hold in whatever folder a node's server runs."""
    tls, events, log = settings.tls, settings.events, settings.access_log
    if tls is not None:
        authority = None if tls.client_authority is None else tls.client_authority.resolve()
        tls = replace(tls, certificate=tls.certificate.resolve(), key=tls.key.resolve(), client_authority=authority)
    if events is not None:
        events = replace(events, folder=events.folder.resolve())
    if log not in (None, "-"):
        log = str(Path(str(log)).resolve())
    return replace(settings, tls=tls, events=events, access_log=log)


def introduction(
    application: Application, settings: ServerSettings, cluster: ClusterSettings, wanted: Sequence[Serving]
) -> list[str]:
    """Return what a person wants to know of an application that has just started."""
    import ray

    nodes = sum(node["Alive"] for node in ray.nodes())
    where = "on each node" if not settings.loopback else "on the head node, for that machine only"
    return [
        f"Ray cluster {ray.get_runtime_context().gcs_address}, {nodes} node(s); "
        f"{cluster.min_replicas} to {cluster.max_replicas} replicas, the server {where}",
        *greeting(settings, application.addresses, [each.line for each in wanted]),
    ]
