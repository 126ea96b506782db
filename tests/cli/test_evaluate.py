"""The command `eyas evaluate`, and the Python verb: classes by name, numbers, report, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.evaluation.colours import ColourSession, colour_detector, write_dataset

import eyas
import eyas.evaluation.run
from eyas.artifacts.run import Run, RunConfig
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.types import DETECT, EVALUATE, Thresholds

CLASSES = ("red", "green", "blue")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a dataset, where loading any run gives a detector of coloured rectangles."""
    write_dataset(tmp_path / "data")
    (tmp_path / "run").mkdir()
    Run(tmp_path / "run", RunConfig({}, CLASSES, colour_detector(CLASSES).input)).write()
    use(monkeypatch, CLASSES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def use(monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    """Make every run a detector of coloured rectangles with these classes; return where its arguments are noted."""
    calls: list[dict[str, Any]] = []

    def load(path: object, **options: Any) -> eyas.Detector:
        calls.append(options)
        return colour_detector(classes)

    monkeypatch.setattr("eyas.evaluation.run.load", load)
    return calls


def test_tables_and_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--data", "data"]) == 0
    printed = capsys.readouterr().out
    for word in ("AP_small", "AR_100", "average precision, mean over IoU", "red", "green", "blue", "1.000"):
        assert word in printed
    assert "5 images, 7 objects, 7 detections" in printed
    assert "report: run/evaluation/data-val/index.html" in printed
    assert (place / "run" / "evaluation" / "data-val" / "index.html").is_file()


def test_json_is_all_that_is_printed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run", "--data", "data", "--json", "--out", "there", "--batch", "2"]) == 0
    printed = capsys.readouterr()
    fields = json.loads(printed.out)
    assert printed.err == ""
    assert fields["metrics"]["AP"] == pytest.approx(1.0) and len(fields["metrics"]) == 12
    assert [row["name"] for row in fields["per_class"]] == list(CLASSES)
    assert fields["report"] == "there" and (place / "there" / "metrics.json").is_file()


def test_low_thresholds_and_the_size_reach_the_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = use(monkeypatch, CLASSES)
    eyas.evaluate("run", "data", size=256)
    assert [call["size"] for call in calls] == [256]
    thresholds = calls[0]["thresholds"]  # a function of the model's own
    assert thresholds(DETECT) == EVALUATE and thresholds(Thresholds(suppression="none")).suppression == "none"


@pytest.mark.parametrize(
    "order", [("blue", "red", "green"), ("green", "blue", "red"), ("green", "red", "blue", "grey")]
)
def test_another_order_of_classes_is_mapped_by_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[str, ...]
) -> None:
    use(monkeypatch, order)
    result = eyas.evaluate("run", "data", out="there")
    assert result.ap == pytest.approx(1.0) and result.classes == order
    boxes = dict(zip(order, result.class_boxes.tolist(), strict=True))
    assert {name: boxes[name] for name in CLASSES} == {"red": 2, "green": 3, "blue": 2}
    # The written detections carry the ids of the dataset: red is 10, whatever its place in the model.
    rows = json.loads(Path("there/detections.json").read_text())
    assert [row["category_id"] for row in rows if row["image_id"] == 101] == [12]
    warnings = json.loads(Path("there/metrics.json").read_text())["warnings"]
    assert [("grey" in line) for line in warnings] == ([True] if "grey" in order else [])


def test_unknown_classes_are_refused_before_any_work(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ColourSession, "run", None)
    use(monkeypatch, ("Red", "green", "blue"))
    assert main(["evaluate", "run", "--data", "data"]) == 2
    error = capsys.readouterr().err
    assert "'red' (2 boxes) (did you mean 'Red'?)" in error and "fix:" in error
    assert not (place / "run" / "evaluation").exists()


def test_mistakes_are_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--data", "nowhere"], "nowhere"),
        (["--data", "data", "--split", "tset"], "tset"),
        (["--data", "data", "--conf", "40"], "confidence threshold is 40"),
        (["--data", "data", "--batch", "0"], "batch size is 0"),
        (["--data", "data", "--sizes", "320"], "did you mean '--size'?"),
        ([], "--data"),
    ):
        assert main(["evaluate", "run", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_run_that_is_not_there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(UserError, match="There is no run"):
        eyas.evaluate(place / "rnu", place / "data")
    assert not (place / "rnu").exists()
