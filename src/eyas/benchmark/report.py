"""The result of a benchmark: a row per configuration, computed from interleaved rounds."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from eyas.artifacts.layout import MANIFEST
from eyas.benchmark.resource_usage import STAGES, Round, Streamed
from eyas.files import write_json
from eyas.machine.processor import Processor
from eyas.renamed import with_old_keys

CALM = 0.03  # of the processor time that it asked for, a calm round was denied no more
ENOUGH = 3  # so many calm rounds at least, and a third of all, are enough to leave the others out


@dataclass(frozen=True)
class Contender:
    """A model and how it is run.

    Attributes:
        path: the run's or the bundle's folder.
        threads: CPU threads; None for the engine's own choice.
        batch: images a call.
        name: what it is called where people read it, unlike every other model's; see `name_models`.
    """

    path: Path
    threads: int | None
    batch: int
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.path.name)


def name_models(paths: Sequence[Path]) -> dict[Path, str]:
    """Return path -> a name that tells it from the others: the folder's, with what it holds and where where needed."""
    kinds = {path: "bundle" if (path / MANIFEST).is_file() else "run" for path in paths}
    names = {path: path.resolve().name for path in kinds}
    if len(set(names.values())) == len(names):
        return names
    told = {path: f"{names[path]} ({kinds[path]})" for path in kinds}
    if len(set(told.values())) == len(told):
        return told
    return {path: f"{path} ({kinds[path]})" for path in kinds}


@dataclass(frozen=True)
class Opened:
    """What a contender's process says of itself.

    Attributes:
        engine: one line: engine, version, device, threads, precision.
        input: width and height of the network's input in pixels.
        most_at_once: how many images the network takes at once; None for any number.
        open_s: seconds from the folder to a detector, the engine's import included.
        first_s: seconds of the first call.
    """

    engine: str
    input: tuple[int, int]
    most_at_once: int | None
    open_s: float
    first_s: float


@dataclass(frozen=True)
class BenchRow:
    """A contender's numbers. Times are milliseconds of wall clock a call (a batch) unless said otherwise.

    Attributes:
        path, threads, batch, name: the contender, see `Contender`.
        opened: see `Opened`.
        p50, p90, p99: of a call, from the files' bytes to the detections.
        stages: what each stage takes of the median call, in the order of `STAGES`; they add up to p50.
        per_second: images a second, median of the rounds.
        cpu_ms: milliseconds of processor time an image, median of the rounds.
        ratio: time of an image against the first row's in the same round, median of the rounds.
        cpu_ratio: the same of processor time, which says more on a busy machine.
        memory: most bytes that the process held, above what it held before it opened the model.
        stream_per_second: images a second of `Detector.stream`, median; None if it was not asked for.
        stream_gain: these against the calls' images a second in the same round, median.
        found: objects an image, on average.
        calls: how many calls the percentiles are of.
        starved: which part of the processor time that it asked for it did not get; None where that is not known.
        calm: whether busy rounds could be left out of the numbers; False: all were counted.
    """

    path: Path
    threads: int | None
    batch: int
    opened: Opened
    p50: float
    p90: float
    p99: float
    stages: tuple[float, ...]
    per_second: float
    cpu_ms: float
    ratio: float
    cpu_ratio: float
    memory: int | None
    stream_per_second: float | None
    stream_gain: float | None
    found: float
    calls: int
    starved: float | None
    calm: bool
    name: str

    @property
    def shares(self) -> tuple[float, ...]:
        """Return each stage's share of a call, 0..1, in the order of `STAGES`."""
        total = sum(self.stages) or 1.0
        return tuple(stage / total for stage in self.stages)


