"""Events, journal and traces: what is kept, what is not, and what happens when the disk is full."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.serve.fake import CLASSES, FakeEngine, encoded, make_image

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Request
from eyas.serve.observe import events, jsonl_log
from eyas.serve.observe.events import EventLog, EventSettings, Recent, image_statistics, summary
from eyas.serve.observe.histograms import MAX_CLASSES, MAX_MODELS
from eyas.serve.observe.jsonl_log import Journal
from eyas.serve.observe.metrics import Metrics
from eyas.serve.observe.tracing import open_telemetry, trace_of
from eyas.types import Detections

FOUND = Detections(
    np.array([[0, 0, 32, 24], [0, 0, 64, 48]], np.float32),
    np.array([0.95, 0.31], np.float32),
    np.array([0, 1]),
    CLASSES,
    48,
    64,
)
REQUEST = Request("a/b", "m", "", (encoded(suffix=".jpg"), make_image()))
ANSWER = Answer("a/b", ModelKey("m", "3"), (FOUND, FOUND[:0]))


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_an_event_tells_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "STATISTICS", 1.0)
    log = EventLog(EventSettings(tmp_path))
    log.detected(REQUEST, ANSWER, protocol="rest", trace="t")
    log.refused("c", "m", protocol="grpc", trace="t", outcome="overloaded")
    log.close()
    first, second = lines(tmp_path)
    assert (first["version"], first["outcome"], second["outcome"]) == ("3", "ok", "overloaded")
    assert isinstance(first["images"], list)
    one, two = first["images"]
    assert one["classes"] == {"bright": 1, "dark": 1} and one["scores"] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 1]
    assert one["brightness"] == pytest.approx(32 * 20 / (48 * 64), abs=0.05)
    assert one["area"] == pytest.approx((0.25 + 1.0) / 2) and two["detections"] == 0
    assert not (tmp_path / "images").exists()  # none unless asked for


def test_statistics_tell_images_apart() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    dark, sharp = image_statistics(make_image(box=None)), image_statistics(noise)
    assert dark["brightness"] == 0 and sharp["brightness"] == pytest.approx(0.5, abs=0.05)
    assert sharp["sharpness"] > dark["sharpness"] and sharp["contrast"] > 0.1
    assert image_statistics(b"damaged") == {}
    assert summary(FOUND[:0])["scores"] == [0] * 10


def test_kept_images_are_deleted_when_their_time_is_over(tmp_path: Path) -> None:
    log = EventLog(EventSettings(tmp_path, images=1.0, keep_seconds=50.0))
    log.detected(REQUEST, ANSWER, protocol="rest", trace="t")
    log.flush()
    kept = sorted((tmp_path / "images").iterdir())
    assert [path.suffix for path in kept] == [".jpg", ".png"] and kept[0].read_bytes() == REQUEST.images[0]
    assert all(path.parent == tmp_path / "images" for path in kept)  # the slash of the id leads nowhere
    for path in kept:
        os.utime(path, (0, 0))
    log._swept = 0.0
    log.detected(REQUEST, ANSWER, protocol="rest", trace="t")
    log.close()
    assert not set(kept) & set((tmp_path / "images").iterdir())


def test_a_clock_that_was_set_back_keeps_no_image_for_longer(tmp_path: Path) -> None:
    log = EventLog(EventSettings(tmp_path, images=1.0, keep_seconds=50.0))
    log.detected(REQUEST, ANSWER, protocol="rest", trace="t")
    log.flush()
    first = set((tmp_path / "images").iterdir())
    wrong = time.time() + 1e8  # the clock went wrong by years, and has been set right
    for path in first:
        os.utime(path, (wrong, wrong))
    log._swept = wrong
    log.detected(REQUEST, ANSWER, protocol="rest", trace="t")
    log.close()
    left = set((tmp_path / "images").iterdir())
    assert first and left and not first & left


@pytest.mark.parametrize(("size", "keep", "kept"), [(200, 50, 100), (20, 2, 3)])
def test_a_journal_rotates_and_loses_only_what_is_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, keep: int, kept: int
) -> None:
    monkeypatch.setattr(jsonl_log, "SIZE", size)
    monkeypatch.setattr(jsonl_log, "KEEP", keep)
    lost: list[int] = []
    journal = Journal(tmp_path / "log", lost.append)
    for number in range(100):
        journal.write({"number": number})
    journal.close()
    files = sorted(tmp_path.iterdir(), key=lambda path: len(path.name) * 100 + int("0" + path.suffix[1:]), reverse=True)
    assert len(files) <= keep + 1 and max(path.stat().st_size for path in files) <= size
    found = [json.loads(line)["number"] for path in files for line in path.read_text().splitlines()]
    assert found == list(range(100 - kept, 100)) and not lost


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_full_disk_loses_lines_and_nothing_else() -> None:
    lost: list[int] = []
    journal = Journal(Path("/dev/full"), lost.append)
    journal.write({"a": 1})
    journal.write({"a": 2})
    journal.close()
    assert lost == [1, 1]


def test_labels_do_not_grow_without_bound() -> None:
    metrics = Metrics(FakeEngine())
    names = tuple(f"class {number}" for number in range(MAX_CLASSES + 50))
    many = Detections(
        np.zeros((len(names), 4), np.float32), np.full(len(names), 0.5, np.float32), np.arange(len(names)), names, 1, 1
    )
    for number in range(MAX_MODELS + 20):
        metrics.answered(Answer("x", ModelKey("m", str(number)), (many if number == 0 else FOUND,)))
        metrics.outcome("rest", f"unknown {number}", "not_found")
    text = metrics.text().decode()
    assert text.count("eyas_detections_total{") <= MAX_CLASSES + 2 * MAX_MODELS
    assert 'class="other"' in text and 'version="other"' in text and "unknown" not in text


@pytest.mark.parametrize(
    ("header", "known"),
    [
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", True),
        ("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", True),
        ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more", False),
        ("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", False),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", False),
        ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01", False),
        ("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", False),
        ("nonsense", False),
        (None, False),
    ],
)
def test_a_trace_is_continued_or_begun(header: str | None, known: bool) -> None:
    found = trace_of(header)
    assert (found.trace == "0af7651916cd43dd8448eb211c80319c") is known
    assert trace_of(found.header).trace == found.trace and trace_of(found.header).parent == found.span


def test_spans_are_children_of_the_clients() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    otel.set_tracer_provider(provider)
    trace = trace_of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    with open_telemetry()(trace, "detect", {"eyas.model": "m"}):
        pass
    span = exporter.get_finished_spans()[0]
    assert span.parent is not None and span.attributes is not None
    assert format(span.context.trace_id, "032x") == trace.trace and format(span.parent.span_id, "016x") == trace.parent
    assert span.attributes["eyas.model"] == "m"


def test_the_last_are_known_and_older_ones_forgotten() -> None:
    recent = Recent(3)
    for name in "abcd":
        recent.add(name)
    assert [name in recent for name in "abcde"] == [False, True, True, True, False]
    assert "" not in Recent(3)


def test_many_requests_take_no_more_memory_than_one() -> None:
    recent = Recent(10_000)
    tracemalloc.start()
    try:
        for number in range(100_000):
            recent.add(f"request {number}")
        # Only what this module took: other tests of the same process may have left threads that allocate.
        taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, events.__file__)])
    finally:
        tracemalloc.stop()
    assert sum(each.size for each in taken.traces) < 5_000
    assert "request 99999" in recent and "request 5" not in recent
