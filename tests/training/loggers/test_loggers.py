"""Every row of LOGGERS: a run, written in parts, killed and resumed, is read back with the tracker's own client."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.training.loggers import runs
from tests.training.loggers.readers import READERS, STATUSES, Seen

from eyas.artifacts import layout
from eyas.artifacts.card import CARD, Card
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.training.loggers import LOGGERS, check_loggers, split_names, wandb
from eyas.training.loggers.base import Destination
from eyas.training.tracked import name_in_card, status_of, trackers_of
from eyas.training.tracking import FILES, Sync

NAMES = sorted(LOGGERS)


@pytest.fixture(scope="module", autouse=True)
def own_places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One new store for MLflow, no key for W&B, and none of the user's settings."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", *wandb.KEYS, "WANDB_MODE", "WANDB_PROJECT"):
            patch.delenv(name, raising=False)
        patch.setenv("EYAS_REGISTRY", str(home / "registry"))
        patch.setenv("HOME", str(home))
        patch.setenv("NETRC", str(home / "netrc"))
        yield home


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return runs.begin(tmp_path / "first")


def seen(name: str, folder: Path) -> Seen:
    return READERS[name](folder, place_of(name, folder))


def place_of(name: str, folder: Path) -> Destination:
    """Return where the tracker has the run, as the run's folder says."""
    return Destination(**trackers_of(folder)[name])


def expected(epochs: int) -> dict[str, list[tuple[int, float]]]:
    """Return some of the series that a run of so many epochs has."""
    steps = range(10, 20 * epochs + 1, 10)
    return {
        "train/loss": [(step, 100 / step) for step in steps],
        "train/iou": [(step, 0.25) for step in steps],
        "epoch/loss": [(20 * epoch, 1.5) for epoch in range(1, epochs + 1)],
        "epoch/iou": [(20 * epoch, 0.5) for epoch in range(1, epochs + 1)],
        "val/AP": [(20 * epoch, 0.1 * epoch) for epoch in range(1, epochs + 1)],
    }


def next_process(name: str) -> None:
    """Wait as long as another process takes to start: W&B names the files of each part of a run by the second."""
    if name == "wandb":
        time.sleep(1.1)


def check_series(found: Seen, epochs: int) -> None:
    """Hold the series against the tables: each point once, in order."""
    for name, points in expected(epochs).items():
        assert [step for step, _ in found.series[name]] == [step for step, _ in points], name
        assert [value for _, value in found.series[name]] == pytest.approx([v for _, v in points], rel=1e-5), name
    assert "val/AP50" not in found.series  # never measured: no number, and no zero


