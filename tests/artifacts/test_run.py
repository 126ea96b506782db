"""A run's settings: whatever stands in them, the run is opened or refused in words, in bounded time and memory."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.nasty import replaced, variants

from eyas.artifacts.card import Card
from eyas.artifacts.layout import CONFIG, WEIGHTS
from eyas.artifacts.run import Run, RunConfig, RunFolder
from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.spec import YoloNasSpec
from eyas.runtime.loading import load
from eyas.types import InputSpec, Suppression, Thresholds

CREATED = "2026-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the smallest network, never trained; nobody changes it."""
    folder = tmp_path_factory.mktemp("run") / "run"
    torch.manual_seed(0)
    save_run(folder)
    return folder


def save_run(folder: Path) -> None:
    """Write a run whose card names its settings and weights."""
    folder.mkdir()
    Run(folder, RunConfig(zoo.describe("p"), ("red", "blue"), InputSpec(64, 64))).write()
    save_file(zoo.build("p", 2).state_dict(), folder / WEIGHTS)
    Card.write(folder, "run", [CONFIG, WEIGHTS], version="0", created=CREATED)


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


def test_a_good_one_is_opened(run: Path) -> None:
    with load(run) as detector:
        assert detector.classes == ("red", "blue")


@pytest.mark.parametrize(("suppression", "version"), [("class_wise", 1), ("soft", 1), ("none", 2)])
def test_a_run_has_the_oldest_format_that_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suppression: Suppression, version: int
) -> None:
    config = RunConfig({}, ("red",), thresholds=Thresholds(suppression=suppression))
    Run(tmp_path, config).write()
    assert json.loads((tmp_path / CONFIG).read_text())["version"] == version
    assert Run.read(tmp_path).config == config
    monkeypatch.setattr("eyas.artifacts.run.FORMAT_VERSION", 1)
    if version == 1:
        assert Run.read(tmp_path).config == config
    else:
        with pytest.raises(UserError, match=r"newer Eyas \(format 2; this one reads 1\)"):
            Run.read(tmp_path)


def test_any_value_in_any_field_is_opened_or_refused_in_words(run: Path) -> None:
    document = json.loads((run / CONFIG).read_text())
    refused = []
    for what, text in variants(document):
        (run / CONFIG).write_text(text)
        try:
            YoloNasSpec.from_dict(Run.read(run).config.model.get("spec"))
        except UserError as error:
            assert len(str(error)) < 2000, what
            refused.append(what)
    assert len(refused) > 1500


WRONG: tuple[tuple[tuple[str | int, ...], object], ...] = (
    (("model",), None),
    (("model", "kind"), "other"),
    (("model", "kind"), []),
    (("model", "spec"), None),
    (("model", "spec", "stages"), {}),
    (("model", "spec", "stages"), [1, 2, 3, 4]),
    (("model", "spec", "stages", 0, "depth"), 10**6),
    (("model", "spec", "stages", 0, "depth"), True),
    (("model", "spec", "stages", 0, "channels"), 10**9),
    (("model", "spec", "stages", 0, "channels"), 8192),  # fits, but is not the weights'
    (("model", "spec", "stages", 0, "concat_intermediates"), "no"),
    (("model", "spec", "neck", 3, "hidden"), -1),
    (("model", "spec", "head_widths"), [10**9, 1, 1]),
    (("model", "spec", "reg_max"), 10**9),
    (("model", "spec", "reg_max"), 16.0),
    (("model", "spec", "activation"), ["relu"]),
    (("model", "spec", "strides"), [4, 8, 16]),
    (("classes",), ["red"]),
    (("classes",), ["red", "blue", "green"]),
    (("classes",), ["red", "red"]),
    (("classes",), ["red", "\ud800"]),
    (("classes",), ["red", "\x1b[31m"]),
    (("classes",), ["red", "a" * 100_000]),
    (("classes",), ["red", " "]),
    (("classes",), ["red", 1]),
    (("classes",), "red"),
    (("classes",), [f"class {i}" for i in range(100_000)]),
    (("classes",), []),
    (("input", "pad_value"), 300),
    (("input", "pad_value"), -1),
    (("input", "height"), 10**6),
    (("input", "height"), 48),
    (("input", "margin"), 64),
    (("input", "scale"), 10**400),
    (("thresholds", "candidates"), 10**9),
    (("thresholds", "confidence"), True),
    (("thresholds", "suppression"), []),
    (("version",), True),
    (("version",), "1"),
)


@pytest.mark.parametrize(("path", "value"), WRONG, ids=lambda value: ascii(value)[:50])
def test_a_run_that_agrees_with_its_card_and_makes_no_sense(
    run: Path, path: tuple[str | int, ...], value: object
) -> None:
    (run / CONFIG).write_text(json.dumps(replaced(json.loads((run / CONFIG).read_text()), path, value)))
    Card.write(run, "run", [CONFIG, WEIGHTS], version="0", created=CREATED)
    with pytest.raises(UserError):
        load(run)


@pytest.mark.parametrize("kept", [[], [CONFIG], [WEIGHTS]])
def test_files_that_the_card_does_not_speak_of(run: Path, kept: list[str]) -> None:
    assert RunFolder(run).verify()
    Card.write(run, "run", kept, version="0", created=CREATED)
    with pytest.raises(UserError, match="The card does not list"):
        load(run)
