"""How many workers with how many threads: measured, chosen, kept, and kept elsewhere when the folder is read-only."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from tests.serve.bundles import write_bundle
from tests.serve.processes import children, command_line

from eyas.artifacts.manifest import Manifest
from eyas.serve.engine import worker_planning as profile
from eyas.serve.engine.worker_planning import Choice, candidates, choose, measure


def plan(bundle: Path, manifest: Manifest, device: str) -> Choice:
    """Return the best choice."""
    return asyncio.run(profile.plan(bundle, manifest, device))


def test_the_cores_are_shared_out() -> None:
    assert candidates(1) == [(1, 1)]
    assert candidates(2) == [(2, 1), (1, 2)]
    assert candidates(6) == [(6, 1), (3, 2), (1, 4), (1, 6)]
    assert candidates(64)[0] == (16, 4)


def test_the_most_images_win_and_nearly_equal_ones_yield_to_the_quicker() -> None:
    slow, quick, poor = Choice(4, 1, 100.0, 0.04), Choice(2, 2, 96.0, 0.021), Choice(1, 4, 80.0, 0.0125)
    assert choose([slow, quick, poor]) == quick
    assert choose([slow, poor]) == slow
    assert choose([slow, poor], goal=0.03) == poor, "the other leaves no time within the goal"
    assert choose([slow, poor], goal=0.001) == slow, "when none fits, the goal tells nothing"


def test_measuring_really_runs_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "MEASURE_SECONDS", 0.02)
    found = measure(write_bundle(tmp_path / "b"), "cpu", 2)
    assert [(each.workers, each.threads) for each in found] == [(2, 1), (1, 2)]
    assert all(each.rate > 1 and each.seconds > 0 for each in found)


def test_it_is_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "b")
    manifest = Manifest.read(folder)
    calls: list[int] = []

    async def apart(bundle: Path, device: str, cores: int) -> list[Choice]:
        calls.append(cores)
        return [Choice(cores, 1, 30.0, 0.1), Choice(1, cores, 10.0, 0.1)]

    monkeypatch.setattr(profile, "_measured_apart", apart)
    monkeypatch.setattr(profile, "usable_cores", lambda: 3)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    assert plan(folder, manifest, "auto").workers == 3
    assert plan(folder, manifest, "auto").workers == 3 and calls == [3]
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.onnx"], "it is the machine's"
    (kept,) = (tmp_path / "cache" / "profiles").iterdir()
    monkeypatch.setattr(profile, "usable_cores", lambda: 4)
    assert plan(folder, manifest, "auto").workers == 4, "three workers on four cores was measured elsewhere"
    assert calls == [3, 4] and len(json.loads(kept.read_text("utf-8"))) == 2, "another machine, another row"
    kept.write_text('{"x": 1', "utf-8")
    assert plan(folder, manifest, "auto").workers == 4 and calls == [3, 4, 4]


ROW = {"workers": 2, "threads": 1, "rate": 5.0, "seconds": 0.1}
HOSTILE: tuple[object, ...] = (
    [{**ROW, "workers": 10**9}],
    [{**ROW, "threads": 10**9}],
    [{**ROW, "workers": 3}],
    [{**ROW, "workers": -1}],
    [{**ROW, "workers": 2.5}],
    [{**ROW, "workers": "2"}],
    [{**ROW, "workers": None}],
    [{**ROW, "rate": float("inf")}],
    [{**ROW, "rate": float("nan")}],
    [{**ROW, "seconds": -1}],
    [{**ROW, "seconds": "x"}],
    [ROW, [1]],
    [{}],
    {"workers": 2},
    "x",
    None,
)


@pytest.mark.parametrize("rows", HOSTILE, ids=repr)
def test_a_kept_profile_is_believed_only_if_this_machine_could_have_measured_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: object
) -> None:
    folder = write_bundle(tmp_path / "b")
    manifest = Manifest.read(folder)
    measured = [Choice(1, 2, 5.0, 0.1)]

    async def apart(*_: object) -> list[Choice]:
        return measured

    monkeypatch.setattr(profile, "_measured_apart", apart)
    monkeypatch.setattr(profile, "usable_cores", lambda: 2)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    plan(folder, manifest, "auto")
    (kept,) = (tmp_path / "cache" / "profiles").iterdir()
    (key,) = json.loads(kept.read_text("utf-8"))
    kept.write_text(json.dumps({key: [ROW]}), "utf-8")
    assert plan(folder, manifest, "auto").workers == 2, "a good one is believed"
    kept.write_text(json.dumps({key: rows}), "utf-8")
    assert plan(folder, manifest, "auto") == measured[0]


def test_a_profile_in_the_bundle_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "b")
    manifest = Manifest.read(folder)
    monkeypatch.setattr(profile, "usable_cores", lambda: 2)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))

    async def apart(*_: object) -> list[Choice]:
        return [Choice(1, 2, 5.0, 0.1)]

    monkeypatch.setattr(profile, "_measured_apart", apart)
    key = f"{profile.processor().name}, 2 cores, auto"
    for name in (key, f"{key}, {manifest.files[manifest.entry][:16]}"):
        (folder / "serve_profile.json").write_text(json.dumps({name: [ROW]}), "utf-8")
        assert plan(folder, manifest, "auto") == Choice(1, 2, 5.0, 0.1)


def test_other_bytes_have_another_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profile, "usable_cores", lambda: 2)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    calls: list[Path] = []

    async def apart(bundle: Path, *_: object) -> list[Choice]:
        calls.append(bundle)
        return [Choice(1, 2, 5.0, 0.1)]

    monkeypatch.setattr(profile, "_measured_apart", apart)
    folders = [write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b", scale=0.5)]
    for folder in (*folders, *folders):
        plan(folder, Manifest.read(folder), "auto")
    assert calls == folders


def test_what_cannot_be_measured_gets_all_cores_and_an_accelerator_one_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Manifest.read(write_bundle(tmp_path / "b"))
    monkeypatch.setattr(profile, "usable_cores", lambda: 2)
    monkeypatch.setattr(profile, "LIMIT_SECONDS", 0.001)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    assert plan(tmp_path / "b", manifest, "auto") == Choice(1, 2)
    assert plan(tmp_path / "b", manifest, "cuda") == Choice(1, None)
    assert plan(tmp_path / "b", manifest.model_copy(update={"target": "tensorrt"}), "auto") == Choice(1, None)


def test_giving_up_ends_the_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_bundle(tmp_path / "b")
    monkeypatch.setattr(profile, "usable_cores", lambda: 2)
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))

    def measuring() -> list[int]:
        return [child for child in children(os.getpid()) if "eyas.serve.engine.worker_planning" in command_line(child)]

    async def give_up() -> None:
        task = asyncio.ensure_future(profile.plan(folder, Manifest.read(folder), "auto"))
        while not measuring():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not measuring()

    asyncio.run(asyncio.wait_for(give_up(), 120))
