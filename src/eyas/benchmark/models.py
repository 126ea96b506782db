"""Several models side by side on this machine: latency, throughput, memory, and where the time goes.

Each model lives in a process of its own, and they have their turns in short rounds: what slows the machine down slows
them all alike, and one can be held against another within a round.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eyas.benchmark.images import find_images, write_images
from eyas.benchmark.process import Process
from eyas.benchmark.report import BenchRecord, BenchReport, BenchRow, Contender, Opened, call_ms, name_models, summarize
from eyas.errors import UserError
from eyas.machine.processor import processor
from eyas.runtime.sources import OneSource
from eyas.runtime.trained_size import size_note, trained_size
from eyas.types import InputSpec

ROUND_SECONDS = 0.5
ROUNDS = (5, 60)  # least and greatest number
Progress = Callable[[int, int, str], None]


def bench(
    models: str | Path | Sequence[str | Path],
    *,
    threads: Sequence[int | None] = (None,),
    batch: Sequence[int] = (1,),
    stream: bool = False,
    source: OneSource | Sequence[OneSource] | None = None,
    seconds: float = 10.0,
    device: str = "auto",
    size: int | None = None,
    progress: Progress = lambda *_: None,
) -> BenchReport:
    """Return the measurements of every model at every number of threads and batch size.

    What is timed goes from an image file's bytes in memory to detections: decode, preprocess, inference, postprocess.

    Args:
        models: folders of bundles and of runs (these in PyTorch).
        threads: CPU threads of the engine; None lets it choose.
        batch: images a call.
        stream: whether to measure `Detector.stream` too, where decoding and inference overlap.
        source: images, or a folder of them; None makes up some of 640 x 480 pixels.
        seconds: how long each contender is measured, five rounds at least.
        device: "auto", "cpu", "cuda" or a name of the engine's.
        size: side of a square input in pixels; None for the models' own.
        progress: called with (steps done, steps in all, what comes next).

    Raises:
        UserError: a model can't be opened, the source has no images, or a number is out of range.
    """
    paths = [Path(one) for one in ([models] if isinstance(models, str | Path) else models)]
    _check(paths, threads, batch, seconds)
    names = name_models(paths)
    contenders = [Contender(path, count, num, names[path]) for path in paths for count in threads for num in batch]
    rounds = min(max(round(seconds / ROUND_SECONDS), ROUNDS[0]), ROUNDS[1])
    steps = len(contenders) * (1 + rounds)
    with ExitStack() as stack:
        files = stack.enter_context(_images(source))
        processes = []
        for i, one in enumerate(contenders):
            progress(i, steps, f"loading {one.name}")
            opened = Process(one.path, files, threads=one.threads, batch=one.batch, device=device, size=size)
            processes.append(stack.enter_context(opened))
        records = [BenchRecord(c, _opened(p)) for c, p in zip(contenders, processes, strict=True)]
        for number in range(rounds):
            for i in range(len(records)):
                turn = (number + i) % len(records)  # nobody always comes first
                progress(len(records) * (1 + number) + i, steps, f"measuring {contenders[turn].name}")
                _take_turn(records[turn], processes[turn], seconds / rounds, stream)
        progress(steps, steps, "done")
        what = f"{len(files)} synthetic images of 640 x 480 pixels" if source is None else f"{len(files)} images"
    rows = summarize(records)
    return BenchReport(
        rows=rows,
        machine=processor(),
        images=what,
        rounds=rounds,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        eyas=importlib.metadata.version("eyas"),
        notes=(*notes(rows), *_size_notes(records)),
    )


def _check(paths: Sequence[Path], threads: Sequence[int | None], batch: Sequence[int], seconds: float) -> None:
    """Refuse what can't be measured, before any process is started."""
    for name, values in (("models", paths), ("threads", threads), ("batch", batch)):
        if not values:
            raise UserError(f"No {name} given.", where=name, expected="at least one")
    for name, numbers in (("threads", threads), ("batch", batch)):
        for number in numbers:
            if number is not None and number < 1:
                raise UserError(f"{name} is {number}.", where=name, expected="whole numbers from 1, such as 1,2")
    if not 0 < seconds < float("inf"):
        raise UserError(f"seconds is {seconds:g}.", where="seconds", expected="a number above 0")


@contextmanager
def _images(source: OneSource | Sequence[OneSource] | None) -> Iterator[list[Path]]:
    if source is not None:
        yield find_images(source)
    else:
        with tempfile.TemporaryDirectory(prefix="eyas-bench-") as folder:
            yield write_images(Path(folder))


def _opened(process: Process) -> Opened:
    width, height = process.about["input"]
    return Opened(**{**process.about, "input": (width, height)})


def _size_notes(records: Sequence[BenchRecord]) -> list[str]:
    """Return a line for each model that is timed at another size than it was trained at."""
    found: dict[str, None] = {}
    for record in records:
        width, height = record.opened.input
        note = size_note(trained_size(record.contender.path), InputSpec(height, width), "timed")
        if note:
            found[f"{record.contender.path.name} was {note}."] = None
    return list(found)


def _take_turn(record: BenchRecord, process: Process, seconds: float, stream: bool) -> None:
    """Measure one round; streaming takes about as long again."""
    done = process.round(seconds)
    record.rounds.append(done)
    record.memory = process.memory
    if stream:
        frames = 1000 * seconds / call_ms(done) * record.contender.batch
        record.streams.append(process.stream(max(8, 2 * record.contender.batch, round(frames))))


def notes(rows: Sequence[BenchRow]) -> Iterator[str]:
    """Yield what a reader must know to read the rows right."""
    busy = [row for row in rows if not row.calm]
    if busy:
        worst = max(row.starved or 0.0 for row in busy)
        yield (
            f"The machine was busy: other processes took up to {worst:.0%} of the processor time requested. Trust the "
            "ratios and the processor time; measure again on a quiet machine."
        )
    elif any(row.starved is None for row in rows):
        yield "This system does not show whether the machine was busy."
    for name, most in {row.name: row.opened.most_at_once for row in rows}.items():
        if most is not None and any(row.batch > most for row in rows if row.name == name):
            yield f"{name} takes at most {most} images at once; larger batches are split."
    for row in rows:
        if row.calls < 100:
            yield f"The 99th percentile of fewer than 100 calls ({row.name}: {row.calls}) means little."
            break
    if all(row.found == 0 for row in rows):
        yield "Nothing was detected, so post-processing had no work. Use images that contain objects."
