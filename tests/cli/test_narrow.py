"""Tables on a terminal of 80 columns: no column, word or number is lost."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.benchmark.test_models import a_row

from eyas.benchmark.report import BenchReport
from eyas.cli import bench as bench_verb
from eyas.cli.main import main
from eyas.data.shapes import make_shapes
from eyas.runtime.machine import processor


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the terminal 80 columns wide."""
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
    for word in ("p50ms", "p90", "p99", "images/s", "ratio", "CPUms", "MiB", "decode", "preprocess", "inference",
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
