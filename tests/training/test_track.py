"""Training beside trackers: it waits for none of them and fails with none; what they get is what the tables have."""

from __future__ import annotations

import csv
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.training.conftest import quiet
from tests.training.loggers import runs
from tests.training.loggers.fakes import FakeLogger, Server
from tests.training.stopping import (
    At,
    along,
    send,
)

from eyas.artifacts import layout
from eyas.artifacts.card import CARD
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.signals import Stopped, StopSignals
from eyas.training import loggers, tracking
from eyas.training.callbacks import track
from eyas.training.config_overrides import override
from eyas.training.fit import fit, resume
from eyas.training.loggers import LoggerKind
from eyas.training.loggers.base import Destination
from eyas.training.recipe import Recipe
from eyas.training.tracking import Sync, reason

ID = {"id": "run-1", "where": "nowhere"}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    rows = {"fake": LoggerKind(lambda: FakeLogger(server), (), "fake")}
    monkeypatch.setattr(loggers, "LOGGERS", rows)
    monkeypatch.setattr(tracking, "LOGGERS", rows)
    monkeypatch.setattr(track, "EVERY", 0.05)
    yield server
    if server.hangs is not None:
        server.hangs.set()


@pytest.fixture
def tracked(tiny: Recipe) -> Recipe:
    """The tiny recipe, of two epochs of four steps, with the tracker."""
    return override(tiny, {"trainer.logger": ["fake"], "trainer.epochs": 2, "trainer.sheets": 1, "data.size": 64})


