"""The engine of a cluster's front: it routes requests, and gives them to another replica when one is lost."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from eyas.artifacts.model_key import ModelKey
from eyas.cluster.routing_table import Table, model_id
from eyas.cluster.settings import ClusterSettings
from eyas.cluster.stream_order import StreamTurns
from eyas.serve.api import Answer, ModelStatus, Request
from eyas.serve.engine.routing import resolve
from eyas.serve.errors import Kind, ServeError
from eyas.serve.scheduler.scheduler import BATCH_DEADLINE

LOG = logging.getLogger("eyas.serve")
BUSY_SECONDS = 1.0  # after a refusal for load the server is not ready for so long
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0  # seconds before a request is given to another replica
LOOK_SECONDS = 0.05  # between two looks at whether the requests to a version have ended
LATE = 0.8  # of the patience is what a request that lost its replica may wait in the next one's line


@dataclass(frozen=True)
class Refusal:
    """What a replica answers in place of detections; a `ServeError` that may cross to another process."""

    kind: Kind
    message: str
    retry_after: float | None = None

    def error(self) -> ServeError:
        """Return it as what the protocols know."""
        return ServeError(self.kind, self.message, retry_after=self.retry_after)


class ReplicaLostError(Exception):
    """The replica that had the request is gone."""


class NotTakenError(Exception):
    """No replica has taken the request: there is none, or the one that was asked is silent."""


# (request, id of its model) -> what a replica answers; raises ReplicaLostError and NotTakenError.
Ask = Callable[[Request, str], Awaitable[Answer | Refusal]]


def _goes_on(request: Request, refusal: Refusal, accepted: bool) -> bool:
    """Return whether a request that a replica refused is to be given to another one.

    Args:
        request: as the client made it.
        refusal: of the replica.
        accepted: whether a replica had accepted it before.
    """
    if refusal.kind == "deadline":  # it was accepted, and its turn did not come in time
        return accepted or (request.timeout is None and request.lane != "stream")
    return refusal.kind == "unavailable" or (refusal.kind == "overloaded" and accepted)


class ClusterEngine:
    """Serves what replicas elsewhere hold; see `eyas.serve.api.Engine`. To be used in one event loop.

    Detecting changes nothing, so a request may be run again: that is what makes the loss of a replica invisible.

    Args:
        ask: gives a request to some replica and returns what it answers.
        table: the versions that the replicas can hold.
        settings: how often, and for how long, replicas are asked.
    """

    def __init__(self, ask: Ask, table: Table, settings: ClusterSettings) -> None:
        self.settings = settings
        self.retried = 0  # how often a request was given to another replica
        self.passed_over = 0  # how often a request was taken back, because no replica had taken it
        self._ask = ask
        self.table = table
        self._statuses = table.statuses()
        self._under_way: Counter[str] = Counter()  # id of a version -> requests that were routed to it
        self._turns = StreamTurns()
        self._refused = -math.inf
        self._accepting = True
        self._empty = asyncio.Event()
        self._empty.set()

    async def detect(self, request: Request) -> Answer:
        """Return what was found; see `Engine.detect`."""
        if not self._accepting:
            raise ServeError("unavailable", "The server is shutting down.", retry_after=1.0)
        key = resolve(request.model, request.version, self._statuses)
        request = replace(request, model=key.name, version=key.version)
        self._empty.clear()
        model = model_id(key)
        self._under_way[model] += 1
        try:
            in_turn = request.stream if request.lane == "stream" and len(request.images) == 1 else ""
            return await self._in_time(request, model, in_turn)
        except ServeError as error:
            if error.kind in ("overloaded", "unavailable"):
                self._refused = asyncio.get_running_loop().time()
            raise
        finally:
            self._under_way[model] -= 1
            if not self._under_way.total():
                self._empty.set()

    async def _in_time(self, request: Request, model: str, stream: str) -> Answer:
        """Answer within the request's own time, if it has one."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = None if request.timeout is None else start + request.timeout
        try:
            async with asyncio.timeout_at(deadline), self._turns.turn(stream):
                answer = await self._persist(request, model, deadline)
        except TimeoutError:
            raise ServeError("deadline", "The request timed out before it could be answered.") from None
        return replace(answer, timing=replace(answer.timing, total=loop.time() - start))

    async def _persist(self, request: Request, model: str, deadline: float | None) -> Answer:
        """Ask replicas until one answers, as often as is allowed.

        A request that a replica lost, or dropped because its turn did not come in time, had been accepted and is late
        already: the next replica would refuse it, or drop it, if it went by the latency goal. So unless the client set
        a time itself it gets more of it, and to be refused for load is no reason to give it up while it has tries left.
        Late is better than never. What no replica has taken, none has lost: that uses up no try.
        """
        loop, pause, tries_left, accepted = asyncio.get_running_loop(), FIRST_PAUSE, self.settings.tries, False
        patience = self._patience(request)
        end = loop.time() + self.settings.tries * patience
        while tries_left and loop.time() < end:
            asked = request
            if deadline is not None:
                asked = replace(request, timeout=max(deadline - loop.time(), 0.001))
            elif accepted:
                asked = replace(request, timeout=LATE * patience)
            try:
                async with asyncio.timeout(patience):
                    result = await self._ask(asked, model)
            except NotTakenError as error:
                reason = str(error)
                self.passed_over += 1
            except (ReplicaLostError, TimeoutError) as error:
                reason, accepted = str(error) or "no answer in time", True
                tries_left = self._lost(request, reason, tries_left)
            else:
                if isinstance(result, Answer):
                    return result
                if not _goes_on(request, result, accepted):
                    raise result.error()
                reason, accepted = result.message, accepted or result.kind == "deadline"
                tries_left = self._lost(request, reason, tries_left)
            if tries_left:
                await asyncio.sleep(pause)
                pause = min(2.0 * pause, LONGEST_PAUSE)
        LOG.error("request %s failed with %d retries left: %s", request.id, tries_left, reason)
        raise ServeError("unavailable", "The replicas that handled the request were lost.", retry_after=1.0)

    def _lost(self, request: Request, reason: str, tries_left: int) -> int:
        if tries_left > 1:
            LOG.warning("request %s goes to another replica: %s", request.id, reason)
            self.retried += 1
        return tries_left - 1

    def _patience(self, request: Request) -> float:
        in_line = BATCH_DEADLINE if request.lane == "batch" else 0.0
        return self.settings.patience + max(in_line, request.timeout or 0.0)

    async def show(self, table: Table) -> None:
        """Route by a table from now on, unless a later one is there, and return when nothing is under way beside it."""
        if table.number > self.table.number:
            self.table, self._statuses = table, table.statuses()
        while {model for model, count in self._under_way.items() if count} - {each.id for each in self.table.entries}:
            await asyncio.sleep(LOOK_SECONDS)
        self._under_way = +self._under_way

    def models(self) -> tuple[ModelStatus, ...]:
        """Return every version; see `Engine.models`."""
        return self._statuses

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:  # noqa: ARG002
        """Refuse: what a cluster serves is said by whoever started it; see `eyas.cluster.control`."""
        self._fixed(name)

    async def unload(self, name: str, version: str = "") -> None:  # noqa: ARG002
        """Refuse, as `load` does."""
        self._fixed(name)

    def alias(self, name: str, alias: str, version: str) -> None:  # noqa: ARG002
        """Refuse, as `load` does."""
        self._fixed(name)

    def _fixed(self, name: str) -> NoReturn:
        raise ServeError("method", f"On a cluster, '{name[:100]}' is set by the command and its registry.")

    def ready(self) -> bool:
        """Return whether new requests are welcome; see `Engine.ready`."""
        return self._accepting and asyncio.get_running_loop().time() - self._refused >= BUSY_SECONDS

    async def drain(self) -> None:
        """Refuse new requests and return when all accepted ones are answered; see `Engine.drain`."""
        self._accepting = False
        await self._empty.wait()

    async def close(self) -> None:
        """Accept no more; the replicas belong to the cluster."""
        self._accepting = False
