"""The parts of a cluster on Ray, told of a change by whoever controls it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from eyas.artifacts.packing import Files
from eyas.cluster.engine import Refusal
from eyas.cluster.routing_table import Entry, Table
from eyas.serve.errors import ServeError

SHOW_SECONDS = 60.0  # most that ingresses take to answer what was under way to versions that are not served any more


class RayStage:
    """A `ControlStage`: ingresses and replicas that Ray Serve runs, and the shelf.

    The replicas are told through an ingress. A handle of theirs would tell Ray Serve's controller how many requests
    come from here, for as long as this process lives: also when it has left the cluster, which starts another one then.

    Args:
        ingresses: handle of the servers.
        shelf: the actor.
        patience: seconds in which a replica has a version ready.
    """

    def __init__(self, ingresses: Any, shelf: Any, patience: float) -> None:
        self._ingresses, self._shelf, self._patience = ingresses, shelf, patience

    async def put(self, entry: Entry, files: Files) -> None:
        """Have the shelf keep a bundle's files; see `ControlStage.put`."""
        await _answer(self._shelf.put.remote(entry.digest, dict(files)))

    async def warm(self, entry: Entry) -> Sequence[Refusal | None]:
        """Have every replica hold a version; see `ControlStage.warm`. One that is lost meanwhile has no say."""
        told: list[Refusal | None] = await _answer(self._ingresses.warm.remote(entry, self._patience))
        if not told:
            raise ServeError("unavailable", f"No replica could load {entry.id}.", retry_after=1.0)
        return told

    async def show(self, table: Table) -> None:
        """Have the shelf keep a table and the ingresses route by it (`ControlStage.show`); a lost one looks itself."""
        await _answer(self._shelf.show.remote(table))
        told = self._ingresses.broadcast("show", table)
        await _answer(told.results_async(timeout_s=SHOW_SECONDS, return_exceptions=True))

    async def drop(self, entry: Entry) -> None:
        """Have the shelf forget a bundle's files; see `ControlStage.drop`."""
        await _answer(self._shelf.drop.remote(entry.digest))


async def _answer(call: Awaitable[Any]) -> Any:
    """Return what a call answers.

    Raises:
        ServeError: it can't be made, or is not answered in time.
    """
    try:
        return await call
    except (RayError, RayServeException, TimeoutError) as error:
        raise ServeError("unavailable", f"The cluster does not respond: {error}", retry_after=1.0) from error
