"""The reader reads on, back and ahead; a worker does what it is sent and ends when nobody listens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from tests.predict.test_run import write_images, write_video
from tests.serve.bundles import jpeg, write_bundle

from eyas.child_process import Child
from eyas.errors import UserError
from eyas.predict import worker
from eyas.predict.job import Job, Saved
from eyas.predict.parts import Part, plan, to_line
from eyas.predict.reading import PartReader
from eyas.predict.work import PredictSettings


def brightness(reader: PartReader, part: Part) -> list[int]:
    """Return the greatest value of each image of the part."""
    return [0 if isinstance(found.image, UserError) else int(found.image.max()) for found in reader.read(part)]


@pytest.mark.parametrize("kind", ["video", "parquet"])
def test_parts_in_any_order(tmp_path: Path, kind: str) -> None:
    if kind == "video":
        write_video(tmp_path / "c.avi", 10)
    else:
        table = pyarrow.table({"image": [jpeg(40 + 20 * i, 0) for i in range(10)]})
        parquet.write_table(table, tmp_path / "c.parquet", row_group_size=4)
    parts = list(plan([str(tmp_path)], 3))
    assert [(part.start, part.count) for part in parts] == [(0, 3), (3, 3), (6, 3), (9, 1)]
    fresh = [brightness(PartReader(), part) for part in parts]
    values = [value for part in fresh for value in part]
    assert all(abs(value - (40 + 20 * i)) < 8 for i, value in enumerate(values)) and len(values) == 10
    reader = PartReader()
    for index in (0, 1, 3, 2, 0, 2, 3):
        assert brightness(reader, parts[index]) == fresh[index]


def test_a_worker_does_what_it_is_sent(tmp_path: Path) -> None:
    write_images(tmp_path / "p", 4)
    (tmp_path / "out.job" / "parts").mkdir(parents=True)
    settings = asdict(PredictSettings(str(write_bundle(tmp_path / "bundle"))))
    part = next(plan([str(tmp_path / "p")], 9))
    with Child(worker.__name__) as child:
        first = {"settings": settings, "threads": 1, "device": "cpu", "out": str(tmp_path / "out"), "memory": 0}
        child.send(first)
        child.send({"part": to_line(part), "without": None})
        messages = [child.receive() for _ in range(6)]
        assert messages[:-1] == ["ready", 1, 2, 3, 4] and Saved(**messages[-1]) == Saved(0, 4, 0)
        assert Job(tmp_path / "out").saved() == {0: Saved(0, 4, 0)}
        child.close(60.0)
