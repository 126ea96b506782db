"""Timing the bundle's own file."""

from __future__ import annotations

import pytest

from eyas.artifacts.bundle import Bundle
from eyas.export.timing import device_name, interleaved, time_bundle, versions
from eyas.runtime.machine import Gpu, processor


def test_calls_take_turns() -> None:
    order: list[str] = []
    times = interleaved({("a", ""): lambda: order.append("a"), ("b", ""): lambda: order.append("b")}, rounds=2, each=2)
    assert "".join(order) == "aaabbb" + "aabb" and [len(one) for one in times.values()] == [4, 4]


def test_a_bundle_says_how_long_its_file_takes_and_where(bundle: Bundle) -> None:
    (told,) = bundle.manifest.latency
    found = time_bundle(bundle.folder, bundle.manifest, threads=1)
    assert found.threads == 1 and told.threads == 0
    for one in (told, found):
        assert 0 < one.median_ms <= one.p90_ms
        assert (one.device, one.batch, one.size) == (processor().name, 1, (96, 96))
        assert one.versions == versions("onnxruntime")


def test_the_device_is_the_one_that_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eyas.export.timing.gpus", lambda: (Gpu("a card", "8.9", "24 GiB", "580"),))
    assert device_name("tensorrt-rtx") == "a card" and device_name("openvino") == processor().name
