"""On any terminal: names that are no UTF-8 or control it, tables of 80 columns; no result, column or word is lost."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from tests.benchmark.test_models import a_row
from tests.data.cases import coco_root

from eyas.benchmark.report import BenchReport
from eyas.cli import bench as bench_verb
from eyas.cli.main import main
from eyas.data.shapes import make_shapes
from eyas.decode import read_image
from eyas.machine.processor import processor

# What a zip made on a Chinese Windows unpacks to, a Latin-1 name, a title for the terminal, a name of two lines.
NAMES = (b"\xd5\xd5\xc6\xac.jpg", b"caf\xe9.jpg", b"a\x1b]0;title\x07\x1b[2J.jpg", b"two\nlines.jpg")


def scene(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(np.kron(noise, np.ones((8, 8, 1), np.uint8)))))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        (folder / os.fsdecode(name)).write_bytes(scene(number))
    return folder


@pytest.fixture
def dataset(images: Path, tmp_path: Path) -> Path:
    root = tmp_path / "set"
    names = [os.fsdecode(name) for name in NAMES]
    for split in ("train", "val"):
        (root / split).mkdir(parents=True)
        for name in names:
            (root / split / name).write_bytes(scene(names.index(name) + 100 * (split == "val")))
        fields = {
            "images": [{"id": i, "file_name": name, "width": 64, "height": 64} for i, name in enumerate(names)],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1, "bbox": [8, 8, 40, 40], "area": 1600, "iscrowd": 0}
                for i in range(len(names))
            ],
            "categories": [{"id": 1, "name": "猫 =1+1"}],
        }
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(fields))
    return root


def quiet(capfd: pytest.CaptureFixture[str]) -> str:
    """Return what was printed, once it is sure that nothing in it controls a terminal."""
    out, err = capfd.readouterr()
    assert not [c for c in out + err if ord(c) < 32 and c not in "\n\t\r"], (out, err)
    return out + err


@pytest.mark.parametrize(
    "words",
    [
        ["check", "SET"],
        ["check", "SET", "--json", "OUT/c.json", "--chart", "OUT/c.png"],
        ["info", "SET", "--json"],
        ["show", "SET", "--out", "OUT/s.png"],
        ["convert", "SET", "OUT/voc", "--to", "voc"],
        ["convert", "SET", "OUT/yolo", "--to", "yolo"],
        ["convert", "SET", "OUT/coco", "--to", "coco"],
        ["split", "SET", "OUT/split", "--no-group"],
        ["pack", "SET", "OUT/pack"],
    ],
)
def test_data_sets(dataset: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: Sequence[str]) -> None:
    given = [word.replace("SET", str(dataset)).replace("OUT", str(tmp_path / "out")) for word in words]
    assert main(["data", *given]) == 0
    quiet(capfd)
    if words[0] in ("convert", "split", "pack"):  # what was written is read, and every image is found
        out = next(word for word in given if "out" in word and word != str(dataset))
        assert main(["data", "info", out, "--json"]) == 0
        splits = json.loads(quiet(capfd))["splits"]
        assert sum(split["images"] for split in splits.values()) == 2 * len(NAMES)
    if words[-1].endswith(".json"):
        json.loads(Path(given[-1]).read_text(encoding="utf-8"))
    if words[0] == "show":
        assert read_image(given[-1]).std() > 1


def test_detect(images: Path, example_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    run = str(example_folder / "runs/quickstart")
    options = ["--conf", "0.001", "--save-json", "r.json", "--save-txt", "--out", str(out)]
    assert main(["detect", run, str(images), *options]) == 0
    quiet(capfd)
    found = json.loads((out / "r.json").read_bytes().decode("utf-8"))
    assert {entry["file_name"] for entry in found} == {os.fsdecode(name) for name in NAMES}
    assert len(list(out.glob("*.jpg"))) == len(list((out / "labels").glob("*.txt"))) == len(NAMES)


def test_a_file_that_is_not_there_is_named_without_being_obeyed(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "run\x1b[31m", "caf\udce9\x1b[2J"]) == 2
    assert r"\x1b[" in quiet(capfd)


def test_a_terminal_of_few_letters_gets_escapes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import io
    import sys

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    root = coco_root(tmp_path / "ü猫")
    assert main(["data", "info", str(root)]) == 0
    sys.stdout.flush()
    assert b"\\xfc\\u732b" in raw.getvalue().replace(b"\n", b"")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def joined(text: str) -> str:
    """Return the text without blanks, so that what goes on in the next line of a narrow column is found."""
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    return re.sub(r"\s", "", text)


def test_bench_with_streams(capsys: pytest.CaptureFixture[str]) -> None:
    changes = {"stream_per_second": 123.4, "stream_gain": 1.23, "threads": 16, "batch": 32, "memory": 2**31}
    rows = tuple(a_row(name, 1234.5, **changes) for name in ("yolo-nas-small-openvino-int8", "n"))
    bench_verb.show(BenchReport(rows, processor(), "2 images", 5, "2026", "1"))
    lines = capsys.readouterr().out.split("\n", 1)[1].split("ONNX")[0]
    text = joined(lines)
    for word in ("p50ms", "p90", "p99", "img/s", "ratio", "CPUms", "MiB", "decode", "preprocess", "inference",
                 "postprocess", "stream/s", "gain", "123.4", "1.23", "1234.50", "2048", "90%"):  # fmt: skip
        assert word in text, word


def test_the_check_of_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_shapes(tmp_path / "set", train=6, val=3, size=128)
    annotations = tmp_path / "set" / "annotations"
    for path in annotations.iterdir():
        text = path.read_text().replace('"circle"', '"a_class_whose_name_is_much_longer_than_any_column_may_be_here"')
        path.write_text(text)
    assert main(["data", "info", str(tmp_path / "set")]) == 0
    out = capsys.readouterr().out
    text = joined(out.split("\n", 1)[1])
    for word in ("images", "noboxes", "boxes", "mean", "most", "crowds", "longestside", "train", "val", "medium",
                 "side5%", "<4px", "a_class_whose_name_is_much_longer"):  # fmt: skip
        assert word in text, word


def test_a_model_of_the_registry(example_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    registry = str(example_folder / "registry")
    assert main(["registry", "show", "shapes", "--registry", registry]) == 0
    out = capsys.readouterr().out
    text = joined(out)
    for word in ("version", "added", "bundle", "target", "precision", "mAP", "aliases", "champion", "challenger"):
        assert word in text, word
