"""Loads and unloads versions: beside one another, with what they accepted answered, within the memory limit."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from time import monotonic

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.serve.engine.autoscale import Autoscaler, ScaleConfig, Signal
from eyas.serve.engine.executor import Executor
from eyas.serve.engine.routing import find, unknown
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.engine.versions import ModelTable, ServedVersion
from eyas.serve.engine.worker_planning import Choice, plan
from eyas.serve.errors import ServeError
from eyas.serve.scheduler.latency import LatencyProfile
from eyas.serve.scheduler.model import ModelStats
from eyas.serve.workers.base import Ready, Worker, WorkerFailed, WorkerSpec
from eyas.serve.workers.inprocess import ThreadWorker
from eyas.serve.workers.process_worker import ProcessWorker
from eyas.serve.workers.worker_group import WorkerGroup

LOG = logging.getLogger("eyas.serve")
GOAL_BATCHES = 8  # the latency goal, where none was set, in batches of one
GOAL_SECONDS = 0.25  # and its least value
UPKEEP_SECONDS = 1.0
SWOLLEN = 0.8  # of the memory that a worker may take: it is replaced before its allocations fail
# The share of the goal that is kept for what the scheduler does not see, the connection and the protocol, and for a
# batch that takes longer than any before: requests are admitted for the rest of it.
RESERVE = 0.15
STOP_SECONDS = 10.0  # how long a worker that stops may finish its batch before it is killed
WAKE_SECONDS = 30.0  # how long a request without a timeout waits for its version to be loaded


class ModelManager:
    """Brings versions into service and takes them out again.

    Args:
        settings: the engine's.
        table: the versions.
        executor: where warm workers get their batches from.
    """

    def __init__(self, settings: EngineSettings, table: ModelTable, executor: Executor) -> None:
        self._settings = settings
        self._table = table
        self._executor = executor
        self._upkeep: asyncio.Task[None] | None = None

    def serving(self) -> bool:
        """Return whether at least one version has a warm worker."""
        return any(each.state == "ready" and each.workers and each.workers.running for each in self._table.all())

    async def load(self, name: str, version: str, bundle: Path | None) -> ModelKey:
        """Load a version and return when it is ready; see `Engine.load`.

        Raises:
            ServeError: there is no such version, the name is taken by another bundle, or it can't be loaded.
        """
        if not name or len(name) > 200 or "/" in name or not name.isprintable():
            raise ServeError("invalid", "A model name has 1 to 200 printable characters and no slash.")
        if bundle is None:
            found = self._table[find(name, version, self._table.statuses()).key]
        else:
            found = self._new(name, version, bundle)
        if found.state != "ready":
            await self._begin(found)
        return found.key

    def _new(self, name: str, version: str, bundle: Path) -> ServedVersion:
        """Return a version that is new, or known and of the same bundle."""
        key = ModelKey(name, version or self._table.next_version(name))
        found = self._table.get(key)
        if found is not None and found.state in ("loading", "ready", "draining"):
            if found.bundle.resolve() == bundle.resolve():
                return found
            raise ServeError("invalid", f"Version {key.version} of '{name}' is a different bundle; use a new version.")
        return self._table.add(key, bundle)

    async def wake(self, version: ServedVersion, timeout: float | None) -> None:
        """Load a version that was unloaded for want of memory, because a request wants it.

        Raises:
            ServeError: it can't be loaded, or not in time.
        """
        try:
            await asyncio.wait_for(self._begin(version), WAKE_SECONDS if timeout is None else timeout)
        except TimeoutError:
            raise ServeError("unavailable", "The model is being loaded.", retry_after=1.0) from None

    async def _begin(self, version: ServedVersion) -> None:
        """Load a version, once however many ask for it; giving up waiting does not end the load."""
        if version.state == "draining":
            raise ServeError("unavailable", "The version is being unloaded.", retry_after=1.0)
        if version.loading is None:
            version.loading = asyncio.create_task(self._load(version))
        await asyncio.shield(version.loading)

    async def _load(self, version: ServedVersion) -> None:
        """Read, start and register a version.

        Raises:
            ServeError: it can't be loaded.
        """
        version.set("loading", on_demand=version.on_demand)
        try:
            async with version.lock:
                manifest = await asyncio.to_thread(Manifest.read, version.bundle)
                choice = await self._choose(version.bundle, manifest)
                version.manifest = manifest
                version.workers = self._workers(version, self._spec(version.bundle, manifest, choice), manifest.classes)
                version.scaler = self._scaler(choice)
                await version.workers.start(choice.workers)
        except (UserError, WorkerFailed, OSError) as error:
            version.workers = None
            version.set("failed", str(error))
            LOG.error("%s can't be loaded: %s", version.id, error)
            raise ServeError("unprocessable", f"The bundle can't be loaded: {error}") from error
        finally:
            version.loading = None
        version.used = monotonic()
        version.set("ready")
        LOG.info("%s is ready: %d worker(s), threads: %s", version.id, choice.workers, choice.threads)
        if self._upkeep is None:
            self._upkeep = asyncio.create_task(self._look_after())
        await self._make_room(version)

    async def _choose(self, bundle: Path, manifest: Manifest) -> Choice:
        """Return how many workers with how many threads a version gets: as was set, the rest as was measured."""
        settings = self._settings
        if settings.workers is None and settings.threads is None and not settings.in_process:
            return await plan(bundle, manifest, settings.device, settings.goal)
        cores = usable_cores()
        workers = settings.workers or (1 if settings.in_process else max(1, cores // (settings.threads or cores)))
        return Choice(workers, settings.threads or max(1, cores // workers))

    def _scaler(self, choice: Choice) -> Autoscaler | None:
        if self._settings.workers is not None or choice.workers <= self._settings.min_workers:
            return None
        delay = (self._settings.goal or GOAL_SECONDS) / 2
        return Autoscaler(ScaleConfig(self._settings.min_workers, choice.workers, queue_delay=delay))

    def _spec(self, bundle: Path, manifest: Manifest, choice: Choice) -> WorkerSpec:
        settings = self._settings
        return WorkerSpec(
            bundle=bundle,
            device=settings.device,
            threads=choice.threads,
            max_batch=min(settings.max_batch, manifest.batch[1]),
            memory=settings.worker_memory,
            start_seconds=settings.start_seconds,
            batch_seconds=settings.batch_seconds,
        )

    def _workers(self, version: ServedVersion, spec: WorkerSpec, classes: tuple[str, ...]) -> WorkerGroup:
        def joined(worker: Worker, ready: Ready) -> None:
            profile = LatencyProfile.measured(ready.latencies)
            goal = self._settings.goal or max(GOAL_SECONDS, GOAL_BATCHES * (profile.base + profile.per_item))
            self._executor.add(version.id, worker, profile, goal * (1 - RESERVE), spec.max_batch)

        def make(name: str) -> Worker:
            return ThreadWorker(name, spec) if self._settings.in_process else ProcessWorker(name, spec, classes)

        return WorkerGroup(version.id, make, joined, self._executor.lose, self._executor.release)

    async def unload(self, name: str, version: str) -> None:
        """Answer what a version has accepted, then free it; "" means all versions; see `Engine.unload`.

        Raises:
            ServeError: there is no such model or version.
        """
        found = [each for each in self._table.all(name) if version in ("", each.key.version)]
        if not found:
            raise unknown(name, version, (each.key for each in self._table.all()))
        await asyncio.gather(*(self._retire(each, "unloaded on request") for each in found))

    async def _retire(self, version: ServedVersion, reason: str) -> None:
        """Take no new requests for a version, answer what it has accepted, and end its workers."""
        if version.loading is not None:
            await asyncio.wait([version.loading])
        if version.state == "unloaded":
            version.set("unloaded", reason)  # and no request loads it again
        if version.state != "ready":
            return
        version.set("draining", reason)
        await version.empty.wait()
        async with version.lock:
            await self._stop(version, STOP_SECONDS)
        version.set("unloaded", reason)

    async def _evict(self, version: ServedVersion) -> None:
        """End the workers of a version that nobody uses; the next request that wants it loads it again."""
        async with version.lock:
            if version.open or version.state != "ready":
                return
            version.set("unloaded", "unloaded to free memory", on_demand=True)
            LOG.info("%s is unloaded to free memory", version.id)
            await self._stop(version, STOP_SECONDS)

    async def _stop(self, version: ServedVersion, grace: float) -> None:
        workers, version.workers = version.workers, None
        if workers is not None:
            await workers.stop(grace)
        self._executor.scheduler.retire(version.id)

    async def _look_after(self) -> None:
        """Every second: as many workers as the load wants, fresh ones for the swollen, memory within its limit."""
        while True:
            await asyncio.sleep(UPKEEP_SECONDS)
            stats = self._executor.scheduler.stats(monotonic())
            for version in self._table.all():
                if version.state == "ready" and version.workers is not None:
                    if version.scaler is not None and version.id in stats:
                        _scale(version.id, version.scaler, version.workers, stats[version.id])
                    if self._settings.worker_memory:
                        version.workers.renew(int(SWOLLEN * self._settings.worker_memory))
            await self._make_room()

    async def _make_room(self, kept: ServedVersion | None = None) -> None:
        """Unload what was not used for the longest time until the memory is within its limit.

        Args:
            kept: a version that has just been loaded, which stays.
        """
        limit = self._settings.memory_limit
        while limit and sum(each.memory() for each in self._table.all()) > limit:
            ready = [each for each in self._table.all() if each.state == "ready"]
            idle = [each for each in ready if each is not kept and not each.open]
            if len(ready) < 2 or not idle:
                return  # one model stays, however large
            await self._evict(min(idle, key=lambda each: each.used))

    async def close(self) -> None:
        """End everything."""
        if self._upkeep is not None:
            self._upkeep.cancel()
        loads = [version.loading for version in self._table.all() if version.loading is not None]
        for load in loads:
            load.cancel()
        await asyncio.gather(*loads, return_exceptions=True)
        await asyncio.gather(*(self._stop(version, 0.0) for version in self._table.all()))


def _scale(name: str, scaler: Autoscaler, workers: WorkerGroup, stats: ModelStats) -> None:
    starting = max(workers.wanted - workers.running, 0)
    wanted = scaler.decide(monotonic(), Signal(workers.wanted, starting, stats.demand, stats.queue_delay))
    if wanted != workers.wanted:
        LOG.info("%s: now %d worker(s), was %d", name, wanted, workers.wanted)
        workers.resize(wanted)
