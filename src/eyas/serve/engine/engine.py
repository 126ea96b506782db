"""The engine on this machine: requests go to versions, versions to workers, and versions are swapped with no loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, ModelStatus, Request, Timing
from eyas.serve.engine.executor import Executor, Ticket
from eyas.serve.engine.model_manager import ModelManager
from eyas.serve.engine.quarantine import KILLER, Quarantine
from eyas.serve.engine.routing import Router
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.engine.versions import ModelTable, ServedVersion
from eyas.serve.errors import WIRES, Refused, ServeError, all_refused
from eyas.serve.request_options import labels_of, thresholds_of
from eyas.serve.scheduler.model import ModelStats
from eyas.serve.scheduler.types import Lane
from eyas.serve.workers.base import ImageResult, Task

LOG = logging.getLogger("eyas.serve")
LANES: Mapping[str, Lane] = {"interactive": Lane.INTERACTIVE, "stream": Lane.STREAM, "batch": Lane.BATCH}
SHADOWS = 16  # copies of requests that may be under way at once; what comes beyond is not copied
BUSY_SECONDS = 1.0  # after a refusal for load the server is not ready for so long

ShadowSeen = Callable[[Request, ModelKey, Answer | ServeError], None]


class LocalEngine:
    """Serves versions of models on this machine; see `eyas.serve.api.Engine`.

    To be made, and used, in a running event loop.

    Args:
        settings: how; the defaults by default.
        router: which version answers which request.
        shadow_seen: called with each shadow copy's answer.
    """

    def __init__(
        self,
        settings: EngineSettings | None = None,
        router: Router | None = None,
        shadow_seen: ShadowSeen | None = None,
    ) -> None:
        self.settings = settings or EngineSettings()
        self.router = router or Router()
        self.quarantine = Quarantine()
        self._loop = asyncio.get_running_loop()
        self._executor = Executor(self._died, self.settings.max_waiting)
        self._table = ModelTable()
        self._manager = ModelManager(self.settings, self._table, self._executor)
        self._shadow_seen = shadow_seen
        self._shadows: set[asyncio.Task[None]] = set()
        self._tickets: set[Ticket] = set()
        self._accepting = True

    # ------------------------------------------------------------------------------------------------- requests

    async def detect(self, request: Request) -> Answer:
        """Return what was found; see `Engine.detect`."""
        if not self._accepting:
            raise ServeError("unavailable", "The server is shutting down.", retry_after=1.0)
        if not request.images:
            raise ServeError("invalid", "The request has no images.")
        request = self._without_killers(request)
        route = self.router.route(request, self._table.statuses())
        for shadow in route.shadows:
            self._shadow(request, shadow)
        return await self._detect(request, route.key)

    async def _detect(self, request: Request, key: ModelKey) -> Answer:
        version, start = self._table[key], monotonic()
        with version.in_use():
            timeout = request.timeout
            if version.state != "ready":
                await self._manager.wake(version, timeout)
                timeout = None if timeout is None else timeout - (monotonic() - start)
            tasks = self._tasks(request, version)
            ticket = Ticket(tasks, self._loop.create_future(), request.partial, request.refused)
            lane = LANES[request.lane]
            stream = request.stream if lane is Lane.STREAM and len(request.images) == 1 else ""
            if lane is Lane.STREAM and not stream:
                lane = Lane.INTERACTIVE
            self._executor.submit(version.id, ticket, lane, stream, timeout)
            self._tickets.add(ticket)
            try:
                await ticket.done
            except asyncio.CancelledError:
                self._executor.cancel(ticket)
                raise
            finally:
                self._tickets.discard(ticket)
            for number, image in enumerate(request.images):
                if _was_run(ticket, number):
                    self.quarantine.survived(image)
            return _answer(request, key, ticket, monotonic() - start)

    def _tasks(self, request: Request, version: ServedVersion) -> list[Task]:
        """Return the images as the workers want them.

        Raises:
            ServeError: an option can't be had.
        """
        manifest, options = version.manifest, request.options
        assert manifest is not None
        thresholds, only = thresholds_of(options, manifest), labels_of(options, manifest)
        return [Task(image, thresholds, only, options.annotate) for image in request.images]

    def _without_killers(self, request: Request) -> Request:
        """Return the request without images that killed workers.

        Raises:
            ServeError: it has one, and is not partial; or nothing is left of it.
        """
        now, refused = monotonic(), dict(request.refused)
        for number, image in enumerate(request.images):
            if number not in refused and (why := self.quarantine.holds(now, image)):
                if not request.partial:
                    where = f"Image {number + 1} of {len(request.images)}: " if len(request.images) > 1 else ""
                    raise ServeError("unprocessable", f"{where}{why} It is not retried.")
                refused[number] = Refused("unprocessable", f"{why} It is not retried.")
        if len(refused) == len(request.images):
            raise all_refused(refused)
        return request if len(refused) == len(request.refused) else replace(request, refused=refused)

    def _died(self, tasks: Sequence[Task], why: str) -> None:
        self.quarantine.died(monotonic(), [task.image for task in tasks], why or KILLER)

    def _shadow(self, request: Request, key: ModelKey) -> None:
        """Let another version see a copy of the request, in the gaps that real requests leave."""
        copy = replace(request, id=f"{request.id}~{key.version}", lane="batch", stream="", timeout=None)

        if len(self._shadows) >= SHADOWS:
            if self._shadow_seen is not None:
                self._shadow_seen(copy, key, ServeError("overloaded", "Too many shadow copies are in flight."))
            return

        async def run() -> None:
            result: Answer | ServeError
            try:
                result = await self._detect(copy, key)
            except ServeError as error:
                result = error
            if self._shadow_seen is not None:
                self._shadow_seen(copy, key, result)

        task = asyncio.create_task(run())
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    # --------------------------------------------------------------------------------------------------- models

    def models(self) -> tuple[ModelStatus, ...]:
        """Return every version; see `Engine.models`."""
        return tuple(replace(each, memory=self._table[each.key].memory()) for each in self._table.statuses())

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:
        """Load a version; see `Engine.load`."""
        if not self._accepting:
            raise ServeError("unavailable", "The server is shutting down.")
        return await self._manager.load(name, version, bundle)

    async def unload(self, name: str, version: str = "") -> None:
        """Unload a version, or all of a model; see `Engine.unload`."""
        await self._manager.unload(name, version)

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias point to a loaded version; see `Engine.alias`."""
        self._table.alias(name, alias, version)

    def stats(self) -> Mapping[str, ModelStats]:
        """Return the load of each version, "name/version", now."""
        return self._executor.scheduler.stats(monotonic())

    # ---------------------------------------------------------------------------------------------------- state

    def ready(self) -> bool:
        """Return whether new requests are welcome; see `Engine.ready`."""
        busy = monotonic() - self._executor.refused < BUSY_SECONDS
        return self._accepting and not busy and self._manager.serving()

    async def drain(self) -> None:
        """Refuse new requests and return when all accepted ones are answered; see `Engine.drain`."""
        self._accepting = False
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*(version.empty.wait() for version in self._table.all()))

    async def close(self) -> None:
        """Stop the workers; what was not answered fails; see `Engine.close`."""
        self._accepting = False
        for ticket in self._tickets:
            ticket.fail(ServeError("unavailable", "The server has shut down."))
        for task in self._shadows:
            task.cancel()
        await self._manager.close()
        self._executor.close()

    async def __aenter__(self) -> LocalEngine:
        """Return the engine itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the engine."""
        await self.close()


def _was_run(ticket: Ticket, number: int) -> bool:
    result = ticket.results[number]
    unrun = number in ticket.refused or number in ticket.blamed
    return isinstance(result, ImageResult) or (
        isinstance(result, Refused) and not unrun and WIRES[result.kind].http < 500
    )


def _answer(request: Request, key: ModelKey, ticket: Ticket, total: float) -> Answer:
    found = [result for result in ticket.results if isinstance(result, ImageResult)]
    timing = Timing(
        queue=ticket.dispatched - ticket.arrived,
        decode=sum(result.decode for result in found),
        preprocess=sum(result.preprocess for result in found),
        inference=ticket.inference,
        postprocess=sum(result.postprocess for result in found),
        total=total,
        batch=ticket.batch,
    )
    annotated = tuple(result.annotated for result in found) if request.options.annotate else ()
    refused = {number: result for number, result in enumerate(ticket.results) if isinstance(result, Refused)}
    return Answer(
        request.id, key, tuple(result.detections for result in found), annotated, timing.within_total(), refused
    )
