"""The versions that a server knows of, what they are doing, and the aliases that point to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import ModelStatus, State
from eyas.serve.engine.autoscale import Autoscaler
from eyas.serve.engine.routing import unknown, with_aliases
from eyas.serve.errors import ServeError
from eyas.serve.workers.worker_group import WorkerGroup


@dataclass(eq=False)
class ServedVersion:
    """One version of a model, as the engine has it.

    Attributes:
        key, bundle: what it is and where it lies.
        changed: called when what it is doing changes.
        state, reason, on_demand: see `ModelStatus`; `set` changes them.
        manifest: of its bundle, once it was read.
        workers: its workers, while it is loaded.
        loading: ends when the load that is under way does; None when none is.
        used: when it last got a request, on the monotonic clock.
        open: requests that were accepted and not answered.
        empty: set while `open` is 0.
        lock: held while its workers are started or stopped.
        scaler: decides how many workers it has, None for a fixed number.
    """

    key: ModelKey
    bundle: Path
    changed: Callable[[], None]
    state: State = "loading"
    reason: str = ""
    on_demand: bool = False
    manifest: Manifest | None = None
    workers: WorkerGroup | None = None
    loading: asyncio.Task[None] | None = None
    used: float = 0.0
    open: int = 0
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    scaler: Autoscaler | None = None

    def __post_init__(self) -> None:
        """Begin with no request."""
        self.empty.set()

    @property
    def id(self) -> str:
        """Return its name for the scheduler and the logs."""
        return f"{self.key.name}/{self.key.version}"

    def set(self, state: State, reason: str = "", *, on_demand: bool = False) -> None:
        """Change what it is doing."""
        self.state, self.reason, self.on_demand = state, reason, on_demand
        self.changed()

    def memory(self) -> int:
        """Return the bytes that its workers hold."""
        return self.workers.memory() if self.workers is not None else 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Count a request within the block as accepted and not answered."""
        self.used = monotonic()
        self.open += 1
        self.empty.clear()
        try:
            yield
        finally:
            self.open -= 1
            if not self.open:
                self.empty.set()


class ModelTable:
    """Versions by their keys, and aliases. A change is seen by the next request."""

    def __init__(self) -> None:
        self._versions: dict[ModelKey, ServedVersion] = {}
        self._aliases: dict[str, dict[str, str]] = {}  # model -> alias -> version
        self._statuses: tuple[ModelStatus, ...] | None = ()

    def __getitem__(self, key: ModelKey) -> ServedVersion:
        """Return a version that is known."""
        return self._versions[key]

    def get(self, key: ModelKey) -> ServedVersion | None:
        """Return a version, None if it is not known."""
        return self._versions.get(key)

    def all(self, name: str = "") -> list[ServedVersion]:
        """Return all versions, or those of a model, in order."""
        return [self._versions[each.key] for each in self.statuses() if name in ("", each.key.name)]

    def add(self, key: ModelKey, bundle: Path) -> ServedVersion:
        """Return a new version; one that had its key before is forgotten."""
        self._versions[key] = version = ServedVersion(key, bundle, self._changed)
        self._changed()
        return version

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias point to a ready version from now on.

        Raises:
            ServeError: there is no such version, or it is not ready.
        """
        found = self._versions.get(ModelKey(name, version))
        if found is None:
            raise unknown(name, version, self._versions)
        if found.state != "ready" and not found.on_demand:
            raise ServeError("unavailable", f"Version {version} of '{name}' is {found.state}; the alias is unchanged.")
        self._aliases.setdefault(name, {})[alias] = version
        self._changed()

    def next_version(self, name: str) -> str:
        """Return the number after the greatest version of a model, "1" for the first."""
        numbers = [int(each.key.version) for each in self.all(name) if each.key.version.isdecimal()]
        return str(max(numbers, default=0) + 1)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the status of every version, sorted; the same object until something changes. Without memory."""
        if self._statuses is None:
            found = [
                ModelStatus(each.key, each.state, each.reason, each.manifest, on_demand=each.on_demand)
                for each in self._versions.values()
            ]
            self._statuses = with_aliases(found, self._aliases)
        return self._statuses

    def _changed(self) -> None:
        self._statuses = None
