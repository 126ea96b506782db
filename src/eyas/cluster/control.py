"""Changes what a cluster serves while it serves: the bundle first, then replicas that are warm, then the ingresses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from eyas.artifacts.model_key import ModelKey
from eyas.artifacts.packing import Files
from eyas.cluster.engine import Refusal
from eyas.cluster.routing_table import Entry, Table, read_entry
from eyas.serve.engine.routing import unknown
from eyas.serve.errors import ServeError

LOG = logging.getLogger("eyas.serve")


class ControlStage(Protocol):
    """The parts of a cluster, as far as they are told of a change."""

    async def put(self, entry: Entry, files: Files) -> None:
        """Have a bundle's files where replicas fetch them."""
        ...

    async def warm(self, entry: Entry) -> Sequence[Refusal | None]:
        """Have every replica hold a version, and return what each says: why it can't, or None.

        Raises:
            ServeError: none says anything.
        """
        ...

    async def show(self, table: Table) -> None:
        """Have every ingress route by a table, and return when nothing is under way beside it."""
        ...

    async def drop(self, entry: Entry) -> None:
        """Forget a bundle's files."""
        ...


class Control:
    """Loads versions, flips aliases and unloads versions of a cluster; see `eyas.serve.api.Versions`.

    Lives in one event loop, and is the only one that changes what its cluster serves.

    Args:
        stage: the cluster.
        table: what it serves.

    Attributes:
        table: what it serves, or is about to.
    """

    def __init__(self, stage: ControlStage, table: Table) -> None:
        self.table = table
        self._stage = stage
        self._order = asyncio.Lock()
        self._showing: set[asyncio.Task[None]] = set()

    async def load(self, name: str, version: str = "", bundle: Path | None = None) -> ModelKey:
        """Have every replica hold a version, then let the ingresses route to it.

        Raises:
            ServeError: a replica can't load it; what serves still does.
            UserError: it is no bundle, or was changed.
        """
        if bundle is None or not version:
            raise ServeError("method", f"On a cluster, '{name[:100]}' is loaded by version and bundle.")
        entry, files = await asyncio.to_thread(read_entry, ModelKey(name, version), bundle)
        await self._stage.put(entry, files)
        try:
            refusals = [each for each in await self._stage.warm(entry) if each is not None]
            if refusals:
                raise refusals[0].error()
        except ServeError:
            await self._drop(entry)
            raise
        others = tuple(each for each in self.table.entries if each.key != entry.key)
        self._change(replace(self.table, entries=(*others, entry)))
        await self._show()
        return entry.key

    def alias(self, name: str, alias: str, version: str) -> None:
        """Let an alias point to a loaded version; the ingresses know of it as soon as they are told.

        Raises:
            ServeError: there is no such version.
        """
        if all(entry.key != ModelKey(name, version) for entry in self.table.entries):
            raise unknown(name, version, (entry.key for entry in self.table.entries))
        pointing = {**self.table.aliases.get(name, {}), alias: version}
        self._change(replace(self.table, aliases={**self.table.aliases, name: pointing}))
        task = asyncio.ensure_future(self._show())
        self._showing.add(task)
        task.add_done_callback(self._shown)

    async def unload(self, name: str, version: str = "") -> None:
        """Let no ingress route to a version any more, and forget its bundle when what it was asked is answered.

        Replicas that hold it let go of it when they need the room.

        Raises:
            ServeError: there is no such version.
        """
        gone = [each for each in self.table.entries if each.key.name == name and version in ("", each.key.version)]
        if not gone:
            raise unknown(name, version, (entry.key for entry in self.table.entries))
        versions = {each.key.version for each in gone}
        left = {alias: to for alias, to in self.table.aliases.get(name, {}).items() if to not in versions}
        entries = tuple(each for each in self.table.entries if each not in gone)
        self._change(replace(self.table, entries=entries, aliases={**self.table.aliases, name: left}))
        await self._show()
        for entry in gone:
            await self._drop(entry)

    def _change(self, table: Table) -> None:
        self.table = replace(table, number=self.table.number + 1)

    async def _show(self) -> None:
        """Show the ingresses what is served now; one change after the other."""
        async with self._order:
            await self._stage.show(self.table)

    def _shown(self, task: asyncio.Task[None]) -> None:
        """Take note that the ingresses were told, or were not: then they look by themselves."""
        self._showing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.warning("some ingress replicas missed an update: %s", task.exception())

    async def _drop(self, entry: Entry) -> None:
        if all(each.digest != entry.digest for each in self.table.entries):
            await self._stage.drop(entry)
