from __future__ import annotations

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from eyas.benchmark.chart import save_chart
from eyas.benchmark.load.chart import decades, draw_load
from eyas.benchmark.load.generator import TIMED_OUT, Played, RequestSample
from eyas.benchmark.load.report import LoadReport, percentile, summarize
from eyas.errors import UserError
from eyas.machine.processor import processor


def played(latencies: list[float], status: int = 200, lag: float = 0.0) -> list[RequestSample]:
    return [RequestSample(0.01 * i, 0.01 * i + lag, 0.01 * i + latency, status) for i, latency in enumerate(latencies)]


def test_goodput_counts_all_requests_and_percentiles_only_the_answered() -> None:
    fast, slow = played([0.010] * 98), played([0.2, 0.2])
    refused, silent = played([0.001] * 60, 429), played([9.0] * 40, TIMED_OUT)
    step = summarize(Played([*fast, *slow, *refused, *silent], 2.0, busy=0.25), goal=0.1, load=1.5)
    assert step.goodput == 98 / 200
    assert (step.offered, step.served, step.good) == (100.0, 50.0, 49.0)
    assert step.codes == {"200": 100, "429": 60, "timeout": 40}
    assert (step.p50, step.p99, step.p999) == pytest.approx((10.0, 200.0, 200.0))
    assert (step.load, step.requests, step.busy, step.limited) == (1.5, 200, 0.25, False)


def test_latency_counts_from_the_intended_start() -> None:
    step = summarize(Played([RequestSample(1.0, 1.5, 1.6, 200)], 2.0), goal=1.0)
    assert step.p50 == pytest.approx(600.0)
    assert step.lag_max == pytest.approx(500.0)


@pytest.mark.parametrize(
    ("lag", "busy", "limited"), [(0.004, 0.5, False), (0.006, 0.5, True), (0.0, 0.95, True), (0.0, 0.85, False)]
)
def test_the_generator_says_when_it_was_the_bottleneck(lag: float, busy: float, limited: bool) -> None:
    step = summarize(Played(played([0.02] * 200, lag=lag), 2.0, busy), goal=0.1)
    assert step.limited is limited
    assert bool(report(step).notes) is limited


def test_what_was_sent_late_lowers_the_rate_that_was_sent() -> None:
    samples = [RequestSample(0.1 * i, 0.2 * i, 0.2 * i, 200) for i in range(11)]
    step = summarize(Played(samples, 1.0), goal=1.0)
    assert (step.offered, step.sent) == (11.0, 5.5)


def test_percentiles() -> None:
    assert [percentile(list(range(1, 101)), share) for share in (0.5, 0.99, 0.999, 1.0)] == [50, 99, 100, 100]
    assert percentile([7.0], 0.01) == 7.0
    assert math.isnan(percentile([], 0.5))


def report(*steps: object) -> LoadReport:
    return LoadReport("stub", 100.0, "poisson", 100.0, 4, steps, processor(), "1 image", "2026-01-01", "0")  # type: ignore[arg-type]


def test_the_report_can_be_written_even_where_nobody_was_answered(tmp_path: Path) -> None:
    step = summarize(Played(played([1.0] * 5, 429), 1.0), goal=0.1, load=2.0)
    report(step).save(tmp_path / "load.json")
    read = json.loads((tmp_path / "load.json").read_text())
    assert read["steps"][0]["p99"] is None
    assert read["steps"][0]["codes"] == {"429": 5}
    assert draw_load([report(step)]).dtype == np.uint8


def test_the_chart_shows_a_line_for_each_server(tmp_path: Path) -> None:
    good = [summarize(Played(played([0.01] * 20 * n), 1.0), 0.1, n) for n in (1, 2, 3)]
    bad = [summarize(Played(played([0.5] * 20 * n), 1.0), 0.1, n) for n in (1, 2, 3)]
    alone, both = draw_load([report(*good)]), draw_load([report(*good), report(*bad)])
    orange = np.abs(both.astype(int) - (235, 140, 40)).sum(axis=2) < 30
    assert orange[:, : both.shape[1] // 2].sum() > 200
    assert orange[:, both.shape[1] // 2 :].sum() > 200
    assert not (np.abs(alone.astype(int) - (235, 140, 40)).sum(axis=2) < 30).any()
    save_chart(draw_load([report(*good)]), tmp_path / "load.png")
    assert cv2.imread(str(tmp_path / "load.png")) is not None
    with pytest.raises(UserError):
        save_chart(draw_load([report(*good)]), tmp_path / "load.jpg")


def test_decades() -> None:
    assert decades(0.9, 30.0) == [1, 2, 5, 10, 20]
