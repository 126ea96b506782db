"""Parquet: reading a column of images piece by piece, and writing results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eyas.errors import UserError, missing_extra
from eyas.files import open_regular
from eyas.text import to_utf8

_ROWS = 16  # images that are taken out of a parquet file at once
GROUP = 8192  # images in a row group of the results


@contextmanager
def open_parquet(path: Path, below: Sequence[Path] = ()) -> Iterator[Any]:
    """Give a `pyarrow.parquet.ParquetFile`.

    Args:
        path: the file.
        below: where it must lie, see `eyas.files.open_regular`.

    Raises:
        UserError: it can't be read, is no file or lies elsewhere, or pyarrow is not installed.
    """
    arrow = _pyarrow()
    from pyarrow import parquet

    try:
        with open_regular(path, below=below) as file, parquet.ParquetFile(file) as table:
            yield table
    except (arrow.ArrowException, OSError) as error:
        raise UserError(f"The parquet file can't be read: {error}", where=str(path)) from None


def column_values(path: Path, column: str, group: int, below: Sequence[Path] = ()) -> Iterator[Any]:
    """Yield the column's values from a row group on; a few are held at once."""
    with open_parquet(path, below) as table:
        for each in range(group, table.metadata.num_row_groups):
            for batch in table.iter_batches(batch_size=_ROWS, row_groups=[each], columns=[column]):
                yield from batch.column(0).to_pylist()


class ParquetResults:
    """A parquet file of results that grows row group by row group.

    Args:
        path: where to write it.
        about: text that goes into the file's metadata.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        arrow = _pyarrow()
        from pyarrow import parquet

        box = arrow.list_(arrow.float32(), 4)
        fields = {
            "name": arrow.string(),
            "index": arrow.int64(),
            "height": arrow.int32(),
            "width": arrow.int32(),
            "boxes": arrow.list_(box),
            "scores": arrow.list_(arrow.float32()),
            "labels": arrow.list_(arrow.int32()),
            "classes": arrow.list_(arrow.string()),
            "error": arrow.string(),
        }
        self._schema = arrow.schema(list(fields.items()), metadata=dict(about))
        self._writer = parquet.ParquetWriter(path, self._schema, compression="zstd")
        self._arrow = arrow
        self._waiting: list[dict[str, Any]] = []

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows as they lie in a part."""
        for row in rows:
            found = row.get("detections", [])
            self._waiting.append(
                {
                    **{key: row.get(key) for key in ("index", "height", "width")},
                    **{key: _text(row.get(key)) for key in ("name", "error")},
                    "boxes": [one["box"] for one in found],
                    "scores": [one["score"] for one in found],
                    "labels": [one["label"] for one in found],
                    "classes": [one["class"] for one in found],
                }
            )
            if len(self._waiting) == GROUP:
                self._flush()

    def close(self) -> None:
        """Write what waits, and the footer."""
        if self._waiting:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(self._arrow.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()


def _text(value: str | None) -> str | None:
    return None if value is None else to_utf8(value)


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError:
        raise missing_extra("pyarrow", "predict") from None
    return pyarrow