@dataclass(frozen=True)
class BenchReport:
    """Everything that `eyas bench` tells.

    Attributes:
        rows: a row for each contender.
        machine: the processor.
        images: what was detected in, for people.
        rounds: how often each contender had its turn.
        created: ISO 8601 time, UTC.
        eyas: version.
        notes: what a reader must know to read the numbers right.
    """

    rows: tuple[BenchRow, ...]
    machine: Processor
    images: str
    rounds: int
    created: str
    eyas: str
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON; stages and shares by name."""
        fields = dataclasses.asdict(self)
        fields["machine"]["instruction_sets"] = dict(self.machine.instruction_sets)
        for row, written in zip(self.rows, fields["rows"], strict=True):
            written["path"] = str(row.path)
            written["stages"] = dict(zip(STAGES, row.stages, strict=True))
            written["shares"] = dict(zip(STAGES, row.shares, strict=True))
        found: dict[str, Any] = with_old_keys(fields)
        return found

    def save(self, path: str | Path) -> None:
        """Write the report as JSON."""
        write_json(Path(path), self.to_dict())


@dataclass
class BenchRecord:
    """What a contender has shown so far; a round of calls each, and of streaming where that was asked for."""

    contender: Contender
    opened: Opened
    rounds: list[Round] = field(default_factory=list)
    streams: list[Streamed] = field(default_factory=list)
    memory: int | None = None


def summarize(records: Sequence[BenchRecord]) -> tuple[BenchRow, ...]:
    """Return the rows, from as many rounds of each contender, taken by turns."""
    return tuple(_row(record, records[0]) for record in records)


def call_ms(one: Round) -> float:
    """Return the median time of the round's calls."""
    return median(sum(stages) for stages in one.calls)


def image_rate(one: Round) -> float:
    """Return the images a second of the round's calls."""
    return 1000 * one.images / sum(sum(stages) for stages in one.calls)


def cpu_ms(one: Round) -> float:
    """Return the milliseconds of processor time that an image took."""
    return 1000 * one.cost.cpu / one.images


def is_calm(one: Round) -> bool:
    """Return whether nothing else kept the process from its cores; True where that can't be known."""
    return one.cost.starved is None or one.cost.starved <= CALM


def pick_rounds(fine: Sequence[bool]) -> tuple[list[int], bool]:
    """Return the numbers of the rounds to count, and whether they are the calm ones; all, where too few are calm."""
    calm = list(itertools.compress(range(len(fine)), fine))
    enough = len(calm) >= max(min(ENOUGH, len(fine)), len(fine) / 3)
    return (calm, True) if enough else (list(range(len(fine))), False)


def _row(record: BenchRecord, first: BenchRecord) -> BenchRow:
    """Return the contender's row; what is compared with the first one is compared within a round."""
    numbers, calm = pick_rounds([is_calm(one) for one in record.rounds])
    rounds = [record.rounds[i] for i in numbers]
    pairs, _ = pick_rounds([is_calm(a) and is_calm(b) for a, b in zip(record.rounds, first.rounds, strict=True)])
    totals = np.array([sum(stages) for one in rounds for stages in one.calls])
    p50, p90, p99 = (float(np.percentile(totals, part)) for part in (50, 90, 99))
    rates = [one.frames / one.cost.wall for one in record.streams]
    waited = [one.cost.waited for one in record.rounds]
    wanted = sum(one.cost.cpu + (one.cost.waited or 0.0) for one in record.rounds)
    return BenchRow(
        path=record.contender.path,
        threads=record.contender.threads,
        batch=record.contender.batch,
        opened=record.opened,
        p50=p50,
        p90=p90,
        p99=p99,
        stages=_stages_of_the_median(np.array([call for one in rounds for call in one.calls]), p50),
        per_second=median(image_rate(one) for one in rounds),
        cpu_ms=median(cpu_ms(one) for one in rounds),
        ratio=median(image_rate(first.rounds[i]) / image_rate(record.rounds[i]) for i in pairs),
        cpu_ratio=median(cpu_ms(record.rounds[i]) / cpu_ms(first.rounds[i]) for i in pairs),
        memory=record.memory,
        stream_per_second=median(rates) if rates else None,
        stream_gain=median(r / image_rate(o) for r, o in zip(rates, record.rounds, strict=True)) if rates else None,
        found=sum(one.found for one in record.rounds) / sum(one.images for one in record.rounds),
        calls=len(totals),
        starved=None if None in waited else sum(filter(None, waited)) / (wanted or 1.0),
        calm=calm,
        name=record.contender.name,
    )


def _stages_of_the_median(calls: npt.NDArray[np.float64], p50: float) -> tuple[float, ...]:
    """Return how a call of the median length is spent, from [N, stages] milliseconds.

    The stages' own medians are those of different calls, and may add up to more or less than any call took.
    """
    totals = calls.sum(axis=1)
    low, high = np.percentile(totals, (40, 60))
    spent = calls[(totals >= low) & (totals <= high)].mean(axis=0)
    return tuple((spent * p50 / max(spent.sum(), 1e-9)).tolist())