def column(path: Path, name: str, key: str = "step") -> list[tuple[int, float]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [(int(row[key]), float(row[name])) for row in csv.DictReader(file) if row[name]]


def check_whole(server: Server, folder: Path) -> None:
    """Assert that the tracker has each row of the tables once, the images and the files."""
    for table, names in ((layout.STEPS, {"loss": "train/loss", "lr": "train/lr", "iou": "train/iou"}),
                         (layout.METRICS, {"loss": "epoch/loss", "iou": "epoch/iou", "AP": "val/AP"})):  # fmt: skip
        for name, told in names.items():
            assert server.points(told) == column(folder / table, name)
    steps = [row.step for row in server.rows]
    assert steps == sorted(steps)
    sheets = [image for image in server.images if image[0] == "sheets"]
    epochs = column(folder / layout.METRICS, "step", "epoch")
    assert sheets == [("sheets", f"epoch_{number:03d}.jpg", step) for number, step in epochs]
    assert server.images[-1][0] == "curves"
    assert {layout.WEIGHTS, CARD, layout.ENVIRONMENT, layout.STEPS} <= set(server.files)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_tracker_gets_what_the_tables_have(
    server: Server, tracked: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    console = quiet()
    folder = fit(tracked, tmp_path / "run", console=console)
    check_whole(server, folder)
    assert main(["lineage", str(folder)]) == 0
    assert "tracked by fake: run run-1 at nowhere" in capfd.readouterr().out
    assert server.statuses == ["finished"] and server.starts == [False]
    assert server.threads == {"eyas-fake"}  # training itself speaks to no tracker
    assert json.loads((folder / CARD).read_text("utf-8"))["recipe"]["trackers"] == {"fake": ID}
    assert "fake: run run-1 at nowhere" in console.file.getvalue()


def test_a_resumed_run_goes_on_in_the_trackers_run(
    server: Server, tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, StopSignals() as signals:
        along(patch, At("on_train_batch_end", 6, send(signal.SIGTERM)))
        folder = fit(tracked, tmp_path / "run", console=quiet(), signals=signals)
    assert server.statuses == ["interrupted"]
    assert json.loads((folder / CARD).read_text("utf-8"))["recipe"]["trackers"] == {"fake": ID}
    resume(folder, console=quiet())
    assert server.statuses == ["interrupted", "finished"] and server.starts == [False, True]
    check_whole(server, folder)


def test_the_saved_state_knows_the_trackers_run(server: Server, tmp_path: Path) -> None:
    """Even where the folder has lost it."""
    folder = runs.begin(tmp_path / "run")
    one = track.Track(folder, ["fake"], print)
    one.load_state_dict({"places": {"fake": ID}})
    (sync,) = (Sync(name, folder, one._saved.get(name)) for name in one.names)
    assert sync.place == Destination(**ID)
    sync.open()
    sync.close()
    assert server.starts == [True]


def test_a_tracker_that_is_down_gets_everything_later(
    server: Server, tracked: Recipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.down = True
    console = quiet()
    folder = fit(tracked, tmp_path / "run", console=console)
    said = console.file.getvalue()
    assert said.count("fake does not accept the run (connection refused); training continues") == 1
    assert f"eyas track {folder}" in said
    assert len(column(folder / layout.METRICS, "loss")) == 2 and not server.rows
    assert main(["track", str(folder)]) == 1
    assert "fake is missing data: connection refused" in capfd.readouterr().err
    server.down = False
    assert main(["track", str(folder)]) == 0
    check_whole(server, folder)
    assert server.statuses == ["finished"]
    assert json.loads((folder / CARD).read_text("utf-8"))["recipe"]["trackers"] == {"fake": ID}


def test_a_tracker_that_dies_and_comes_back_misses_nothing(
    server: Server, tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = quiet()

    def die(_: object) -> None:
        until(lambda: server.rows)
        server.down = True

    def come_back(_: object) -> None:
        until(lambda: "does not accept the run" in console.file.getvalue())
        server.down = False

    along(monkeypatch, At("on_train_batch_end", 2, die))
    along(monkeypatch, At("on_train_epoch_end", 1, come_back), last=True)
    folder = fit(tracked, tmp_path / "run", console=console)
    check_whole(server, folder)
    assert server.starts == [False, True] and server.statuses == ["finished"]
    assert "eyas track" not in console.file.getvalue()


def test_a_tracker_that_hangs_holds_nothing_up(
    server: Server, tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AT_START", "AT_END", "WHEN_ASKED_TO_END"):
        monkeypatch.setattr(track, name, 0.2)
    server.hangs = threading.Event()
    console = quiet()
    folder = fit(tracked, tmp_path / "run", console=console)
    said = console.file.getvalue()
    assert "fake is missing data (it does not respond); nothing is lost" in said and f"eyas track {folder}" in said
    assert (folder / CARD).is_file() and "trackers" not in json.loads((folder / CARD).read_text("utf-8"))["recipe"]
    assert main(["track", str(folder)]) == 1  # the thread that hangs still has it
    server.hangs.set()
    until(lambda: server.statuses)
    check_whole(server, folder)
    assert console.file.getvalue() == said  # nobody speaks of it any more


@pytest.mark.parametrize(("times", "status"), [(0, "failed"), (2, "interrupted")])
def test_a_run_that_ends_badly_is_marked(
    server: Server, tracked: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int, status: str
) -> None:
    """By an error, or at once by a second signal."""

    def end(_: object) -> None:
        until(lambda: server.rows)
        for _ in range(times):
            signal.raise_signal(signal.SIGTERM)
        raise OSError("the disk is on fire")

    along(monkeypatch, At("on_train_batch_end", 2, end), last=True)
    with pytest.raises((OSError, Stopped)):
        fit(tracked, tmp_path / "run", console=quiet())
    assert server.statuses == [status]


def test_a_damaged_note_of_progress_is_told_until_it_is_moved_away(
    server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = runs.begin(tmp_path / "run")
    path = folder / layout.TRACKERS / "fake.json"
    path.parent.mkdir()
    path.write_text('{"other": 1}', encoding="utf-8")
    for _ in range(2):
        assert main(["track", str(folder), "--logger", "fake"]) == 1
        assert "fake.json does not record what the tracker has" in capfd.readouterr().err
    path.unlink()
    assert main(["track", str(folder), "--logger", "fake"]) == 0


def test_an_unknown_logger_is_refused_before_anything_is_read(tiny: Recipe, tmp_path: Path) -> None:
    recipe = override(tiny, {"trainer.logger": ["mflow"], "data.root": str(tmp_path / "gone")})
    with pytest.raises(UserError, match="no logger 'mflow'"):
        fit(recipe, tmp_path / "run", console=quiet())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError(), "ValueError"),
        (OSError("HTTPConnectionPool(host='h', port=1): Max retries exceeded"), "Max retries exceeded"),
        (OSError("<urllib3.connection.HTTPConnection object at 0x7f12ab>: Failed"), "Failed"),
        (UserError("Locked.", fix="wait"), "Locked."),
    ],
)
def test_reasons_are_one_line(error: Exception, text: str) -> None:
    assert reason(error) == text
