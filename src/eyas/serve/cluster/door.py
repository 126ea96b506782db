"""The front of a cluster on one node: the very server of one machine, with the replicas as its engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.cluster.engine import Ask, ClusterEngine, Refusal, ReplicaLostError
from eyas.serve.cluster.settings import ClusterSettings
from eyas.serve.server import Addresses, Server
from eyas.serve.server_settings import ServerSettings


def asking(detector: Any) -> Ask:
    """Return what gives requests to the replicas of a deployment.

    Args:
        detector: the deployment's handle.
    """
    methods: dict[str, Any] = {}  # of each model; Ray Serve prefers replicas that hold it

    async def ask(request: Request, model: str) -> Answer | Refusal:
        method = methods.get(model)
        if method is None:
            methods[model] = method = detector.options(method_name="detect", multiplexed_model_id=model)
        response = method.remote(request)
        try:
            found = await response
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayTaskError:
            raise  # the replica lives; it is the request that it failed on
        except (RayError, RayServeException) as error:
            raise ReplicaLostError(type(error).__name__) from error
        assert isinstance(found, Answer | Refusal)
        return found

    return ask


class Door:
    """What Ray Serve runs on each node that takes requests.

    Ray Serve's own proxies are not used: theirs of gRPC listens on every interface whatever was asked for, and theirs
    of HTTP knows no limits on headers and time.

    Args:
        detector: handle of the replicas.
        settings: how the server is started; the files that it names lie on the node.
        cluster: how replicas are asked.
        statuses: the versions that are served.
    """

    def __init__(
        self, detector: Any, settings: ServerSettings, cluster: ClusterSettings, statuses: Sequence[ModelStatus]
    ) -> None:
        self._detector, self._settings, self._cluster, self._statuses = detector, settings, cluster, statuses
        self._server: Server | None = None
        self._engine: ClusterEngine | None = None

    async def reconfigure(self, _config: Any) -> None:
        """Listen as soon as there is a replica; Ray Serve calls it after the constructor, and counts on it then."""
        if self._server is not None:
            return
        await self._detector.held.remote()
        self._engine = ClusterEngine(asking(self._detector), self._statuses, self._cluster)
        server = Server(self._engine, self._settings)
        await server.start()
        self._server = server

    async def addresses(self) -> Addresses:
        """Return where it listens."""
        assert self._server is not None
        return self._server.addresses

    async def retried(self) -> int:
        """Return how often a request was given to another replica."""
        assert self._engine is not None
        return self._engine.retried

    async def close(self) -> None:
        """Accept no more, answer what was accepted, and end."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop()

    async def __del__(self) -> None:
        """Close; Ray Serve calls it when the node's door is to end."""
        await self.close()
