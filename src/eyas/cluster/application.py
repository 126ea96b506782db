"""The application on a Ray cluster: ingresses in front of replicas, and the shelf that both fetch from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eyas.artifacts.packing import Files
from eyas.cluster.control import Control
from eyas.cluster.routing_table import NAMESPACE, Entry, Table
from eyas.cluster.settings import ClusterSettings
from eyas.errors import UserError
from eyas.serve.engine.model_manager import GOAL_SECONDS, STOP_SECONDS
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.server import Addresses
from eyas.serve.server_settings import ServerSettings

APPLICATION = "eyas"
HEAD = {"node:__internal_head__": 0.001}  # Ray's own name for the head node
# What a replica is asked for its numbers, and how many seconds of them count.
INTERVAL_SECONDS, WINDOW_SECONDS = 0.5, 2.0
QUIET = {"log_level": "WARNING", "enable_access_log": False}
CONSTRUCTIONS = 3  # how often a replica, or an ingress, that can't be started is tried


class Application:
    """The application on the cluster, as whoever started it has it.

    Args:
        ingresses: handle of the servers.
        shelf: the actor with the bundles' bytes.
        table: what is served.
        settings: how the servers were started.
        patience: seconds in which a replica has a version ready.

    Attributes:
        addresses: where one of the servers listens.
    """

    def __init__(self, ingresses: Any, shelf: Any, table: Table, settings: ServerSettings, patience: float) -> None:
        self._ingresses, self._shelf, self._table = ingresses, shelf, table
        self._settings, self._patience = settings, patience
        found = ingresses.addresses.remote().result(timeout_s=60.0)
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

        from eyas.cluster.detector import Shelf

        table = Table(entries=tuple(entry for entry, _ in read))
        name = f"shelf-{os.urandom(8).hex()}"
        shelf = (
            ray.remote(Shelf)
            .options(name=name, namespace=NAMESPACE, lifetime="detached", num_cpus=0, resources=HEAD)
            .remote(table, {entry.digest: dict(files) for entry, files in read})
        )
        try:
            serve.start(proxy_location="Disabled", logging_config=QUIET)
            application = _application(name, settings, engine, cluster)
            ingresses = serve.run(application, name=APPLICATION, route_prefix=None, logging_config=QUIET)
        except RuntimeError as error:
            serve.delete(APPLICATION)
            ray.kill(shelf)
            raise UserError(f"Ray Serve could not start the application: {error}") from error
        return cls(ingresses, shelf, table, settings, engine.start_seconds + engine.batch_seconds)

    def control(self) -> Control:
        """Return what changes what is served; to be called once, in the event loop that it is used in."""
        from eyas.cluster.cluster_client import RayStage

        return Control(RayStage(self._ingresses, self._shelf, self._patience), self._table)

    def retried(self) -> int:
        """Return how often a request was given to another replica."""
        return int(sum(self._ingresses.broadcast("retried").results(timeout_s=60.0)))

    def stop(self) -> None:
        """Close the ingresses, which answer what they have accepted, then end the replicas."""
        import ray
        from ray import serve

        limit = self._settings.pre_stop + self._settings.grace + 10.0
        self._ingresses.broadcast("close").results(timeout_s=limit, return_exceptions=True)
        serve.delete(APPLICATION)
        ray.kill(self._shelf)


def _application(shelf: str, settings: ServerSettings, engine: EngineSettings, cluster: ClusterSettings) -> Any:
    """Return the application: ingresses in front of replicas."""
    import ray
    from ray import serve

    from eyas.cluster.detector import DetectorDeployment
    from eyas.cluster.ingress import Ingress

    workers = engine.workers or 1
    engine = replace(engine, workers=workers, threads=engine.threads or max(1, round(cluster.cpus) // workers))
    detector = serve.deployment(
        DetectorDeployment,
        name="detector",
        user_config={},
        ray_actor_options={"num_cpus": cluster.cpus, "num_gpus": cluster.gpus},
        # One line only, where the scheduler can see it: it refuses what would be too late, Ray Serve would let it wait.
        max_ongoing_requests=engine.max_waiting,
        autoscaling_config=_autoscaling(engine, cluster),
        graceful_shutdown_timeout_s=engine.batch_seconds + STOP_SECONDS,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        max_constructor_retry_count=CONSTRUCTIONS,
    ).bind(shelf, engine, cluster.models)
    everywhere = not settings.loopback
    nodes = sum(node["Alive"] for node in ray.nodes()) if everywhere else 1
    return serve.deployment(
        Ingress,
        name="ingress",
        user_config={},
        num_replicas=nodes,
        **({"max_replicas_per_node": 1} if everywhere else {}),
        ray_actor_options={"num_cpus": 0} if everywhere else {"num_cpus": 0, "resources": HEAD},
        graceful_shutdown_timeout_s=settings.pre_stop + settings.grace + 5.0,
        health_check_period_s=2.0,
        health_check_timeout_s=10.0,
        max_constructor_retry_count=CONSTRUCTIONS,
    ).bind(detector, shelf, _anywhere(settings), cluster)


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
        "policy": {"policy_function": "eyas.cluster.scaling:QueueDelayPolicy", "policy_kwargs": bounds},
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
