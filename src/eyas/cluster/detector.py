"""A replica: an engine with its workers, that holds versions of models as they are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve

from eyas.artifacts.packing import unpack
from eyas.cluster.engine import Refusal
from eyas.cluster.routing_table import NAMESPACE, Entry, Table, model_id
from eyas.cluster.scaling import replica_metrics
from eyas.serve.api import Answer, Request
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.errors import ServeError


class Shelf:
    """An actor on the head node that keeps the bundles' bytes, and the table, for those that are started later.

    Args:
        table: what is served.
        bundles: digest -> the bundle's files.
    """

    def __init__(self, table: Table, bundles: dict[str, dict[str, bytes]]) -> None:
        self._table, self._bundles = table, bundles

    def table(self) -> Table:
        """Return what is served."""
        return self._table

    def show(self, table: Table) -> None:
        """Serve what a table says from now on; the bundles of what it leaves out stay until they are dropped."""
        self._table = table

    def files(self, digest: str) -> dict[str, bytes] | None:
        """Return the files of a bundle, None if it is not there any more."""
        return self._bundles.get(digest)

    def put(self, digest: str, files: dict[str, bytes]) -> None:
        """Keep the files of a bundle."""
        self._bundles[digest] = files

    def drop(self, digest: str) -> None:
        """Forget the files of a bundle."""
        self._bundles.pop(digest, None)


class LoadedVersion:
    """A version that a replica holds. Ray Serve calls `__del__` on a thread when the version has to make room.

    Args:
        release: frees the version, and waits until it is free.
    """

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def __del__(self) -> None:
        """Free the version; nothing to do where the event loop's own thread drops this object at the end."""
        release, self._release = self._release, None
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if release is not None:
                release()


class DetectorDeployment:
    """What Ray Serve runs as a replica. Its constructor, and `reconfigure` after it, run before it gets requests.

    Args:
        shelf: name of the actor that has the bundles' bytes, and the table of what may be asked for.
        settings: how the bundles are served.
        models: versions that are held at once.
    """

    def __init__(self, shelf: str, settings: EngineSettings, models: int) -> None:
        self._entries: dict[str, Entry] = {}
        self._shelf, self._settings, self._models = shelf, settings, models
        self._folder = tempfile.TemporaryDirectory(prefix="eyas-replica-")
        self._engine: LocalEngine | None = None
        self._hold: Callable[[str], Awaitable[LoadedVersion]] | None = None

    async def reconfigure(self, _config: Any) -> None:
        """Start the engine, and hold as many versions as there is room for."""
        if self._engine is not None:
            return
        self._engine = LocalEngine(self._settings)

        async def load(name: str) -> LoadedVersion:
            return await self._load(name)

        self._hold = serve.multiplexed(max_num_models_per_replica=self._models)(load)
        for entry in reversed((await self._table()).first(self._models)):
            await self._held(entry.id)

    async def _table(self) -> Table:
        table = await ray.get_actor(self._shelf, namespace=NAMESPACE).table.remote()
        assert isinstance(table, Table)
        self._entries |= {entry.id: entry for entry in table.entries}
        return table

    async def _held(self, name: str) -> None:
        assert self._hold is not None
        await self._hold(name)

    async def _load(self, name: str) -> LoadedVersion:
        """Fetch a bundle and load it."""
        if name not in self._entries:
            await self._table()
        entry, engine = self._entries.get(name), self._engine
        assert engine is not None
        if entry is None:
            raise ServeError("unavailable", f"{name} is no longer served.", retry_after=1.0)
        folder = Path(self._folder.name) / entry.digest
        if not folder.is_dir():
            shelf = ray.get_actor(self._shelf, namespace=NAMESPACE)
            files = await shelf.files.remote(entry.digest)
            if files is None:
                raise ServeError("unavailable", f"{name} is no longer served.", retry_after=1.0)
            await asyncio.to_thread(unpack, files, folder)
        key = await engine.load(entry.key.name, entry.key.version, folder)
        loop = asyncio.get_running_loop()

        def release() -> None:
            with contextlib.suppress(RuntimeError, ServeError):
                asyncio.run_coroutine_threadsafe(engine.unload(key.name, key.version), loop).result()

        return LoadedVersion(release)

    async def warm(self, entry: Entry) -> Refusal | None:
        """Have a version ready that is in no table yet; return why it can't be had, if it can't."""
        self._entries[entry.id] = entry
        try:
            await self._held(entry.id)
        except ServeError as error:
            del self._entries[entry.id]
            return Refusal(error.kind, error.message, error.retry_after)
        return None

    async def detect(self, request: Request) -> Answer | Refusal:
        """Return what was found on the images, or why they were refused; the request names its version."""
        assert self._engine is not None
        try:
            await self._held(f"{request.model}/{request.version}")
            return await self._engine.detect(request)
        except ServeError as error:
            return Refusal(error.kind, error.message, error.retry_after)

    async def held(self) -> tuple[str, ...]:
        """Return the ids of the versions that are held now."""
        assert self._engine is not None
        return tuple(model_id(each.key) for each in self._engine.models() if each.state == "ready")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the number of replicas is decided by; Ray Serve asks for it."""
        return replica_metrics(self._engine.stats()) if self._engine is not None else {}

    async def __del__(self) -> None:
        """End the workers; Ray Serve calls it when the requests of a replica that is to stop are answered."""
        if self._engine is not None:
            await self._engine.close()
            self._engine = None
        self._folder.cleanup()
