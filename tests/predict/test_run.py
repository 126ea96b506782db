"""Offline prediction: what a loop over the detector finds, each image once and in order, however it was stopped."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet
from tests.serve.bundles import jpeg, make_image

from eyas.errors import UserError
from eyas.predict.run import PredictProgress, PredictReport, predict
from eyas.runtime.detection_formats import to_dict
from eyas.runtime.loading import load

NUM = 10


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with images that differ, some of them deeper, and things that are none."""
    source = tmp_path / "source"
    write_images(source, NUM)
    (source / "notes.txt").write_text("no image")
    (source / ".hidden.jpg").write_bytes(jpeg())
    return source


def write_images(folder: Path, num: int) -> None:
    (folder / "deep").mkdir(parents=True)
    for i in range(num):
        (folder / ("deep" if i % 3 == 0 else ".") / f"{i:04d}.jpg").write_bytes(jpeg(40 + i % 200, 250 - i % 200))


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return the images of a file of JSON lines."""
    return [json.loads(line) for line in out.read_text().splitlines()]


def run(source: Path | Sequence[Path], bundle: Path, out: Path, **options: Any) -> PredictReport:
    return predict(source, bundle, out, **{"workers": 0, "part": 3, **options})


def looped(bundle: Path, folder: Path, names: Sequence[str]) -> list[Any]:
    """Return what a plain loop over the detector finds."""
    with load(bundle, threads=1) as detector:
        return [to_dict(detector(folder / name))["detections"] for name in names]


@pytest.mark.parametrize(("workers", "batch"), [(0, 1), (0, 2), (2, 1)])
def test_a_folder_is_what_a_loop_finds(bundle: Path, folder: Path, tmp_path: Path, workers: int, batch: int) -> None:
    report = run(folder, bundle, tmp_path / "out.jsonl", workers=workers, batch=batch)
    rows = rows_of(report.out)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg") if path.name[0] != ".")
    assert [row["name"] for row in rows] == sorted(names, key=lambda name: name.replace("deep/", "\uffff"))
    found = [[{k: v for k, v in one.items() if k != "label"} for one in row["detections"]] for row in rows]
    assert found == looped(bundle, folder, [row["name"] for row in rows])
    assert len({json.dumps(one) for one in found}) == NUM
    assert (report.images, report.before, report.unreadable) == (NUM, 0, 0)
    assert not (tmp_path / "out.jsonl.job").exists()


COMMAND = """
import sys
from eyas.predict.run import predict
predict(sys.argv[1], sys.argv[2], sys.argv[3], workers=int(sys.argv[4]), part=2)
"""


def saved_in(parts: Path) -> int:
    return len(list(parts.glob("[0-9]*.jsonl")))


@pytest.mark.parametrize("workers", [0, 2])
def test_killed_again_and_again_it_gives_the_same_bytes(bundle: Path, tmp_path: Path, workers: int) -> None:
    source, out, whole = tmp_path / "source", tmp_path / "out.parquet", tmp_path / "whole.parquet"
    write_images(source, 600)
    parts = tmp_path / "out.parquet.job" / "parts"
    command = [sys.executable, "-c", COMMAND, str(source), str(bundle), str(out), str(workers)]
    seen = 0
    for more in (1, 40):  # once at the very beginning, once later
        process = subprocess.Popen(command)
        while process.poll() is None and saved_in(parts) < seen + more:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it came to its end before it was killed"
        seen = saved_in(parts)
    report = predict(source, bundle, out, workers=workers, part=2)
    assert 2 * 41 <= report.before < report.images == 600
    predict(source, bundle, whole, workers=0, part=64)
    assert out.read_bytes() == whole.read_bytes()
    names = parquet.read_table(out).column("name").to_pylist()
    assert len(names) == len(set(names)) == 600


def test_ended_while_it_writes_its_output(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    run(folder, bundle, tmp_path / "whole.jsonl")
    monkeypatch.setattr("eyas.predict.run.Job.remove", lambda job: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(folder, bundle, out)
    monkeypatch.undo()
    assert out.exists()
    assert run(folder, bundle, out).before == NUM
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_what_cannot_be_read_is_told_and_limited(bundle: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "0001.jpg").write_bytes(jpeg()[:300])
    (folder / "0002.jpg").write_bytes(b"")
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="2 images can't be read, more than the allowed 1"):
        run(folder, bundle, out, max_unreadable=1)
    report = run(folder, bundle, out, max_unreadable=2)
    assert report.unreadable == 2 and report.before > 0
    assert [name for name, _ in report.problems] == ["0001.jpg", "0002.jpg"]
    rows = {row["name"]: row for row in rows_of(out)}
    assert len(rows) == NUM and "truncated or damaged" in rows["0001.jpg"]["error"]
    assert "empty" in rows["0002.jpg"]["error"] and "error" not in rows["0004.jpg"]


POISON = """
import os, signal
import eyas.decode
plain = eyas.decode.read_image
def read_image(path, **options):
    if "poison" in str(path):
        HOW
    return plain(path, **options)
