"""A cluster without Ray, for tests of what changes one."""

from __future__ import annotations

from collections.abc import Sequence

from eyas.artifacts.packing import Files
from eyas.cluster.engine import Refusal
from eyas.cluster.routing_table import Entry, Table


class Cluster:
    """A stage that notes what it is told.

    Attributes:
        told: what, in order.
        table: what the ingresses route by.
        answers: what the replicas say when they are to hold a version.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.table = Table()
        self.shelf: set[str] = set()
        self.answers: Sequence[Refusal | None] = [None, None]

    async def put(self, entry: Entry, files: Files) -> None:
        assert files
        self.shelf.add(entry.digest)
        self.told.append(f"put {entry.id}")

    async def warm(self, entry: Entry) -> Sequence[Refusal | None]:
        assert entry.digest in self.shelf
        self.told.append(f"warm {entry.id}")
        return self.answers

    async def show(self, table: Table) -> None:
        assert table.number >= self.table.number
        assert all(entry.digest in self.shelf for entry in table.entries)
        self.table = table
        self.told.append("show")

    async def drop(self, entry: Entry) -> None:
        assert all(each.digest != entry.digest for each in self.table.entries)
        self.shelf.remove(entry.digest)
        self.told.append(f"drop {entry.id}")

    def defaults(self) -> dict[str, str]:
        """Return model -> the version that answers."""
        return {each.key.name: each.key.version for each in self.table.statuses() if each.default}
