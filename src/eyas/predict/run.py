"""Prediction on everything in some sources, into one file: the work behind `eyas predict`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from eyas.artifacts.card import hash_file
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import Manifest
from eyas.decode import MAX_PIXELS
from eyas.errors import UserError
from eyas.machine.cores import usable_cores
from eyas.predict.job import Job, Saved
from eyas.predict.parts import Part, plan
from eyas.predict.pool import Pool
from eyas.predict.results import format_of, write_results
from eyas.predict.work import Predictor, PredictSettings
from eyas.types import Suppression

PART = 64  # images that are saved, and after a stop done again, together
LIMIT = 1000  # images that can't be read
_CPU = ("onnxruntime", "openvino")


@dataclass(frozen=True)
class PredictProgress:
    """How far a job is.

    Attributes:
        done: images that are done.
        before: how many of them were done before this process began.
        total: how many there will be, as far as that can be known.
        unreadable: how many can't be read.
    """

    done: int
    before: int
    total: int
    unreadable: int


@dataclass(frozen=True)
class PredictReport:
    """The result of a prediction job.

    Attributes:
        out: the output.
        images: how many are in it, those that can't be read included.
        before: how many were done before this process began.
        unreadable: how many can't be read.
        problems: (name, why) of the first of them.
    """

    out: Path
    images: int
    before: int
    unreadable: int
    problems: tuple[tuple[str, str], ...]


def predict(
    sources: str | Path | Sequence[str | Path],
    bundle: str | Path,
    out: str | Path,
    *,
    format: str | None = None,  # noqa: A002
    shard: int | None = None,
    confidence: float | None = None,
    iou: float | None = None,
    suppression: Suppression | None = None,
    classes: Sequence[str] | None = None,
    batch: int = 1,
    column: str | None = None,
    like: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    max_pixels: int = MAX_PIXELS,
    max_unreadable: int = LIMIT,
    roots: Sequence[str | Path] = (),
    restart: bool = False,
    overwrite: bool = False,
    part: int = PART,
    on: Literal["here", "ray"] = "here",
    on_progress: Callable[[PredictProgress], None] | None = None,
) -> PredictReport:
    """Detect on every image of the sources, each once and in order, and write the results to `out`.

    A job that was stopped, however, goes on where it was when it is called again with the same arguments, and gives
    the very bytes that it would have given. What is done so far lies in the folder `out`.job, which goes at the end.

    Args:
        sources: images, folders, globs, videos, tar archives, parquet files; one or several.
        bundle: the bundle's folder.
        out: a file that ends in .parquet, .jsonl or .json (COCO results); with `shard`, a folder.
        format: "parquet", "jsonl" or "coco"; None takes what the name of `out` says.
        shard: images a file, for a folder of files.
        confidence, iou, suppression, classes: as for a detector.
        batch: images that go through the network at once.
        column: of parquet files, the column with encoded images or their paths.
        like: a COCO annotation file whose ids are used for COCO results.
        workers: processes; 0: this one, with the engine's own threads; None: one a core for an engine of the CPU.
        device: "auto", "cpu" or "cuda".
        max_pixels: images with more are not decoded.
        max_unreadable: so many images that can't be read are passed over, then it stops; it can be resumed.
        roots: folders that links, and paths in parquet files, may lead to besides the sources' own.
        restart: forget what an earlier call has done.
        overwrite: replace an output that is there.
        part: images that are saved together.
        on: "here", or "ray": on the nodes of a Ray cluster, which see the sources under the same paths.
        on_progress: called as images are done.

    Raises:
        UserError: a source or the bundle can't be used, the output is there already, an earlier call had other
            settings, too many images can't be read, or the disk is full.
    """
    target = Path(out)
    kind = format_of(target, format)
    for name, value in (("batch", batch), ("part", part), ("shard", 1 if shard is None else shard)):
        if value < 1:
            raise UserError(f"{name} is {value}.", expected="at least 1", where=name)
    manifest = Manifest.read(Path(bundle))
    job = Job(target)
    if target.exists() and not overwrite and not job.begun():
        raise UserError(f"{target} already exists.", where="out", fix="choose another name, or add --overwrite")
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    named = tuple(classes) if classes is not None else None
    settings = PredictSettings(
        str(Path(bundle).resolve()), confidence, iou, suppression, named, batch, max_pixels, _roots(roots)
    )
    asked = {**asdict(settings), "sources": [_absolute(one) for one in listed], "column": column, "part": part}
    asked["bundle"] = hash_file(Path(bundle) / MANIFEST)
    with job.held():
        if restart:
            _forget(job)
        below = [Path(root) for root in settings.roots]
        texts = [str(one) for one in listed]
        job.begin(asked, plan(texts, part, column=column, without=target.resolve(), roots=below))
        counter = _Counter(job, max_unreadable, on_progress)
        left = (one for one in job.parts() if one.index not in counter.saved)
        for saved in _saving(job, left, settings, target, manifest, workers, device, on, counter):
            counter.add(saved)
        about = {"eyas.bundle": manifest.name, "eyas.manifest.sha256": str(asked["bundle"])}
        problems = write_results(
            target, kind, job.lines(), manifest.classes, shard=shard, like=Path(like) if like else None, about=about
        )
        job.remove()
    return PredictReport(target, counter.images, counter.before, counter.unreadable, tuple(problems))


def _saving(
    job: Job,
    left: Iterator[Part],
    settings: PredictSettings,
    out: Path,
    manifest: Manifest,
    workers: int | None,
    device: str,
    on: str,
    counter: _Counter,
) -> Iterator[Saved]:
    """Do the parts and yield what was saved."""
    cores = usable_cores()
    num = workers if workers is not None else cores if manifest.target in _CPU else 1
    if on == "ray":
        from eyas.predict.ray import run_on_ray

        for part, done in run_on_ray(left, settings, manifest, workers):
            yield job.save(part, done)
    elif num == 0:
        predictor = Predictor(settings, None, device)
        try:
            for part in left:
                yield job.save(part, predictor.run(part))
        finally:
            predictor.close()
    else:
        with Pool(settings, out, num, max(1, cores // num), device) as pool:
            yield from pool.run(left, counter.tick)


class _Counter:
    """Counts what is done, tells it, and stops when too much can't be read."""

    def __init__(self, job: Job, limit: int, tell: Callable[[PredictProgress], None] | None) -> None:
        self.saved = job.saved()
        self.images = self.before = sum(each.images for each in self.saved.values())
        self.unreadable = sum(each.unreadable for each in self.saved.values())
        self._ticked = self.before
        self._limit = limit
        self._tell = tell
        self._total = job.expected() if tell else 0
        self._check()
        self.tick(0)

    def tick(self, number: int) -> None:
        """Count images whose part is not saved yet."""
        self._ticked += number
        if self._tell is not None:
            done = max(self._ticked, self.images)
            self._tell(PredictProgress(done, self.before, max(self._total, done), self.unreadable))

    def add(self, saved: Saved) -> None:
        """Count a part that is saved."""
        self.images += saved.images
        self.unreadable += saved.unreadable
        self._check()
        self.tick(0)

    def _check(self) -> None:
        if self.unreadable > self._limit:
            raise UserError(
                f"{self.unreadable} images can't be read, more than the allowed {self._limit}.",
                fix=f"check the sources; to continue anyway: --max-unreadable {10 * self.unreadable}",
            )


def _absolute(source: str | Path) -> str:
    return str(Path(source).absolute())


def _roots(roots: Sequence[str | Path]) -> tuple[str, ...]:
    """Return the folders as they really lie.

    Raises:
        UserError: there is no such folder.
    """
    for root in roots:
        if not Path(root).is_dir():
            raise UserError(f"There is no folder {root}.", where="roots", expected="a folder")
    return tuple(str(Path(root).resolve()) for root in roots)


def _forget(job: Job) -> None:
    for path in sorted(job.folder.rglob("*"), reverse=True):
        if path.is_file() and path.name != "lock":
            path.unlink()
