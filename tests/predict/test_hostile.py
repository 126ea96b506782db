"""Sources and job folders that somebody has tampered with: nothing is lost without a word, nothing waits or swells."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import struct
import tarfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet
from tests.predict.test_run import NUM, rows_of, run, write_images, write_video
from tests.serve.bundles import jpeg

from eyas.cli.main import main
from eyas.errors import UserError
from eyas.predict.job import Job
from eyas.predict.parts import plan


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "source", NUM)
    return tmp_path / "source"


BAD_NAME = b"caf\xe9.jpg"


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("workers", [0, 1])
def test_names_that_are_no_utf8_come_back(bundle: Path, folder: Path, tmp_path: Path, kind: str, workers: int) -> None:
    name = os.fsdecode(BAD_NAME)
    (folder / name).write_bytes(jpeg(123))
    (folder / f"broken-{name}").write_bytes(b"nothing")
    with tarfile.open(folder / f"t-{name}.tar", "w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(jpeg())
        archive.addfile(entry, io.BytesIO(jpeg()))
    write_video(tmp_path / "v.avi", 3)
    (tmp_path / "v.avi").rename(folder / f"v-{name}.avi")
    table = pyarrow.table({"path": ["0001.jpg"]})
    parquet.write_table(table, tmp_path / "p.parquet")
    (tmp_path / "p.parquet").rename(folder / f"p-{name}.parquet")
    out = tmp_path / f"out.{kind}"
    report = run(folder, bundle, out, workers=workers)
    assert (report.images, report.unreadable) == (NUM + 7, 1)
    assert report.problems[0][0] == r"broken-caf\udce9.jpg"
    if kind == "parquet":
        names = parquet.read_table(out).column("name").to_pylist()
        assert r"caf\udce9.jpg" in names and r"v-caf\udce9.jpg.avi" in names
        return
    text = out.read_bytes().decode("utf-8")
    found = [row["name"] for row in rows_of(out)] if kind == "jsonl" else [e["file_name"] for e in json.loads(text)]
    assert BAD_NAME in {os.fsencode(one) for one in found}
    assert os.fsencode(f"v-{name}.avi") in {os.fsencode(one) for one in found}


def test_a_source_whose_name_is_no_utf8(bundle: Path, folder: Path, tmp_path: Path) -> None:
    source = folder.rename(tmp_path / os.fsdecode(b"b\xfc"))
    assert run(source, bundle, tmp_path / "out.jsonl").images == NUM
    assert main(["predict", str(source), "--bundle", str(bundle), "--out", str(tmp_path / "o.jsonl")]) == 0


# ------------------------------------------------------------------------------------------- damaged job folders


@contextlib.contextmanager
def stopped_before_the_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a job save all its parts, and end before it writes its output."""
    with monkeypatch.context() as patch:
        patch.setattr("eyas.predict.run.write_results", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            yield


def first_part(job: Path) -> Path:
    return min((job / "parts").iterdir())


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off in a line": lambda data: data[: len(data) // 2],
    "cut off at a line": lambda data: data[: data.index(b"\n") + 1],
    "one bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "zeros": lambda data: bytes(len(data)),
    "twice": lambda data: data + data,
    "no text": lambda data: b"\xff\xfe" * 99,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("which", ["part", "plan"])
def test_what_is_damaged_is_made_again_and_that_is_told(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str, damage: str
) -> None:
    out, job = tmp_path / "out.jsonl", tmp_path / "out.jsonl.job"
    with stopped_before_the_end(monkeypatch):
        run(folder, bundle, out)
    path = first_part(job) if which == "part" else job / "plan.jsonl"
    path.write_bytes(DAMAGES[damage](path.read_bytes()))
    with pytest.warns(UserWarning, match="made again"):
        report = run(folder, bundle, out)
    assert (report.images, report.before) == (NUM, NUM - 3 if which == "part" else NUM)
    run(folder, bundle, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_parts_of_another_plan_are_not_believed(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.jsonl"
    with stopped_before_the_end(monkeypatch):
        run(folder, bundle, out)
    (tmp_path / "out.jsonl.job" / "plan.jsonl").write_text("")
    (folder / "0000-new.jpg").write_bytes(jpeg(7))
    with pytest.warns(UserWarning, match="belong to another plan"):
        run(folder, bundle, out)
    run(folder, bundle, tmp_path / "whole.jsonl")
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes() and len(rows_of(out)) == NUM + 1


def test_a_part_that_is_gone_is_made_again(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stopped_before_the_end(monkeypatch):
        run(folder, bundle, tmp_path / "out.jsonl")
    first_part(tmp_path / "out.jsonl.job").unlink()
    assert run(folder, bundle, tmp_path / "out.jsonl").before == NUM - 3
    assert len(rows_of(tmp_path / "out.jsonl")) == NUM


def test_a_part_that_is_damaged_just_before_the_end(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Job.lines

    def damaging(job: Job) -> Iterator[bytes]:
        first_part(job.folder).write_bytes(b"")
        return plain(job)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="damaged after it was saved") as error:
        patch.setattr(Job, "lines", damaging)
        run(folder, bundle, tmp_path / "out.jsonl")
    assert "run the same command again" in error.value.fix and not (tmp_path / "out.jsonl").exists()
    with pytest.warns(UserWarning, match="made again"):
        assert run(folder, bundle, tmp_path / "out.jsonl").images == NUM


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "{}", '{"sources": 1}', "\0" * 50])
def test_settings_that_are_damaged(
    bundle: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with stopped_before_the_end(monkeypatch):
        run(folder, bundle, tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl.job" / "job.json").write_text(text)
    with pytest.raises(UserError) as error:
        run(folder, bundle, tmp_path / "out.jsonl")
    assert "--restart" in error.value.fix
    assert run(folder, bundle, tmp_path / "out.jsonl", restart=True).images == NUM


# ------------------------------------------------------------------------------------------- what is no file


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def listen(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


STRANGE: dict[str, Callable[[Path], None]] = {
    "endless device": link("/dev/zero"),
    "silent device": link("/dev/null"),
    "random device": link("/dev/urandom"),
    "terminal": link("/dev/tty"),
    "pipe": lambda path: os.mkfifo(path),
    "link to a pipe": lambda path: (os.mkfifo(path.with_name(".pipe")), path.symlink_to(".pipe"))[1],
    "socket": listen,
    "link to nowhere": link("nowhere"),
    "link in a circle": lambda path: path.symlink_to(path.name),
    "kernel's file": link("/proc/kmsg"),
    "file without a size": link("/proc/self/environ"),
}


@pytest.mark.parametrize("strange", STRANGE)
def test_what_is_no_image_file_is_told_and_passed_over(
    bundle: Path, folder: Path, tmp_path: Path, strange: str
) -> None:
    STRANGE[strange](folder / "0001-strange.jpg")
    report = run(folder, bundle, tmp_path / "out.jsonl")
    assert (report.images, report.unreadable) == (NUM + 1, 1)
    assert report.problems[0][0] == "0001-strange.jpg"


@pytest.mark.parametrize("strange", STRANGE)
@pytest.mark.parametrize("suffix", [".tar", ".mp4", ".parquet"])
def test_containers_that_are_no_files(bundle: Path, folder: Path, tmp_path: Path, strange: str, suffix: str) -> None:
    path = folder / f"0001-strange{suffix}"
    STRANGE[strange](path)
    for source in (folder, path):
        with pytest.raises(UserError):
            run(source, bundle, tmp_path / "out.jsonl")


def test_only_what_lies_below_the_sources_is_read(bundle: Path, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    write_images(outside, 2)
    secret = outside / "0001.jpg"
    (folder / "inside.jpg").symlink_to("0001.jpg")
    (folder / "leaves.jpg").symlink_to(secret)
    (folder / "door").symlink_to(outside)
    parquet.write_table(
        pyarrow.table({"path": [
            "0001.jpg", str(folder / "0002.jpg"), "deep/../0002.jpg", "inside.jpg",
            str(secret), "../outside/0001.jpg", "deep/../../outside/0001.jpg", "door/0001.jpg", "leaves.jpg",
            "/dev/zero", "/proc/self/environ", "a\0b.jpg", "x" * 300, "", ".", "~/x.jpg", "file:///etc/passwd",
        ]}),
        folder / "list.parquet",
    )  # fmt: skip
    with pytest.warns(UserWarning, match="door is a link to a folder and is skipped"):
        rows = rows_of(run(folder, bundle, tmp_path / "out.jsonl").out)
    bad = {row["name"]: row["error"] for row in rows if "error" in row and "index" not in row}
    assert list(bad) == ["leaves.jpg"] and "--root" in bad["leaves.jpg"]
    listed = [row for row in rows if "index" in row]
    assert ["error" in row for row in listed] == [False] * 4 + [True] * 13
    with warnings.catch_warnings(action="ignore"):
        rows = rows_of(run(folder, bundle, tmp_path / "again.jsonl", roots=[outside]).out)
    assert [row["index"] for row in rows if "index" in row and "error" not in row] == list(range(9))
    assert "error" not in next(row for row in rows if row["name"] == "leaves.jpg")


def test_a_link_that_the_user_names_is_followed(bundle: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(folder / "0001.jpg")
    (tmp_path / "links").symlink_to(folder)
    assert run(tmp_path / "link.jpg", bundle, tmp_path / "a.jsonl").unreadable == 0
    assert run(tmp_path / "links", bundle, tmp_path / "b.jsonl").images == NUM
    assert (
        main(["predict", str(folder), "--bundle", str(bundle), "--out", str(tmp_path / "c.jsonl"), "--root", "x"]) == 2
    )


# ------------------------------------------------------------------------------------------- archives and tables


def tar_of(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    """Write an archive of (name, kind, size that the header says); the size is not kept."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, kind, size in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, "/etc/hostname", 0
            header = entry.tobuf(tarfile.GNU_FORMAT)
            if size:
                field = b"\x80" + size.to_bytes(11, "big") if size > 0 else b"\xff" + (2**88 + size).to_bytes(11, "big")
                header = header[:124] + field + header[136:]
                total = sum(header[:148]) + 256 + sum(header[156:])
                header = header[:148] + b"%06o\0 " % total + header[156:]
            archive.fileobj.write(header)  # type: ignore[union-attr]
            archive.offset += len(header)
        entry = tarfile.TarInfo("good.jpg")
        entry.size = len(jpeg())
        archive.addfile(entry, io.BytesIO(jpeg()))
    return path


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (("huge.jpg", tarfile.REGTYPE, 10**15), "can't be read"),
        (("back.jpg", tarfile.REGTYPE, -512), "can't be read"),
        (("long", tarfile.GNUTYPE_LONGNAME, 10**13), "can't be read"),
        (("pax", tarfile.XHDTYPE, 10**13), "can't be read"),
    ],
    ids=str,
)
def test_archives_whose_headers_lie(bundle: Path, tmp_path: Path, entry: tuple[str, bytes, int], told: str) -> None:
    with pytest.raises(UserError, match=told):
        run(tar_of(tmp_path / "x.tar", entry), bundle, tmp_path / "out.jsonl")


def test_members_that_are_no_files_are_no_images(bundle: Path, tmp_path: Path) -> None:
    kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
    path = tar_of(tmp_path / "x.tar", *((f"{i}.jpg", kind, 0) for i, kind in enumerate(kinds)))
    rows = rows_of(run(path, bundle, tmp_path / "out.jsonl").out)
    assert [row["name"] for row in rows] == ["x.tar/good.jpg"] and "error" not in rows[0]


def test_an_archive_that_shrank_meanwhile(bundle: Path, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "x.tar")
    part = next(plan([str(path)], 9))
    path.write_bytes(path.read_bytes()[:600])
    from eyas.predict.reading import PartReader

    (found,) = PartReader().read(part)
    assert isinstance(found.image, UserError)


def test_a_table_that_says_it_has_more_rows_than_it_can_hold(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    parquet.write_table(
        pyarrow.table({"image": [None] * 10**6}, schema=pyarrow.schema([("image", pyarrow.binary())])), path
    )
    with pytest.raises(UserError, match="1000000 rows, which it can't contain"):
        run(path, bundle, tmp_path / "out.jsonl")


def test_a_table_that_is_damaged_in_the_middle(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    rows = [jpeg(40 + i) for i in range(12)]
    parquet.write_table(pyarrow.table({"image": rows}), path, row_group_size=4, compression="zstd")
    start = parquet.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 64)
    report = run(path, bundle, tmp_path / "out.jsonl", part=4)
    found = rows_of(report.out)
    assert [row["index"] for row in found] == list(range(12))
    assert [i for i, row in enumerate(found) if "error" in row] == [4, 5, 6, 7]


def test_a_video_that_says_it_has_more_frames_than_it_can_hold(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    write_video(path, 5)
    data = bytearray(path.read_bytes())
    header, stream = data.index(b"avih") + 8, data.index(b"strh") + 8
    data[header + 16 : header + 20] = data[stream + 32 : stream + 36] = struct.pack("<I", 2**31 - 1)
    path.write_bytes(data)
    assert [row["index"] for row in rows_of(run(path, bundle, tmp_path / "out.jsonl").out)] == list(range(5))
