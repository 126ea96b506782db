"""The front of a cluster on one node: the very server of one machine, with the replicas as its engine."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException

from eyas.cluster.engine import Ask, ClusterEngine, NotTakenError, Refusal, ReplicaLostError
from eyas.cluster.routing_table import NAMESPACE, Entry, Table
from eyas.cluster.settings import ClusterSettings
from eyas.serve.api import Answer, Request
from eyas.serve.server import Addresses, Server
from eyas.serve.server_settings import ServerSettings

TAKEN = 0.8  # of the patience with a replica is what one may take to say that it has a request
BURST_SECONDS = 0.25  # the losses of one replica come together


def asking(detector: Any, patience: float) -> Ask:
    """Return what gives requests to the replicas of a deployment.

    A replica says within milliseconds that it has taken a request. Where one has just been lost, Ray tells so of those
    that it had taken, and goes on trying to hand over the others, for longer than anybody wants to wait. So the first
    loss is a reason to take back whatever nobody has taken yet, and to ask again: by then Ray asks another one. Where
    there is no loss to learn from, as while there is no replica, patience ends it.

    Args:
        detector: the deployment's handle.
        patience: seconds in which a replica has to take a request.
    """
    methods: dict[str, Any] = {}  # of each model; Ray Serve prefers replicas that hold it
    untaken: set[asyncio.Timeout] = set()
    sweep: list[asyncio.TimerHandle] = []

    def take_back() -> None:
        sweep.clear()
        for limit in untaken:
            limit.reschedule(0.0)  # that is now
        untaken.clear()

    async def taken(response: Any) -> None:
        """Wait until a replica has taken the request."""
        async with asyncio.timeout(patience) as limit:
            untaken.add(limit)
            try:
                await response._to_object_ref()  # the way that Ray documents
            finally:
                untaken.discard(limit)

    async def ask(request: Request, model: str) -> Answer | Refusal:
        method = methods.get(model)
        if method is None:
            methods[model] = method = detector.options(
                method_name="detect", multiplexed_model_id=model, _by_reference=True
            )
        response = method.remote(request)
        lost: type[Exception] = NotTakenError
        try:
            await taken(response)
            lost = ReplicaLostError
            found = await response
        except TimeoutError:
            response.cancel()
            raise NotTakenError("no replica accepted the request") from None
        except asyncio.CancelledError:
            response.cancel()
            raise
        except RayTaskError:
            raise  # the replica lives; it is the request that it failed on
        except (RayError, RayServeException) as error:
            if lost is ReplicaLostError and not sweep:
                sweep.append(asyncio.get_running_loop().call_later(BURST_SECONDS, take_back))
            raise lost(type(error).__name__) from error
        assert isinstance(found, Answer | Refusal)
        return found

    return ask


class Ingress:
    """What Ray Serve runs on each node that takes requests.

    Ray Serve's own proxies are not used: theirs of gRPC listens on every interface whatever was asked for, and theirs
    of HTTP knows no limits on headers and time.

    Args:
        detector: handle of the replicas.
        shelf: name of the actor that has the table.
        settings: how the server is started; the files that it names lie on the node.
        cluster: how replicas are asked.
    """

    def __init__(self, detector: Any, shelf: str, settings: ServerSettings, cluster: ClusterSettings) -> None:
        self._detector, self._shelf, self._settings, self._cluster = detector, shelf, settings, cluster
        self._server: Server | None = None
        self._engine: ClusterEngine | None = None
        self._looks: set[asyncio.Future[None]] = set()

    async def reconfigure(self, _config: Any) -> None:
        """Listen as soon as there is a replica; Ray Serve calls it after the constructor, and counts on it then."""
        if self._server is not None:
            return
        await self._detector.held.remote()
        self._engine = ClusterEngine(
            asking(self._detector, TAKEN * self._cluster.patience), await self._table(), self._cluster
        )
        server = Server(self._engine, self._settings)
        await server.start()
        self._server = server

    async def _table(self) -> Table:
        table = await ray.get_actor(self._shelf, namespace=NAMESPACE).table.remote()
        assert isinstance(table, Table)
        return table

    async def warm(self, entry: Entry, seconds: float) -> list[Refusal | None]:
        """Have every replica hold a version, and return what those say that live; see `DetectorDeployment.warm`."""
        told = self._detector.broadcast("warm", entry)
        found = await told.results_async(timeout_s=seconds, return_exceptions=True)
        return [each for each in found if each is None or isinstance(each, Refusal)]

    async def show(self, table: Table) -> None:
        """Route by a table from now on; see `ClusterEngine.show`."""
        assert self._engine is not None
        await self._engine.show(table)

    async def check_health(self) -> None:
        """Look whether there is a table that this ingress was not shown, as one that starts just then is not."""
        if self._engine is not None:
            with contextlib.suppress(RayError, ValueError):  # the shelf is gone: what is known is served
                self._looks.add(look := asyncio.ensure_future(self._engine.show(await self._table())))
                look.add_done_callback(self._looks.discard)

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
        """Close; Ray Serve calls it when the node's ingress is to end."""
        await self.close()