eyas.decode.read_image = read_image
"""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed twice"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", r"crashed the process .* \(SIGSEGV\)"),
        ("raise MemoryError", r"needs more than [0-9]+ MB of memory"),
    ],
)
def test_an_image_that_ends_its_worker_is_left_out_and_what_it_did_is_told(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    (folder / "0005-poison.jpg").write_bytes(jpeg())
    (tmp_path / "sitecustomize.py").write_text(POISON.replace("HOW", how))
    monkeypatch.syspath_prepend(tmp_path)
    report = run(folder, bundle, tmp_path / "out.jsonl", workers=1)
    assert [name for name, _ in report.problems] == ["0005-poison.jpg"]
    assert re.search(told, report.problems[0][1])
    assert [len(row.get("detections", ())) > 0 for row in rows_of(report.out)].count(True) == NUM


def test_other_settings_are_refused_until_it_begins_again(bundle: Path, folder: Path, tmp_path: Path) -> None:
    (folder / "0001.jpg").write_bytes(b"")
    out = tmp_path / "out.jsonl"
    with pytest.raises(UserError, match="can't be read"):
        run(folder, bundle, out, max_unreadable=0)
    with pytest.raises(UserError, match=r"started with other settings: confidence was None, and is 0\.5"):
        run(folder, bundle, out, confidence=0.5)
    assert run(folder, bundle, out, confidence=0.5, restart=True).before == 0
    with pytest.raises(UserError, match="already exists"):
        run(folder, bundle, out)
    assert run(folder, bundle, out, overwrite=True).images == NUM


def test_two_processes_do_not_write_one_output(bundle: Path, folder: Path, tmp_path: Path) -> None:
    from eyas.predict.job import Job

    with Job(tmp_path / "out.jsonl").held(), pytest.raises(UserError, match="Another process"):
        run(folder, bundle, tmp_path / "out.jsonl")


def write_tar(path: Path, num: int) -> None:
    with tarfile.open(path, "w") as archive:
        for i in range(num):
            for name, data in ((f"{i}.jpg", jpeg(40 + i)), (f"{i}.json", b"{}")):
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def write_video(path: Path, num: int) -> None:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 64))
    for i in range(num):
        video.write(make_image(0, 40 + 20 * (i % 10)))
    video.release()


@pytest.mark.parametrize("workers", [0, 2])
def test_all_kinds_of_sources_in_one_folder(bundle: Path, tmp_path: Path, workers: int) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for i in range(4):
        (source / f"a{i}.jpg").write_bytes(jpeg(40 + i))
    write_tar(source / "b.tar", 5)
    write_video(source / "c.avi", 7)
    table = pyarrow.table({"image": [jpeg(40 + i) for i in range(8)]})
    parquet.write_table(table, source / "d.parquet", row_group_size=5)
    (source / "e.jpg").write_bytes(jpeg(99))
    out = source / "out.parquet"
    run(source, bundle, out, workers=workers)
    found = parquet.read_table(out)
    names, indices = found.column("name").to_pylist(), found.column("index").to_pylist()
    expected = [(f"a{i}.jpg", None) for i in range(4)] + [(f"b.tar/{i}.jpg", None) for i in range(5)]
    expected += [("c.avi", i) for i in range(7)] + [("d.parquet", i) for i in range(8)] + [("e.jpg", None)]
    assert list(zip(names, indices, strict=True)) == expected
    scores = [max(row) for row in found.column("scores").to_pylist()]
    for start, step in ((0, 1), (4, 1), (9, 20), (16, 1)):  # each image is the one that its name says
        np.testing.assert_allclose(scores[start : start + 4], [(40 + step * i) / 255 for i in range(4)], atol=0.02)
    assert found.schema.metadata[b"eyas.bundle"] == b"bundle"


def test_columns_of_parquet(bundle: Path, folder: Path, tmp_path: Path) -> None:
    cells: dict[str, list[Any]] = {
        "path": ["source/0001.jpg", "source/gone.jpg", None],
        "image": [{"bytes": jpeg(77), "path": None}, {"bytes": None, "path": "source/0002.jpg"}, None],
    }
    parquet.write_table(pyarrow.table(cells), tmp_path / "t.parquet")
    for column in cells:
        report = run(tmp_path / "t.parquet", bundle, tmp_path / f"{column}.jsonl", column=column)
        assert (report.images, report.unreadable) == (3, 2 if column == "path" else 1)
    with pytest.raises(UserError, match="no column 'x'"):
        run(tmp_path / "t.parquet", bundle, tmp_path / "x.jsonl", column="x")


def test_a_video_that_breaks_off(bundle: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "c.avi", 40)
    data = (tmp_path / "c.avi").read_bytes()
    (tmp_path / "c.avi").write_bytes(data[: len(data) // 2])
    report = run(tmp_path / "c.avi", bundle, tmp_path / "out.jsonl")
    rows = rows_of(report.out)
    assert [row["index"] for row in rows[:-1]] == list(range(len(rows) - 1)) and len(rows) > 5
    assert report.unreadable == 1 and "ends early" in rows[-1]["error"]


def test_shards_hold_the_same_images(bundle: Path, folder: Path, tmp_path: Path) -> None:
    whole = run(folder, bundle, tmp_path / "whole.jsonl").out
    out = run(folder, bundle, tmp_path / "many", format="jsonl", shard=4).out
    files = sorted(out.iterdir())
    assert [len(rows_of(path)) for path in files] == [4, 4, 2]
    assert b"".join(path.read_bytes() for path in files) == whole.read_bytes()
    run(folder, bundle, out, format="jsonl", shard=7, overwrite=True)
    assert [len(rows_of(path)) for path in sorted(out.iterdir())] == [7, 3]


def test_coco_results_with_an_annotation_file(bundle: Path, folder: Path, tmp_path: Path) -> None:
    images = [{"id": 100 + i, "file_name": f"{i:04d}.jpg"} for i in range(NUM)]
    categories = [{"id": 7, "name": "blue"}, {"id": 9, "name": "red"}]
    (tmp_path / "like.json").write_text(json.dumps({"images": images, "categories": categories}))
    lines = rows_of(run(folder, bundle, tmp_path / "out.jsonl").out)
    out = run(folder, bundle, tmp_path / "out.coco.json", like=tmp_path / "like.json").out
    entries = json.loads(out.read_text())
    assert len(entries) == sum(len(row["detections"]) for row in lines)
    first = lines[0]["detections"][0]
    assert entries[0]["image_id"] == 100 + int(Path(lines[0]["name"]).stem)
    assert entries[0]["category_id"] == {"red": 9, "blue": 7}[first["class"]]
    x0, y0, x1, y1 = first["box"]
    assert entries[0]["bbox"] == pytest.approx([x0, y0, x1 - x0, y1 - y0]) and entries[0]["score"] == first["score"]


def test_progress_counts_every_image(bundle: Path, folder: Path, tmp_path: Path) -> None:
    steps: list[PredictProgress] = []
    run(folder, bundle, tmp_path / "out.jsonl", workers=1, on_progress=steps.append)
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert (steps[-1].done, steps[-1].total) == (NUM, NUM)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("gone", "There is no file or folder"), ("empty", "nothing to predict on"), ("x.tar.gz", "compressed"),
     ("x.tar", "archive can't be read"), ("x.parquet", "parquet file can't be read"), ("x.mp4", "can't be opened")],
)  # fmt: skip
def test_sources_that_cannot_be_used(bundle: Path, tmp_path: Path, name: str, problem: str) -> None:
    (tmp_path / "empty").mkdir()
    if "." in name:
        (tmp_path / name).write_bytes(b"no such thing" * 100)
    with pytest.raises(UserError, match=problem):
        run(tmp_path / name, bundle, tmp_path / "out.jsonl")
    with pytest.raises(UserError, match="does not determine the format"):
        run(tmp_path, bundle, tmp_path / "out")


def test_ray_gives_the_same_bytes(bundle: Path, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="pip install 'eyas[cluster]'")
    run(folder, bundle, tmp_path / "here.parquet")
    run(folder, bundle, tmp_path / "ray.parquet", on="ray", workers=2)
    assert (tmp_path / "ray.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
