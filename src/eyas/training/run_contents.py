"""The contents of a run's folder for a tracker: rows, contact sheets, files, and metadata."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from eyas import renamed
from eyas.artifacts import layout
from eyas.artifacts.card import CARD, Card
from eyas.files import read_json
from eyas.training.config_overrides import flatten
from eyas.training.loggers.base import LoggedRow, RunInfo


@dataclass(frozen=True)
class Sheet:
    """The contact sheet of an epoch."""

    epoch: int
    path: Path
    step: int
    time: float


class GrowingTable:
    """A CSV file that another thread appends to; gives each row once, and only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = []
        self._offset = 0

    def rewind(self) -> None:
        """Begin again with the first row."""
        self._offset = 0

    def new_rows(self) -> list[dict[str, str]]:
        """Return the rows that came since the last call, by column; fields without a value are left out."""
        if not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if file.seek(0, io.SEEK_END) < self._offset:
                self._offset = 0  # written anew
            file.seek(self._offset)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        lines = list(csv.reader(io.StringIO(whole.decode(), newline="")))
        if not self._offset and lines:
            self.names = lines.pop(0)
        self._offset += len(whole)
        return [
            {name: value for name, value in zip(self.names, line, strict=False) if value != ""}
            for line in lines
            if len(line) == len(self.names)
        ]


def run_info(folder: Path) -> RunInfo:
    """Return what a run is, from the files in its folder.

    Raises:
        UserError: it is no run's folder.
    """
    recipe = read_json(folder / layout.RECIPE, max_bytes=layout.MAX_BYTES)
    parents: list[Mapping[str, str]] = []
    if (folder / layout.ORIGIN).is_file():
        parents = read_json(folder / layout.ORIGIN)["parents"]
    elif (folder / CARD).is_file():
        parents = list(Card.read(folder).parents)
    facts = dict(_facts(folder, parents))
    return RunInfo(folder, (folder / layout.RECIPE).stat().st_mtime, flatten(recipe), facts, parents)


def _facts(folder: Path, parents: list[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the run's environment, where its data and weights come from, and its teacher."""
    if (folder / layout.ENVIRONMENT).is_file():
        for name, value in flatten(read_json(folder / layout.ENVIRONMENT)).items():
            yield f"env.{name}", str(value)
    for parent in parents:
        name = f"data.{parent.get('split', '')}" if parent["kind"] == "dataset" else parent.get("role", "weights")
        yield name, parent["path"]
        for told in ("sha256", "licence"):
            if told in parent:
                yield f"{name}.{told}", parent[told]


def table_row(prefix: str, fields: Mapping[str, str], started: float) -> LoggedRow:
    """Return a row of a table with the names that trackers show: "train/loss" is the column "loss" of `steps.csv`."""
    values = {f"{prefix}/{name}": float(value) for name, value in fields.items() if name != "step"}
    return LoggedRow(int(fields["step"]), started + float(fields["seconds"]), values)


def epoch_row(fields: Mapping[str, str], step_names: list[str], started: float) -> LoggedRow:
    """Return a row of `metrics.csv`: "epoch/loss" is a mean over the epoch, "val/AP" what the evaluation gave."""
    row = table_row("epoch", fields, started)
    names = list(fields)
    terms = len(step_names) - step_names.index("loss") if "loss" in step_names else 0
    measured = {f"epoch/{name}" for name in names[names.index("loss") + terms :]} if terms else set()
    values = {name.replace("epoch/", "val/", 1) if name in measured else name: v for name, v in row.values.items()}
    return dataclasses.replace(row, values=values)


def sheets_of(folder: Path) -> list[tuple[int, Path]]:
    """Return the contact sheets by epoch."""
    paths = (path for name in (renamed.SHEETS, layout.SHEETS) for path in (folder / name).glob("*.jpg"))
    found = ((re.fullmatch(r"epoch_(\d+)", path.stem), path) for path in paths)
    return sorted((int(match[1]), path) for match, path in found if match)


def stamp_of(path: Path) -> list[int]:
    """Return a file's size and time of change, by which a changed one is known."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]
