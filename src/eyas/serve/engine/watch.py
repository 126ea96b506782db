"""Keeps what an engine serves in step with the registry's aliases; what can't be loaded changes nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from eyas.artifacts.model_key import ModelKey
from eyas.errors import UserError
from eyas.registry.base import Model, Registry
from eyas.serve.api import Versions
from eyas.serve.blocking import in_thread
from eyas.serve.errors import ServeError

INTERVAL = 1.0  # seconds between two looks
PATIENCE = 10.0  # seconds after which a registry that has not answered yet is told to be unreadable
_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds until a version that failed is tried again; doubled each time


@dataclass(frozen=True)
class Change:
    """What the watcher did, or could not do.

    Attributes:
        kind: "flipped": the alias answers with the version from now on; "fallback": it does, but points to another in
            the registry, which can't be served; "unloaded": a version that no alias points to has been freed;
            "failed": the version can't be served, and what served before still serves; "unreadable": the registry
            can't be read; "readable": it can again.
        key: the version; None where it is about the registry.
        alias: the alias, "" where there is none.
        message: what went wrong, "" when nothing did.
    """

    kind: Literal["flipped", "fallback", "unloaded", "failed", "unreadable", "readable"]
    key: ModelKey | None = None
    alias: str = ""
    message: str = ""


@dataclass(frozen=True)
class Behind:
    """An alias that points, in the registry, to a version that can't be served.

    Attributes:
        alias: the alias.
        wanted: the version that it points to.
        serving: the version that answers in its place; None if none does.
        message: why.
        fallback: whether `serving` was loaded in its place, because nothing served; else it serves since before.
    """

    alias: str
    wanted: ModelKey
    serving: ModelKey | None
    message: str
    fallback: bool = False


@dataclass
class _Failure:
    """A version that could not be served, and when to try again."""

    message: str
    again: float
    wait: float


class RegistryWatcher:
    """Loads the versions that aliases point to, flips the aliases, and unloads what no alias points to any more.

    A version that can't be served leaves in place what serves. Where nothing does, as after a start, the last one that
    the alias pointed to before answers, so that a server comes back from a restart with what it had.

    Args:
        registry: what is looked at; it is only called in threads.
        engine: what serves; it is only called from the loop that `run` runs in.
        follow: names to serve -> the aliases of each to follow, none for all that it has; None serves every model
            that has an alias.
        on_change: told each change.
        clock: seconds, for waiting after a failure.

    Attributes:
        serving: (name, alias) -> the version that answers.
        unreadable: why the registry can't be read, "" when it can.
    """

    def __init__(
        self,
        registry: Registry,
        engine: Versions,
        *,
        follow: Mapping[str, Collection[str]] | None = None,
        on_change: Callable[[Change], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry = registry
        self._engine = engine
        self._follow_only = follow
        self._tell = on_change or (lambda _: None)
        self._clock = clock
        self.serving: dict[tuple[str, str], ModelKey] = {}
        self._loaded: set[ModelKey] = set()
        self._failures: dict[ModelKey, _Failure] = {}
        self._loading: dict[ModelKey, asyncio.Task[bool]] = {}
        self._unloading: dict[ModelKey, asyncio.Task[None]] = {}
        self._reading: asyncio.Task[tuple[Model, ...]] | None = None
        self._behind: dict[tuple[str, str], Behind] = {}
        self._fallen: set[tuple[str, str]] = set()  # those that answer with what they fell back to
        self.unreadable = ""

    @property
    def behind(self) -> tuple[Behind, ...]:
        """The aliases that point, in the registry, to what can't be served."""
        return tuple(self._behind.values())

    async def run(self) -> None:
        """Look again and again until the task is cancelled; then wait for nothing."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(INTERVAL)
        finally:
            self.end()

    def end(self) -> None:
        """Give up what is being read, loaded and unloaded."""
        reading = () if self._reading is None else (self._reading,)
        for task in (*reading, *self._loading.values(), *self._unloading.values()):
            task.cancel()

    async def look(self) -> None:
        """Look once, and bring the engine in step.

        It returns when what was to be loaded is loaded, has failed, or is not wanted any more.
        """
        try:
            models = await self._read()
        except UserError as error:
            if str(error) != self.unreadable:
                self.unreadable = str(error)
                self._tell(Change("unreadable", message=self.unreadable))
            return
        if self.unreadable:
            self.unreadable = ""
            self._tell(Change("readable"))
        # One model's slow load does not hold up another's rollback.
        await asyncio.gather(*(self._follow(model) for model in models))

    async def _read(self) -> tuple[Model, ...]:
        """Return the models to follow. A look that is not answered in time is waited for by the next one.

        Raises:
            UserError: the registry can't be read, or has not answered in time.
        """
        if self._reading is None:
            self._reading = asyncio.create_task(in_thread(self._registry.list, self._follow_only))
        reading = self._reading
        if not (await asyncio.wait([reading], timeout=PATIENCE))[0]:
            raise UserError(f"The registry has not responded for {PATIENCE:g} s.", where=self._registry.location)
        self._reading = None
        return reading.result()

    async def _follow(self, model: Model) -> None:
        only = self._follow_only[model.name] if self._follow_only is not None else ()
        wanted = {alias: version for alias, version in sorted(model.aliases.items()) if not only or alias in only}
        for name, alias in tuple(self._behind):
            if name == model.name and alias not in wanted:
                del self._behind[name, alias]
        for alias, version in wanted.items():
            key, at = ModelKey(model.name, version), (model.name, alias)
            if self.serving.get(at) == key or (await self._load(key, alias) and self._flip(key, alias)):
                self._behind.pop(at, None)
                self._fallen.discard(at)
            elif key in self._failures:
                if at not in self.serving:
                    await self._fall_back(model, alias)
                failure = self._failures[key]
                self._behind[at] = Behind(alias, key, self.serving.get(at), failure.message, at in self._fallen)
        for key in sorted(self._loaded):
            used = key in self.serving.values() or key.version in wanted.values()
            if key.name == model.name and not used:
                self._unload(key)

    async def _fall_back(self, model: Model, alias: str) -> None:
        """Let the alias answer with the last version that it had before and that can be served, if there is one."""
        present = model.aliases[alias]
        for version in dict.fromkeys(reversed(model.stack(alias))):
            key = ModelKey(model.name, version)
            if version != present and await self._load(key, alias, present) and self._flip(key, alias, "fallback"):
                self._fallen.add((model.name, alias))
                return

    async def _load(self, key: ModelKey, alias: str, wanted: str = "") -> bool:
        """Have the engine load the version, and return whether it serves it.

        Args:
            key: the version.
            alias: what will answer with it.
            wanted: the version that the alias points to in the registry, if it is not this one.
        """
        if key in self._loaded:
            return True
        failure = self._failures.get(key)
        if failure is not None and self._clock() < failure.again:
            return False
        task = self._loading.get(key)
        if task is None:
            self._loading[key] = task = asyncio.create_task(self._bring(key, alias))
            task.add_done_callback(lambda _: self._loading.pop(key, None))
        while not (await asyncio.wait([task], timeout=INTERVAL))[0]:
            # A load that takes long, or hangs, does not hold up the way back.
            if not await in_thread(self._points, key.name, alias, wanted or key.version):
                return False
        return not task.cancelled() and task.result()

    def _points(self, name: str, alias: str, version: str) -> bool:
        try:
            return self._registry.show(name).aliases.get(alias) == version
        except UserError:
            return True

    async def _bring(self, key: ModelKey, alias: str) -> bool:
        """Load the version, when it is out if it is being freed, and return whether that worked."""
        if key in self._unloading:  # called back while it was being freed
            await asyncio.wait([self._unloading[key]])
        try:
            found = await in_thread(self._registry.resolve, key.name, key.version)
            await self._engine.load(key.name, key.version, found.bundle)
        except (UserError, ServeError, OSError) as error:
            self._fail(key, alias, str(error))
            return False
        self._failures.pop(key, None)
        self._loaded.add(key)
        return True

    def _flip(self, key: ModelKey, alias: str, kind: Literal["flipped", "fallback"] = "flipped") -> bool:
        """Let the engine's alias point to the version, and return whether it does."""
        try:
            self._engine.alias(key.name, alias, key.version)
        except ServeError as error:
            self._loaded.discard(key)
            self._fail(key, alias, str(error))
            return False
        self.serving[key.name, alias] = key
        self._tell(Change(kind, key, alias))
        return True

    def _fail(self, key: ModelKey, alias: str, message: str) -> None:
        before = self._failures.get(key)
        wait = _FIRST_WAIT if before is None else min(2 * before.wait, _LONGEST_WAIT)
        self._failures[key] = _Failure(message, self._clock() + wait, wait)
        if before is None or before.message != message:
            self._tell(Change("failed", key, alias, message))

    def _unload(self, key: ModelKey) -> None:
        self._loaded.discard(key)
        self._unloading[key] = asyncio.create_task(self._free(key))

    async def _free(self, key: ModelKey) -> None:
        try:
            await self._engine.unload(key.name, key.version)
        except ServeError as error:
            self._tell(Change("failed", key, message=str(error)))
        else:
            self._tell(Change("unloaded", key))
        finally:
            self._unloading.pop(key, None)
