"""`eyas.bench`: models in processes of their own, by turns; what it reports is what was measured, and errors arrive."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import psutil
import pytest
from tests.artifacts.test_manifest import manifest_of, small_model
from tests.runtime.fakes import colour_detector, write_jpeg, write_run

import eyas
from eyas.benchmark import models as bench_module
from eyas.benchmark.chart import draw_report, save_chart, tick_step
from eyas.benchmark.images import MOST, find_images, made_up_image, write_images
from eyas.benchmark.models import notes
from eyas.benchmark.process import Process
from eyas.benchmark.report import (
    BenchRecord,
    BenchReport,
    BenchRow,
    Contender,
    Opened,
    name_models,
    pick_rounds,
    summarize,
)
from eyas.benchmark.resource_usage import STAGES, Meter, Round, Streamed
from eyas.benchmark.stage_timer import Cost, Moment, now, since
from eyas.benchmark.worker import BenchWorker
from eyas.cli.bench import parse_numbers
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.machine.processor import Processor

OPENED = Opened("Engine 1.0 on CPU", (640, 480), 4, 0.5, 0.1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a small graph for ONNX Runtime, which takes two images at once and finds two objects in white."""
    folder = tmp_path_factory.mktemp("bench") / "small"
    folder.mkdir()
    onnx.save(small_model(), folder / "model.onnx")
    manifest_of(folder).write(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two white images."""
    folder = tmp_path_factory.mktemp("images")
    return [write_jpeg(folder / f"{i}.jpg", np.full((64, 96, 3), 255, np.uint8)) for i in range(2)]


def one_round(ms: Sequence[float], *, images: int = 1, cpu: float = 0.0, waited: float | None = 0.0) -> Round:
    """Return a round of calls that took so long, all of it inference but a tenth for decoding."""
    calls = tuple((0.1 * value, 0.0, 0.9 * value, 0.0) for value in ms)
    return Round(calls, images * len(ms), 0, Cost(sum(ms) / 1000, cpu or sum(ms) / 1000, waited))


def a_row(name: str = "a", p50: float = 10.0, **changes: object) -> BenchRow:
    """Return a row."""
    record = BenchRecord(Contender(Path(name), 1, 1), OPENED, [one_round([p50] * 200)], memory=5 * 2**20)
    row = summarize([record])[0]
    return BenchRow(**{**vars(row), **changes})


def a_report(*rows: BenchRow) -> BenchReport:
    """Return a report of the rows."""
    machine = Processor("Test CPU", "x86_64", 2, 4.0, {"AVX2": True})
    return BenchReport(rows, machine, "4 images", 5, "2026-01-01T00:00:00+00:00", "0")


def test_bundle_and_run_side_by_side(bundle: Path, images: list[Path], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    steps: list[tuple[int, int, str]] = []
    report = eyas.bench(
        [bundle, run], threads=(1,), source=images, seconds=0.05, progress=lambda *step: steps.append(step)
    )
    small, torch = report.rows
    assert "ONNX Runtime" in small.opened.engine and "1 thread" in small.opened.engine
    assert "PyTorch" in torch.opened.engine and "1 thread," in torch.opened.engine
    assert small.found == 2 and small.opened.input == (96, 64) and small.opened.most_at_once == 2
    assert small.ratio == small.cpu_ratio == 1 and torch.ratio > 0 and torch.cpu_ratio > 0
    for row in report.rows:
        # A round has a call at least; a contender whose machine was busy is measured by the rounds that were fine.
        assert 0 < row.p50 <= row.p90 <= row.p99 and row.calls >= 1 and row.stream_per_second is None
        assert all(stage > 0 for stage in row.stages) and sum(row.shares) == pytest.approx(1)
        assert row.memory is not None and row.memory > 2**20
    assert torch.memory is not None and small.memory is not None and torch.memory > small.memory
    assert report.rounds == 5 and len(steps) == 2 + 2 * 5 + 1
    assert [done for done, _, _ in steps] == list(range(13)) and {total for _, total, _ in steps} == {12}
    turns = [what.split()[-1] for _, _, what in steps[2:-1]]
    assert turns[:4] == ["small", "run", "run", "small"]


def test_the_command_measures_batches_and_streams(
    bundle: Path, images: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, chart = tmp_path / "bench.json", tmp_path / "bench.png"
    words = ["bench", str(bundle), "--batch", "1,4", "--stream", "--seconds", "0.05", "--json", str(out)]
    assert main([*words, "--png", str(chart), "--source", str(images[0].parent)]) == 0
    told = capsys.readouterr().out
    report = json.loads(out.read_text())
    assert [row["batch"] for row in report["rows"]] == [1, 4] and report["images"] == "2 images"
    for row in report["rows"]:
        assert list(row["stages"]) == list(STAGES) and row["stream_per_second"] > 0 and row["stream_gain"] > 0
        assert row["found"] == 2
    assert "small takes at most 2 images at once" in told and "stream/s" in told and "p99" in told
    assert cv2.imread(str(chart)).shape[1] == 1100


def test_percentiles_shares_and_rates_are_of_the_calls() -> None:
    record = BenchRecord(Contender(Path("a"), 1, 2), OPENED, [one_round(range(1, 101), images=2)] * 3)
    (row,) = summarize([record])
    assert (row.p50, row.calls) == (pytest.approx(50.5), 300)
    assert row.p90 == pytest.approx(90.1, abs=0.2) and row.p99 == pytest.approx(99.0, abs=0.2)
    assert row.shares == pytest.approx((0.1, 0, 0.9, 0))
    assert row.per_second == pytest.approx(2 * 1000 / 50.5) and row.cpu_ms == pytest.approx(50.5 / 2)


def test_the_ratio_is_taken_within_rounds() -> None:
    """The machine gets slower and slower; the second is always twice as slow as the first beside it."""
    slow = (1, 2, 4, 8, 16)
    first = BenchRecord(Contender(Path("a"), 1, 1), OPENED, [one_round([10.0 * k]) for k in slow])
    second = BenchRecord(Contender(Path("b"), 1, 4), OPENED, [one_round([80.0 * k], images=4) for k in reversed(slow)])
    second.rounds.reverse()
    assert [row.ratio for row in summarize([first, second])] == [1, pytest.approx(2)]
    assert [row.cpu_ratio for row in summarize([first, second])] == [1, pytest.approx(2)]


def test_busy_rounds_are_left_out_where_enough_are_calm() -> None:
    calm, busy = one_round([10.0]), one_round([90.0], waited=0.9)
    (row,) = summarize([BenchRecord(Contender(Path("a"), 1, 1), OPENED, [calm, busy, calm, busy, calm, busy])])
    assert row.calm and (row.p50, row.p99, row.calls) == (10, 10, 3)
    assert row.starved == pytest.approx(2.7 / (2.7 + 0.3))
    (row,) = summarize([BenchRecord(Contender(Path("a"), 1, 1), OPENED, [calm, busy, busy, busy, busy])])
    assert not row.calm and row.p50 == 90 and row.calls == 5
    assert any("The machine was busy" in note for note in notes([row]))


def test_streaming_is_held_against_the_calls_of_the_same_round() -> None:
    record = BenchRecord(Contender(Path("a"), 1, 1), OPENED, [one_round([10.0]), one_round([20.0]), one_round([20.0])])
    record.streams = [Streamed(150, Cost(1, 1, 0)), Streamed(60, Cost(1, 1, 0)), Streamed(75, Cost(1, 1, 0))]
    (row,) = summarize([record])
    assert row.stream_per_second == 75 and row.stream_gain == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("fine", "expected"),
    [
        ([True], ([0], True)),
        ([False, True], ([0, 1], False)),
        ([True, False, True, True], ([0, 2, 3], True)),
        ([True, True] + 8 * [False], (list(range(10)), False)),
    ],
)
def test_which_rounds_count(fine: list[bool], expected: tuple[list[int], bool]) -> None:
    assert pick_rounds(fine) == expected


def test_the_stages_of_a_call_are_told_apart(tmp_path: Path) -> None:
    detector, session = colour_detector(seconds=0.05)
    meter = Meter(detector, [write_jpeg(tmp_path / "a.jpg")], batch=3)
    done = meter.round(0.0)
    assert (len(done.calls), done.images, done.found, session.batches) == (1, 3, 3, [3])
    assert done.calls[0][2] >= 50 and all(stage > 0 for stage in done.calls[0])
    assert done.cost.wall >= 0.05
    assert meter.stream(7).frames == 7 and session.batches == [3, 3, 3, 1]


def test_a_wait_that_is_no_work_costs_no_processor_time() -> None:
    start = now()
    time.sleep(0.05)
    cost = since(start)
    assert cost.wall >= 0.05 and cost.cpu < cost.wall
    assert Cost(1.0, 0.6, 0.2).starved == pytest.approx(0.25)
    assert Cost(1.0, 0.6, None).starved is None and Cost(1.0, 0.0, 0.0).starved == 0
    assert since(Moment(0.0, 0.0, None)).waited is None


def test_made_up_images_decode_like_photographs(tmp_path: Path) -> None:
    paths = write_images(tmp_path, 2)
    assert all(40e3 < path.stat().st_size < 200e3 for path in paths)  # COCO's are 50 to 250 kB of this size
    image = made_up_image(0)
    assert image.shape == (480, 640, 3) and not np.array_equal(image, made_up_image(1))
    assert 20 < image.std() < 90


def test_of_a_large_folder_some_images_are_taken(tmp_path: Path) -> None:
    for i in range(MOST + 30):
        (tmp_path / f"{i:03d}.jpg").touch()
    found = find_images(tmp_path)
    assert len(found) == MOST and found[0].name == "000.jpg" and found[-1].name == f"{MOST + 29:03d}.jpg"
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(UserError, match="no images"):
        find_images(tmp_path / "clip.mp4")


def test_an_error_of_the_process_is_the_users_error(tmp_path: Path, images: list[Path]) -> None:
    with pytest.raises(UserError, match="There is no run at"):
        Process(tmp_path / "gone", images)


def test_what_the_process_does(bundle: Path, images: list[Path]) -> None:
    worker = BenchWorker()
    job = {"path": str(bundle), "threads": 1, "size": None, "device": "cpu", "batch": 2, "images": [*map(str, images)]}
    about = worker({"do": "open", **job})
    assert about["most_at_once"] == 2 and about["input"] == [96, 64]
    assert worker({"do": "round", "seconds": 0.0})["found"] == 4
    assert worker({"do": "stream", "frames": 5})["frames"] == 5


def test_a_process_that_dies_is_told(bundle: Path, images: list[Path]) -> None:
    with Process(bundle, images, threads=1) as process:
        assert process.round(0.0).found == 2
        psutil.Process().children()[-1].kill()
        with pytest.raises(UserError, match=r"ended \(SIGKILL\)"):
            process.round(0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"threads": (0,)}, "threads is 0"),
        ({"batch": (1, -2)}, "batch is -2"),
        ({"batch": ()}, "No batch"),
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
    ],
)
def test_numbers_that_make_no_sense(changes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        bench_module.bench(tmp_path, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "0", "1,", "a", "1,0", "1 2", "-1"])
def test_lists_that_make_no_sense(text: str) -> None:
    with pytest.raises(UserError, match="--threads is"):
        parse_numbers(text, "threads")


def test_lists_on_the_command_line() -> None:
    assert parse_numbers("1,8,1", "batch") == (1, 8) and parse_numbers(None, "threads") == ()


def test_the_chart_shows_the_stages_to_scale() -> None:
    image = draw_report(a_report(a_row("long", 100.0), a_row("short", 50.0))).astype(int)
    blue = np.abs(image - [70, 130, 220]).sum(2) < 30  # inference
    rows = [int(line.sum()) for line in (blue[111], blue[177])]
    assert rows[0] == pytest.approx(2 * rows[1], rel=0.02) and rows[0] > 200
    yellow = np.abs(image - [246, 178, 60]).sum(2) < 30
    assert int(yellow[111].sum()) == pytest.approx(rows[0] / 9, abs=3)


def test_one_outlier_does_not_squeeze_the_chart() -> None:
    calm, wild = draw_report(a_report(a_row(p50=10, p99=20.0))), draw_report(a_report(a_row(p50=10, p99=900.0)))
    blue = [int((np.abs(one.astype(int) - [70, 130, 220]).sum(2) < 30)[111].sum()) for one in (calm, wild)]
    assert blue[0] == blue[1] > 200


def test_a_chart_is_a_png(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ending in \.png"):
        save_chart(draw_report(a_report(a_row())), tmp_path / "chart.pdf")
    assert main(["bench", "x", "--png", "chart.pdf"]) == 2


@pytest.mark.parametrize(("most", "step"), [(6, 1), (7, 2), (60, 10), (0.9, 0.2), (250, 50), (3.1, 1)])
def test_ticks_are_round(most: float, step: float) -> None:
    assert tick_step(most) == pytest.approx(step)


def test_notes_tell_what_the_numbers_do_not() -> None:
    assert list(notes([a_row(found=1.0)])) == []
    assert "Nothing was detected" in next(notes([a_row()]))
    told = " ".join(notes([a_row(calls=20, starved=None, found=1.0)]))
    assert "fewer than 100 calls" in told and "does not show whether" in told


def test_stages_add_up_to_the_median_call() -> None:
    """Half of the calls decode for long, the other half infer for long: the medians of both stages are of no call."""
    calls = ((9.0, 0.0, 2.0, 1.0), (2.0, 0.0, 9.0, 1.0), (9.0, 1.0, 2.0, 0.0)) * 20
    record = BenchRecord(Contender(Path("a"), 1, 4), OPENED, [Round(calls, 240, 0, Cost(1, 1, 0.0))])
    (row,) = summarize([record])
    assert sum(row.stages) == pytest.approx(row.p50) == pytest.approx(12.0)


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    bundle, run = tmp_path / "bundles" / "quickstart", tmp_path / "runs" / "quickstart"
    other = tmp_path / "old" / "quickstart"
    for path in (bundle, run, other):
        path.mkdir(parents=True)
    (bundle / "manifest.json").touch()
    assert name_models([bundle, run]) == {bundle: "quickstart (bundle)", run: "quickstart (run)"}
    assert name_models([bundle]) == {bundle: "quickstart"}
    assert len(set(name_models([bundle, run, other]).values())) == 3
    record = BenchRecord(Contender(run, 1, 1, "quickstart (run)"), OPENED, [one_round([1.0])])
    assert summarize([record])[0].name == "quickstart (run)"
