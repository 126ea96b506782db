"""The race's scorer, statistics and tables; its trainings are not run by the tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks import race, race_report
from benchmarks.race_peer import MOST, plain_nms
from benchmarks.race_runs import Cell, Setting
from benchmarks.race_score import score

from eyas.boxes import pairwise_iou
from eyas.data.formats import load_dataset
from eyas.data.shapes import make_shapes
from eyas.errors import UserError


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("race") / "shapes", train=1, val=6, size=96)


def rows_of_truth(root: Path, names: list[str]) -> list[list[Any]]:
    index = load_dataset(root, "val")
    labels = [names.index(index.classes[label]) for label in index.labels]
    return [
        [index.path(int(image)).name, *map(float, box), 0.5, label]
        for image, box, label in zip(index.image_of_row(), index.boxes, labels, strict=True)
    ]


def written(path: Path, names: list[str], rows: list[list[Any]], **more: float) -> Path:
    path.write_text(json.dumps({"names": dict(enumerate(names)), "rows": rows, **more}), encoding="utf-8")
    return path


def test_the_truth_is_scored_as_perfect_whatever_the_order_of_classes_and_images(data: Path, tmp_path: Path) -> None:
    names = sorted(load_dataset(data, "val").classes, reverse=True)
    rows = rows_of_truth(data, names)[::-1]
    found = score(written(tmp_path / "a.json", names, rows, AP=0.25, AP50=0.5), data, "val")
    assert found["AP"] == pytest.approx(1) and found["images"] == 6 and found["own_AP"] == 0.25
    half = score(written(tmp_path / "b.json", names, rows[::2]), data, "val")
    assert 0 < half["AP"] < 1 and "own_AP" not in half
    assert score(written(tmp_path / "c.json", names, []), data, "val")["AP"] == 0


@pytest.mark.parametrize("kind", ["image", "class"])
def test_detections_of_something_else_are_refused(kind: str, data: Path, tmp_path: Path) -> None:
    names = list(load_dataset(data, "val").classes)
    rows = rows_of_truth(data, names)
    if kind == "image":
        rows[0][0] = "another.jpg"
    else:
        names.append("dog")
    with pytest.raises(UserError, match="has not"):
        score(written(tmp_path / "a.json", names, rows), data, "val")


def test_the_stand_in_for_suppression_is_greedy_and_ends_at_the_limit() -> None:
    random = np.random.default_rng(0)
    corner = random.uniform(0, 200, (900, 2))
    boxes = np.concatenate([corner, corner + random.uniform(5, 80, (900, 2))], axis=1).astype(np.float32)
    scores = random.uniform(size=900).astype(np.float32)
    overlaps, expected = pairwise_iou(boxes, boxes), list[int]()
    for i in np.argsort(-scores, kind="stable").tolist():
        if not (overlaps[i, expected] > 0.5).any():
            expected.append(i)
    for block in (7, 256):
        kept = plain_nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.5, block).tolist()
        assert kept == expected[:MOST]
    assert plain_nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []


def test_an_interval_is_students() -> None:
    found = race_report.interval([50.0, 52.0, 54.0])
    assert found.mean == 52 and found.half == pytest.approx(4.303 * 2 / 3**0.5)
    assert str(race_report.interval([50.0])) == "50.0"


def results(ours: list[float], theirs: list[float], own: float = 0.0) -> dict[str, Any]:
    row = {"epochs": 9, "wall": 600.0, "cpu": 590.0, "share": 0.98, "load": 2.0}
    cells = {
        f"{net}/bccd/{seed}": {**row, "scores": {"val": {"AP": ap, "AP50": ap, **more}}}
        for net, aps, more in (("eyas", ours, {}), ("yolo11n", theirs, None))
        for seed, ap in enumerate(aps)
        for more in [{"own_AP": ap + own} if more is None else more]
    }
    return {"settings": {"size": 320, "minutes": 10.0, "device": "cpu", "eyas": ""}, "cells": cells}


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ([0.52, 0.521, 0.519], [0.40, 0.401, 0.399], "12.0 AP ahead of YOLO11n**, the better of the others; the "
         "intervals do not overlap"),
        ([0.52, 0.40, 0.46], [0.44, 0.38, 0.41], "the intervals overlap"),
        ([0.40, 0.401, 0.399], [0.52, 0.521, 0.519], "12.0 AP behind YOLO11n"),
        ([0.52], [0.40], "one seed: no intervals"),
    ],
)  # fmt: skip
def test_the_page_says_who_is_ahead(ours: list[float], theirs: list[float], said: str) -> None:
    assert said in race_report.tables(results(ours, theirs))


def test_the_page_tells_a_peer_that_disagrees_and_a_cell_that_failed() -> None:
    assert "differs by 0.40 at most (within 0.5)" in race_report.tables(results([0.5], [0.4], 0.004))
    found = results([0.5], [0.4], 0.02)
    found["cells"]["yolo11n/bccd/1"] = {"failed": "out of memory"}
    text = race_report.tables(found)
    assert "**not within** 0.5" in text and "- yolo11n/bccd/1: out of memory" in text


def test_the_page_holds_the_time_of_an_image_against_eyas() -> None:
    found = results([0.5], [0.4])
    ours = {"jpeg_ms": 10.0, "decoded_ms": 8.0, "engine_ms": 5.0, "rounds": 6}
    theirs = {"jpeg_ms": 20.0, "decoded_ms": 12.0, "engine_ms": 10.0, "rounds": 6}
    found["latency"] = {"eyas/bccd/0": ours, "yolo11n/bccd/0": theirs, "yolo26n/bccd/0": {"failed": "no exporter"}}
    text = race_report.tables(found)
    assert "| YOLO11n | bccd | 20.00 (2.00) | 12.00 (1.50) | 10.00 (2.00) | 6 |" in text
    assert "| YOLO26n | bccd | not measured: no exporter |" in text


def test_the_page_has_its_marks() -> None:
    text = race_report.PAGE.read_text(encoding="utf-8")
    assert text.count(race_report.BEGIN) == text.count(race_report.END) == 1


def raced(out: Path, monkeypatch: pytest.MonkeyPatch, share: float, broken: str = "", **options: Any) -> list[str]:
    """Run a race of two nets and two seeds whose trainings take no time; return the cells that were trained."""
    trained: list[str] = []

    def train(setting: Setting, cell: Cell, lane: int) -> dict[str, Any]:
        trained.append(cell.key)
        if cell.key == broken:
            raise UserError("It broke.")
        return {"wall": 10.0, "cpu": 10 * share, "share": share, "load": 2.0, "epochs": 3}

    monkeypatch.setattr(race, "train", train)
    monkeypatch.setattr(race, "scored", lambda setting, cell, lane, split: {"AP": 0.5, "AP50": 0.6})
    splits = options.pop("splits", ("val",))
    setting = Setting({"set": out.parent}, "python", options.pop("minutes", 1.0), 320, "cpu", "", splits, out.parent)
    cells = [Cell(net, "set", seed) for seed in (0, 1) for net in ("eyas", "yolo11n")]
    race.Race(setting, cells, out, 0.9, options.pop("repeat", False)).run(1)
    return trained


@pytest.mark.skipif(sys.platform != "linux", reason="pins threads to cores")
def test_a_race_does_again_what_failed_or_was_disturbed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "race.json"
    assert raced(out, monkeypatch, 0.99, broken="eyas/set/1") == [
        "eyas/set/0", "yolo11n/set/0", "eyas/set/1", "yolo11n/set/1",
    ]  # fmt: skip
    assert json.loads(out.read_text("utf-8"))["cells"]["eyas/set/1"]["failed"].startswith("It broke.")
    assert raced(out, monkeypatch, 0.5) == ["eyas/set/1"]
    assert raced(out, monkeypatch, 0.99, splits=("val", "test")) == []
    assert set(json.loads(out.read_text("utf-8"))["cells"]["eyas/set/0"]["scores"]) == {"val", "test"}
    assert raced(out, monkeypatch, 0.99, repeat=True) == ["eyas/set/1"]
    with pytest.raises(UserError, match="other settings"):
        raced(out, monkeypatch, 0.99, minutes=2.0)