def test_every_tracker_is_read_back() -> None:
    assert set(READERS) == set(STATUSES) == set(LOGGERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_arrives_whole(name: str, folder: Path) -> None:
    sync = Sync(name, folder)
    sync.open()
    runs.train(folder, range(1, 3))
    sync.send()
    runs.train(folder, range(3, 4))
    runs.end(folder, trackers=trackers_of(folder))
    sync.send("finished")
    found = seen(name, folder)
    check_series(found, 3)
    assert found.recipe["optim.lr"] == "0.002" and found.recipe["trainer.epochs"] in ("100", "100.0")
    assert "2.13.0" in found.facts and runs.HASHES["train"] in found.facts and runs.HASHES["val"] in found.facts
    assert found.files == set(FILES)
    sheets = [(folder / layout.SHEETS / f"epoch_{epoch:03d}.jpg").read_bytes() for epoch in (1, 2, 3)]
    assert sorted(found.images["sheets"]) == sorted(sheets)
    assert found.images["curves"][-1] == (folder / layout.CURVES).read_bytes()
    assert found.status == STATUSES[name][0] and found.runs >= 1
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    assert Destination(**card["recipe"]["trackers"][name]) == place_of(name, folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_in_the_trackers_run(name: str, folder: Path) -> None:
    """The tables go back to the saved state; what the tracker has already is not sent twice."""
    first = Sync(name, folder)
    first.open()
    runs.train(folder, range(1, 4))
    first.send()
    first.close()  # as the end of the process does
    before = seen(name, folder)
    runs.rewind(folder, 1)
    next_process(name)
    runs.train(folder, range(2, 5))
    second = Sync(name, folder)
    place = second.open()
    runs.end(folder)
    second.send("finished")
    assert place == first.place
    found = seen(name, folder)
    check_series(found, 4)
    assert found.runs == before.runs
    assert len(found.images["sheets"]) == 4


@pytest.mark.parametrize("name", NAMES)
def test_an_interrupted_run_is_marked_until_it_goes_on(name: str, folder: Path) -> None:
    runs.train(folder, range(1, 2))
    runs.end(folder, "interrupted")
    assert status_of(folder) == "interrupted"
    Sync(name, folder).send(status_of(folder))
    assert seen(name, folder).status == STATUSES[name][1]
    next_process(name)
    runs.train(folder, range(2, 3))
    runs.end(folder)
    Sync(name, folder).send(status_of(folder))
    assert seen(name, folder).status == STATUSES[name][0]
    check_series(seen(name, folder), 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_run_is_marked(name: str, folder: Path) -> None:
    runs.train(folder, range(1, 2))
    Sync(name, folder).send("failed")
    assert seen(name, folder).status == STATUSES[name][2]


def test_a_finished_run_is_sent_by_the_command(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    runs.train(folder, range(1, 3))
    runs.end(folder)
    assert main(["track", str(folder), "--logger", "tensorboard", "--logger", "mlflow,wandb"]) == 0
    assert set(trackers_of(folder)) == set(NAMES)
    assert json.loads((folder / CARD).read_text("utf-8"))["recipe"]["trackers"] == trackers_of(folder)
    Card.verify(folder)
    for name in NAMES:
        check_series(seen(name, folder), 2)
    capfd.readouterr()
    assert main(["track", str(folder)]) == 0  # those it was sent to, which have everything
    assert [line.split(": ")[-1] for line in capfd.readouterr().out.splitlines()] == [
        "0 rows, images and files sent" for _ in NAMES
    ]


def test_a_changed_file_is_not_made_right_by_the_card(folder: Path) -> None:
    runs.end(folder)
    (folder / layout.WEIGHTS).write_bytes(b"others")
    Sync("tensorboard", folder).send("finished")
    name_in_card(folder)
    with pytest.raises(UserError, match="changed"):
        Card.verify(folder)


def test_mlflow_keeps_runs_beside_the_models(folder: Path, own_places: Path) -> None:
    from eyas.registry import open_registry

    place = Sync("mlflow", folder).open()
    assert place.where == f"sqlite:///{own_places}/registry/registry.db"
    assert open_registry().list() == ()


def test_a_run_that_mlflow_has_no_more_is_sent_anew(folder: Path) -> None:
    from mlflow import MlflowClient

    runs.train(folder, range(1, 3))
    runs.end(folder)
    Sync("mlflow", folder).send("finished")
    first = place_of("mlflow", folder)
    MlflowClient(tracking_uri=first.where).delete_run(first.id)
    runs.train(folder, range(3, 4))
    Sync("mlflow", folder).send("finished")
    assert place_of("mlflow", folder).id != first.id
    check_series(seen("mlflow", folder), 3)


@pytest.mark.parametrize(
    ("environment", "entry", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "k" * 40}, "", "online"),
        ({"WANDB_IDENTITY_TOKEN_FILE": "token"}, "", "online"),
        ({"WANDB_API_KEY": "k" * 40, "WANDB_MODE": "offline"}, "", "offline"),
        ({}, "machine api.wandb.ai login user password secret", "online"),
        ({}, "machine wandb.example.org login user password secret", "offline"),
        ({"WANDB_BASE_URL": "https://wandb.example.org"}, "machine wandb.example.org login u password s", "online"),
        ({}, "this is no netrc", "offline"),
    ],
)
def test_wandb_is_offline_where_there_is_no_key(
    environment: dict[str, str], entry: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if entry:
        (tmp_path / "netrc").write_text(entry, encoding="utf-8")
        (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wandb.pick_mode() == mode


@pytest.mark.parametrize(
    ("given", "names"),
    [((), ()), (("mlflow",), ("mlflow",)), (("mlflow,wandb", " mlflow "), ("mlflow", "wandb")), ((",",), ())],
)
def test_names_are_split(given: tuple[str, ...], names: tuple[str, ...]) -> None:
    assert split_names(given) == names


def test_an_unknown_logger_is_refused() -> None:
    with pytest.raises(UserError, match=r"no logger 'mflow' \(did you mean 'mlflow'\?\)"):
        check_loggers(["mflow"])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_told_with_its_extra(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = LOGGERS[name]
    for package in kind.packages:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as caught:
        check_loggers([name])
    assert caught.value.fix == f'pip install "eyas[{kind.extra}]"'


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    assert main(["track", str(tmp_path), "--logger", "tensorboard"]) != 0
