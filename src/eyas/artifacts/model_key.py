"""The name of one version of a model, wherever models have versions: in a registry, on a server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelKey:
    """A version of a model, the unit that is loaded, batched and swapped.

    Attributes:
        name: the model's name.
        version: its version, for example "3": a decimal number, which orders the versions.
    """

    name: str
    version: str

    def __lt__(self, other: ModelKey) -> bool:
        """Order by name, then by number: version 10 comes after version 9; versions that are no numbers come last."""
        return self._rank() < other._rank()

    def _rank(self) -> tuple[str, bool, int, str]:
        number = self.version.isdecimal()
        return self.name, not number, int(self.version) if number else 0, self.version
