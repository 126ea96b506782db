"""The report folder: every file is there, says the numbers that were computed, and can be read by other tools."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.evaluation.colours import colour_detector, write_dataset

from eyas.data.formats import load_dataset
from eyas.errors import UserError
from eyas.evaluation.coco import METRICS
from eyas.evaluation.report import Subject
from eyas.evaluation.run import EvaluationReport, evaluate_detector
from eyas.evaluation.tables import cell

CHARTS = (
    "precision_recall.png", "f1_confidence.png", "per_class_ap.png", "size_breakdown.png", "confusion_matrix.png",
    "worst_images.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    """A detector that sees no blue, so 5 of 7 objects are found and two images have an error each."""
    root = write_dataset(tmp_path_factory.mktemp("colours"))
    subject = Subject("<Evaluation> & more", {"model": "runs/<b>colours</b>"}, ("Mind the blue.",))
    index = load_dataset(root, "val")
    return evaluate_detector(colour_detector(blind=["blue"]), index, root / "report", subject=subject, batch=3)


def test_ids_that_are_no_small_integers_are_kept(tmp_path: Path) -> None:
    root = write_dataset(tmp_path)
    path = root / "annotations" / "instances_val.json"
    truth = json.loads(path.read_text())
    old = [image["id"] for image in truth["images"]]
    ids = dict(zip(old, ["0001", 2**63, -4, "b/c", '"'], strict=True))
    for image in truth["images"]:
        image["id"] = ids[image["id"]]
    for annotation in truth["annotations"]:
        annotation.update(image_id=ids[annotation["image_id"]], category_id=f"k{annotation['category_id']}")
    for category in truth["categories"]:
        category["id"] = f"k{category['id']}"
    plain = evaluate_detector(colour_detector(), load_dataset(write_dataset(tmp_path / "plain"), "val"), tmp_path / "p")
    path.write_text(json.dumps(truth))
    odd = evaluate_detector(colour_detector(), load_dataset(root, "val"), tmp_path / "o")
    assert odd.result.to_dict() == plain.result.to_dict()

    def results(folder: Path) -> set[tuple[object, str, str]]:
        entries = json.loads((folder / "detections.json").read_text())
        return {(each["image_id"], each["category_id"], str(each["bbox"])) for each in entries}

    expected = {(ids[image], f"k{category}", box) for image, category, box in results(plain.folder)}  # type: ignore[index]
    assert results(odd.folder) == expected


def test_numbers(evaluation: EvaluationReport) -> None:
    assert evaluation.result.class_ap.tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert evaluation.result.ap == pytest.approx(2 / 3)
    assert evaluation.warnings == ("Mind the blue.",)
    assert evaluation.best_confidence == pytest.approx(0.45)  # anything up to 0.9 is as good
    assert sorted(path.name for path in evaluation.folder.iterdir()) == sorted(
        [*CHARTS, "index.html", "metrics.json", "per_class.csv", "detections.json"]
    )


def test_metrics_json(evaluation: EvaluationReport) -> None:
    fields = json.loads((evaluation.folder / "metrics.json").read_text())
    assert fields["metrics"]["AP"] == evaluation.result.ap
    assert fields["counts"]["images"] == 5 and fields["counts"]["boxes"] == 7
    assert fields["confusion_matrix"]["classes"] == ["red", "green", "blue", "background"]
    assert fields["confusion_matrix"]["counts"] == [[2, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
    assert fields["at_confidence"] == pytest.approx(
        {"confidence": 0.25, "precision": 1.0, "recall": 2 / 3, "F1": 2 / 3}
    )
    assert fields["worst_images"] == [
        {"file": "val/1.png", "missed": 1, "false": 0},
        {"file": "val/2.png", "missed": 1, "false": 0},
    ]
    assert fields["per_class"][2] == {
        "name": "blue", "boxes": 2, "predictions": 0, "AP": 0.0, "AP50": 0.0, "AR_100": 0.0, "precision": None,
        "recall": 0.0, "F1": 0.0, "best_confidence": None, "best_F1": 0.0,
    }  # fmt: skip
    assert fields["warnings"] == ["Mind the blue."] and fields["unreadable"] == []
    assert len(fields["curves"]["precision_iou50"]) == 3


def test_class_table(evaluation: EvaluationReport) -> None:
    rows = list(csv.DictReader(io.StringIO((evaluation.folder / "per_class.csv").read_text())))
    assert [row["name"] for row in rows] == ["red", "green", "blue"]
    assert float(rows[0]["AP"]) == pytest.approx(1.0) and rows[2]["precision"] == ""


def test_detections_are_coco_results_with_the_ids_of_the_source(evaluation: EvaluationReport) -> None:
    """Another tool that reads the dataset and this file comes to the same numbers."""
    root = evaluation.folder.parent
    results = json.loads((evaluation.folder / "detections.json").read_text())
    assert {row["category_id"] for row in results} == {10, 11} and {row["image_id"] for row in results} == {
        100,
        102,
        104,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(root / "annotations" / "instances_val.json"))
        engine = COCOeval(truth, truth.loadRes(results), "bbox")
        engine.evaluate()
        engine.accumulate()
        engine.summarize()
    ours = [evaluation.result.metrics[name] for name in METRICS]
    assert np.allclose(np.nan_to_num(ours, nan=-1.0), engine.stats, atol=1e-9)


@pytest.mark.parametrize("name", CHARTS)
def test_images_show_something(evaluation: EvaluationReport, name: str) -> None:
    image = cv2.imread(str(evaluation.folder / name))
    assert image is not None and min(image.shape[:2]) > 150 and image.std() > 8


def test_worst_images_show_what_was_missed_in_red(evaluation: EvaluationReport) -> None:
    sheet = cv2.imread(str(evaluation.folder / "worst_images.png"))[:, :, ::-1].astype(int)
    truth, prediction = sheet[: sheet.shape[0] // 2, : sheet.shape[1] // 4], sheet[:, sheet.shape[1] // 4 :][:200, :400]

    def has(image: np.ndarray, colour: tuple[int, int, int]) -> bool:
        return bool((np.abs(image - np.array(colour)) < 6).all(axis=2).sum() > 200)

    assert has(truth, (255, 72, 72)) and not has(truth, (64, 200, 96))  # 1.png: its one object was missed
    assert not has(prediction, (255, 72, 72)) and not has(prediction, (64, 200, 96))


class Balance(HTMLParser):
    """Checks that tags are closed in order, and gathers text and sources."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_page_stands_alone(evaluation: EvaluationReport) -> None:
    page = (evaluation.folder / "index.html").read_text()
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.sources) == len(CHARTS)
    assert all(source.startswith("data:image/png;base64,") for source in parser.sources)
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    text = " ".join(parser.text)
    assert "<Evaluation> & more" in text and "runs/<b>colours</b>" in text and "b" not in parser.tags[:8]  # escaped
    assert "Mind the blue." in text and "5 images, 7 objects, 3 classes" in text
    assert cell(evaluation.result.ap) in text and all(name in text for name in METRICS)


def test_detector_that_finds_nothing_has_a_report_too(tmp_path: Path) -> None:
    index = load_dataset(write_dataset(tmp_path / "data"), "val")
    evaluation = evaluate_detector(colour_detector(blind=["red", "green", "blue"]), index, tmp_path / "report")
    assert evaluation.result.ap == 0.0 and len(list((tmp_path / "report").iterdir())) == 10
    assert json.loads((tmp_path / "report" / "detections.json").read_text()) == []


def test_what_cannot_work_is_refused_before_the_detector_runs(tmp_path: Path) -> None:
    index = load_dataset(write_dataset(tmp_path / "data"), "val")

    def never(images: object) -> list:
        raise AssertionError("the detector ran")

    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file is in the way"):
        evaluate_detector(never, index, tmp_path / "file")
    with pytest.raises(UserError, match="no images"):
        evaluate_detector(never, index.subset([]), tmp_path / "report")
    with pytest.raises(UserError, match="confidence threshold is 25"):
        evaluate_detector(never, index, tmp_path / "report", confidence=25)
    with pytest.raises(UserError, match="batch size is 0"):
        evaluate_detector(never, index, tmp_path / "report", batch=0)
