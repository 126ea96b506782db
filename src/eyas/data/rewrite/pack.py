"""Packing a dataset: every image re-encoded so that its longest side is the training size, which decodes faster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

from eyas.data.checks.sizes import rescale
from eyas.data.formats import load_splits
from eyas.data.formats.coco import COCO
from eyas.data.rewrite.export import moved, plan_names, require_images, require_new_folder
from eyas.decode import decode, read_bytes, read_size
from eyas.errors import UserError, shorten
from eyas.files import read_json, write_bytes, write_json
from eyas.image_header import parse_header
from eyas.machine.cores import usable_cores
from eyas.progress import track
from eyas.read_ahead import ahead

_STATE = "pack.json"


@dataclass(frozen=True)
class Packed:
    """What packing did: numbers of images, and bytes of all images before and after.

    Attributes:
        images: all of them.
        resumed: those that an earlier, interrupted run had written already.
        bytes_before, bytes_after: size of the image files.
    """

    images: int
    resumed: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True)
class _Job:
    """One image to pack."""

    source: Path
    destination: Path
    size: int
    quality: int


@dataclass(frozen=True)
class _Done:
    """What became of one image: a fault or "", its new size, whether it was there already, bytes."""

    fault: str
    after: tuple[int, int]
    resumed: bool
    bytes_before: int
    bytes_after: int


def pack_dataset(
    root: Path | str,
    out: Path | str,
    *,
    size: int = 640,
    quality: int = 90,
    format: str | None = None,  # noqa: A002
    rows: str | None = None,
    workers: int | None = None,
) -> Packed:
    """Write the dataset as COCO with images whose longest side is at most `size`, and the boxes scaled along.

    Images are never enlarged. The annotations are written last; when the run is interrupted, the same call goes on
    where it ended.

    Args:
        root: the dataset.
        out: a new or empty folder, or one that the same call began.
        size: longest side in pixels.
        quality: of the JPEGs, 1 to 100.
        format: the dataset's format, when the folder alone does not say.
        rows: what long rows of YOLO label files hold, when they alone do not say.
        workers: threads; one a core if None.

    Raises:
        UserError: the dataset can't be read, images are missing, broken or of another size than their boxes.
    """
    if not 32 <= size <= 16384 or not 1 <= quality <= 100:
        raise UserError(f"Can't pack to {size} px at quality {quality}.", expected="32 to 16384 px, quality 1 to 100")
    folder = Path(out)
    splits = load_splits(root, format=format, rows=rows)
    require_images(splits)
    _begin(folder, {"source": str(Path(root).resolve()), "size": size, "quality": quality})
    indexes = list(splits.values())
    plans = plan_names(indexes, shared=False, suffix=".jpg")
    jobs = []
    for index, names in zip(indexes, plans, strict=True):
        target = COCO.images(folder, index.split)
        target.mkdir(parents=True, exist_ok=True)
        for i, name in enumerate(names):
            jobs.append(_Job(index.path(i), target / name, size, quality))
    done = list(track(ahead(_pack, jobs, workers or usable_cores()), len(jobs), "packing images"))
    faults = [f"{job.source.name}: {result.fault}" for job, result in zip(jobs, done, strict=True) if result.fault]
    if faults:
        raise UserError(
            f"{len(faults)} images can't be packed: {shorten(faults, 3)}",
            where=str(root),
            fix="run 'eyas data check', repair or remove them, and pack again: finished images are kept",
        )
    start = 0
    packed = []
    for index, names in zip(indexes, plans, strict=True):
        results = done[start : start + len(index)]
        sizes = np.array([result.after for result in results], np.int32).reshape(-1, 2)
        packed.append(moved(rescale(index, sizes), folder, COCO, names))
        start += len(index)
    COCO.write(packed, folder)
    return Packed(
        images=len(done),
        resumed=sum(result.resumed for result in done),
        bytes_before=sum(result.bytes_before for result in done),
        bytes_after=sum(result.bytes_after for result in done),
    )


def _begin(folder: Path, settings: dict[str, Any]) -> None:
    """Write down what is being packed into `folder`, or see that it is the same as before."""
    state = folder / _STATE
    if state.is_file():
        before = read_json(state)
        if before != settings:
            raise UserError(
                f"{folder} contains a dataset packed with other settings: {before}.",
                expected=f"{settings}, or an empty folder",
                fix="remove it or choose another",
            )
        return
    require_new_folder(folder)
    write_json(state, settings)


def _pack(job: _Job) -> _Done:
    """Write one packed image, unless it is there and no older than its source."""
    try:
        stat = job.source.stat()
        if job.destination.is_file() and job.destination.stat().st_mtime_ns >= stat.st_mtime_ns:
            after = read_size(job.destination)
            return _Done("", after, True, stat.st_size, job.destination.stat().st_size)
        data = read_bytes(job.source)
        after, packed = _shrink(data, job)
    except UserError as error:
        return _failed(error.problem)
    write_bytes(job.destination, packed)
    return _Done("", after, False, len(data), len(packed))


def _failed(fault: str) -> _Done:
    return _Done(fault, (0, 0), False, 0, 0)


def _shrink(data: bytes, job: _Job) -> tuple[tuple[int, int], bytes]:
    """Return the new (height, width) and the JPEG's bytes; a plain JPEG that is small enough stays as it is."""
    header = parse_header(data)
    plain = header is not None and header.kind == "jpeg" and header.orientation == 1 and header.channels != 4
    image = decode(data, where=str(job.source))
    height, width = image.shape[:2]
    ratio = job.size / max(height, width)
    if plain and ratio >= 1:
        return (height, width), data
    if ratio < 1:
        new_size = max(1, round(width * ratio)), max(1, round(height * ratio))
        image = np.asarray(cv2.resize(image, new_size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=job.quality, colorspace="RGB", colorsubsampling="420"
    )
    return (image.shape[0], image.shape[1]), encoded
