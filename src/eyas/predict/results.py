"""The output: one file, or a folder of files with so many images each; each gets its name when it is whole."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from eyas.boxes import xyxy_to_xywh
from eyas.errors import UserError
from eyas.files import atomic_path
from eyas.runtime.detection_formats import decimals
from eyas.runtime.like import ImageIds
from eyas.runtime.writers import read_ids
from eyas.text import json_text, to_utf8
from eyas.types import Id

Format = Literal["parquet", "jsonl", "coco"]
SUFFIXES: Mapping[str, Format] = {".parquet": "parquet", ".jsonl": "jsonl", ".json": "coco"}
ENDINGS: Mapping[Format, str] = {"parquet": ".parquet", "jsonl": ".jsonl", "coco": ".coco.json"}


class Results(Protocol):
    """A file of results that is being written."""

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add images, as they lie in a part."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


class JsonLines:
    """A line of JSON for each image."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add images."""
        self._file.writelines(json_text(row) + "\n" for row in rows)

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class CocoResults:
    """A COCO results file: an entry for each detection. Entries carry "file_name" (and "frame") beside COCO's fields.

    Args:
        path: where.
        first: how many images came before this file: ids go on counting, from 1.
        ids: (images, category id of each class) of an annotation file; None counts both from 1.
    """

    def __init__(self, path: Path, first: int, ids: tuple[ImageIds, Sequence[Id]] | None) -> None:
        self._file = path.open("w", encoding="utf-8")
        self._count = first
        self._ids = ids
        self._separator = "[\n"

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add images."""
        for row in rows:
            self._count += 1
            about: dict[str, Any] = {"file_name": row["name"]}
            if "index" in row:
                about["frame"] = row["index"]
            if "error" in row:
                continue
            found = row.get("detections", [])
            image: Id = self._count
            if self._ids is not None:  # frames of a video share its name
                image = self._ids[0].find(row["name"], once="index" not in row)
            boxes = np.array([one["box"] for one in found], np.float32).reshape(-1, 4)
            for one, box in zip(found, decimals(xyxy_to_xywh(boxes)), strict=True):
                fields = {"image_id": image, "category_id": self._category(one["label"])}
                entry = {**fields, "bbox": box, "score": one["score"], **about}
                self._file.write(self._separator + json_text(entry))
                self._separator = ",\n"

    def _category(self, label: int) -> Id:
        return label + 1 if self._ids is None else self._ids[1][label]

    def close(self) -> None:
        """Finish the file."""
        self._file.write("[]\n" if self._separator == "[\n" else "\n]\n")
        self._file.close()


def format_of(out: Path, given: str | None) -> Format:
    """Return the output's format: what was given, else what its name says.

    Raises:
        UserError: neither says one.
    """
    if given is not None:
        return next(kind for kind in ENDINGS if kind == given)
    found = SUFFIXES.get(out.suffix.lower())
    if found is None:
        raise UserError(
            f"The output name does not determine the format: {out.name}.",
            where="out",
            expected="a name ending in .parquet, .jsonl or .json (COCO results); or a folder and --format",
        )
    return found


def write_results(
    out: Path,
    kind: Format,
    lines: Iterable[bytes],
    classes: tuple[str, ...],
    *,
    shard: int | None = None,
    like: Path | None = None,
    about: Mapping[str, str] | None = None,
) -> list[tuple[str, str]]:
    """Write the output and return (name, problem) of each image that can't be read, the first thousand.

    Args:
        out: the file; with `shard`, the folder.
        kind: the format.
        lines: each image's line of JSON.
        classes: the model's class names.
        shard: images a file.
        like: a COCO annotation file whose ids are to be used.
        about: text for a parquet file's metadata.
    """
    ids = _like(like, classes) if like else None
    problems: list[tuple[str, str]] = []
    rows = _noting((json.loads(line) for line in lines), problems)
    first = 0
    written: list[Path] = []
    following = next(rows, None)
    while following is not None or not written:
        path = out if shard is None else out / f"{len(written):05d}{ENDINGS[kind]}"
        with atomic_path(path) as temporary, _opened(temporary, kind, first, ids, about) as results:
            end = None if shard is None else first + shard
            while following is not None and first != end:
                results.write([following])
                first += 1
                following = next(rows, None)
        written.append(path)
    if shard is not None:
        for path in set(out.glob(f"?????{ENDINGS[kind]}")) - set(written):
            path.unlink()  # of an earlier output that had more files
    return problems


def _like(path: Path, classes: tuple[str, ...]) -> tuple[ImageIds, list[Id]]:
    images, categories = read_ids(path, classes)
    return ImageIds(images, str(path)), categories


@contextmanager
def _opened(
    path: Path,
    kind: Format,
    first: int,
    ids: tuple[ImageIds, list[Id]] | None,
    about: Mapping[str, str] | None,
) -> Iterator[Results]:
    """Give a file of results, closed at the end."""
    results: Results
    if kind == "jsonl":
        results = JsonLines(path)
    elif kind == "coco":
        results = CocoResults(path, first, ids)
    else:
        from eyas.predict.tables import ParquetResults

        results = ParquetResults(path, about or {})
    try:
        yield results
    finally:
        results.close()


def _noting(rows: Iterable[dict[str, Any]], problems: list[tuple[str, str]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if "error" in row and len(problems) < 1000:
            name = to_utf8(row["name"])
            problems.append((name if "index" not in row else f"{name}#{row['index']}", row["error"]))
        yield row
