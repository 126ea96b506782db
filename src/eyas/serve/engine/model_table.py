"""The versions that a server knows of, what they are doing, and the aliases that point to them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import ModelStatus, State
from eyas.serve.engine.autoscale import Autoscaler
from eyas.serve.engine.routing import CHAMPION, unknown
from eyas.serve.errors import ServeError
from eyas.serve.workers.worker_group import Crew


@dataclass(eq=False)
class Version:
    """One version of a model, as the engine has it. `ModelTable.set` alone changes its state.

    Attributes:
        key, bundle: what it is and where it lies.
        state, reason, on_demand: see `ModelStatus`.
        manifest: of its bundle, once it was read.
        crew: its workers, while it is loaded.
        loading: ends when the load that is under way does; None when none is.
        used: when it last got a request, on the monotonic clock.
        open: requests that were accepted and not answered.
        empty: set while `open` is 0.
        lock: held while its workers are started or stopped.
        scaler: decides how many workers it has, None for a fixed number.
    """

    key: ModelKey
    bundle: Path
    state: State = "loading"
    reason: str = ""
    on_demand: bool = False
    manifest: Manifest | None = None
    crew: Crew | None = None
    loading: asyncio.Task[None] | None = None
    used: float = 0.0
    open: int = 0
    empty: asyncio.Event = field(default_factory=asyncio.Event)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    scaler: Autoscaler | None = None

    @property
    def id(self) -> str:
        """Return its name for the scheduler and the logs."""
        return f"{self.key.name}/{self.key.version}"

    def memory(self) -> int:
        """Return the bytes that its workers hold."""
        return self.crew.memory() if self.crew is not None else 0


class ModelTable:
    """Versions by their keys, and aliases. A change is seen by the next request."""

    def __init__(self) -> None:
        self._versions: dict[ModelKey, Version] = {}
        self._aliases: dict[str, dict[str, str]] = {}  # model -> alias -> version
        self._statuses: tuple[ModelStatus, ...] | None = ()

    def __getitem__(self, key: ModelKey) -> Version:
        """Return a version that is known."""
        return self._versions[key]

    def get(self, key: ModelKey) -> Version | None:
        """Return a version, None if it is not known."""
        return self._versions.get(key)

    def of(self, name: str) -> list[Version]:
        """Return the versions of a model, in order."""
        return sorted((each for each in self._versions.values() if each.key.name == name), key=lambda each: each.key)

    def all(self) -> list[Version]:
        """Return all versions, in order."""
        return sorted(self._versions.values(), key=lambda each: each.key)

    def add(self, version: Version) -> None:
        """Know a version from now on; one that had its key before is forgotten."""
        self._versions[version.key] = version
        version.empty.set()
        self._statuses = None

    def set(self, version: Version, state: State, reason: str = "", *, on_demand: bool = False) -> None:
        """Change what a version is doing."""
        version.state, version.reason, version.on_demand = state, reason, on_demand
        self._statuses = None

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
        self._statuses = None

    def next_version(self, name: str) -> str:
        """Return the number after the greatest version of a model, "1" for the first."""
        numbers = [int(each.key.version) for each in self.of(name) if each.key.version.isdecimal()]
        return str(max(numbers, default=0) + 1)

    def default(self, name: str) -> Version | None:
        """Return the version for requests that name none: the champion, else the newest one that is ready."""
        champion = self._aliases.get(name, {}).get(CHAMPION)
        if champion is not None:
            return self._versions.get(ModelKey(name, champion))
        ready = [each for each in self.of(name) if each.state == "ready" or each.on_demand]
        numbered = [each for each in ready if each.key.version.isdecimal()]
        return next(reversed(numbered or ready), None)

    def statuses(self) -> tuple[ModelStatus, ...]:
        """Return the status of every version, sorted; the same object until something changes. Without memory."""
        if self._statuses is None:
            defaults = {self.default(each.key.name) for each in self._versions.values()}
            self._statuses = tuple(self._status(each, each in defaults) for each in self.all())
        return self._statuses

    def _status(self, version: Version, default: bool) -> ModelStatus:
        """Return the status of one version."""
        pointing = self._aliases.get(version.key.name, {})
        return ModelStatus(
            key=version.key,
            state=version.state,
            reason=version.reason,
            manifest=version.manifest,
            aliases=tuple(sorted(alias for alias, target in pointing.items() if target == version.key.version)),
            default=default,
            on_demand=version.on_demand,
        )
