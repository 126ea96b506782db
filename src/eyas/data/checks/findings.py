"""What a check of a dataset finds: single faults, and all of them with the numbers of each split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eyas.data.checks.statistics import SplitStatistics
from eyas.renamed import with_old_keys

Level = Literal["error", "warning"]
_KEPT = 1000  # examples kept of one kind of fault; the count is always complete


@dataclass(frozen=True)
class Finding:
    """One kind of fault in one split.

    Attributes:
        level: "error" ruins training or evaluation; "warning" may be meant.
        kind: short name, the same in every dataset.
        split: the split, or two of them joined by " and ".
        count: how many there are.
        meaning: what it is and does, one sentence.
        examples: the first ones, a line each.
    """

    level: Level
    kind: str
    split: str
    count: int
    meaning: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check.

    Attributes:
        root: the dataset.
        format: its format's name.
        classes: class names.
        train_size: the network's input size that box sizes are told for, in pixels.
        splits: the numbers of each split.
        findings: the faults, errors first.
    """

    root: Path
    format: str
    classes: tuple[str, ...]
    train_size: int
    splits: dict[str, SplitStatistics]
    findings: tuple[Finding, ...]

    @property
    def has_errors(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        fields = dataclasses.asdict(self)
        found: dict[str, Any] = with_old_keys({**fields, "root": str(self.root), "errors": self.has_errors})
        return found


def finding(level: Level, kind: str, split: str, meaning: str, examples: Sequence[str]) -> list[Finding]:
    """Return a list of the one finding, empty when there is no example."""
    if not examples:
        return []
    return [Finding(level, kind, split, len(examples), meaning, tuple(examples[:_KEPT]))]
