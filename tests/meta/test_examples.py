"""Every example that `eyas VERB --help` shows is run, in a folder that has what the examples speak of."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.meta.source import ROOT
from tests.meta.test_docs import commands

from eyas.cli.main import VERBS, load_verb, main, verb_parser

# What is added to an example so that it takes seconds: the last value of an option counts. A person leaves it out.
# The check before training judges a network that learns; these don't.
QUICK: Mapping[str, str] = {
    "train": "--trainer.max_steps 2 --trainer.epochs 1 --data.size 64 --data.batch_size 4 --data.workers 0 "
    "--trainer.preflight false",
    "bench": "--seconds 0.1",
    "quickstart": "--epochs 1 --train 16 --val 4",
    "serve": "--seconds 0 --port 0 --grpc-port 0 --in-process",
}
# Packages that an example needs, by what stands in it: without one of them the example is left out.
NEEDED: Mapping[str, str] = {"timm:": "timm"}
UNCHANGED = ("--resume", "--print-recipe")  # a command with one of these takes no fields, or trains nothing


def shortened(example: str) -> list[str]:
    """Return the example's words after `eyas`, with what makes it quick."""
    words = shlex.split(example)[1:]
    return words if set(words) & set(UNCHANGED) else words + shlex.split(QUICK.get(words[0], ""))


def failures(examples: Iterable[str]) -> list[str]:
    """Run the examples one after the other in the current folder and return those that did not exit with 0."""
    can = [one for one in examples if all(find_spec(name) for mark, name in NEEDED.items() if mark in one)]
    return [f"{example}: exit {code}" for example in can if (code := main(shortened(example)))]


@pytest.mark.parametrize("verb", VERBS)
def test_examples_run(
    verb: str, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All in one copy of the folder and in order, since an example may use what the one before it made."""
    folder = shutil.copytree(example_folder, tmp_path / "folder")
    monkeypatch.chdir(folder)
    failed = failures(load_verb(verb).examples)
    out, err = capfd.readouterr()
    assert not failed, f"{failed}\n{out}\n{err}"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_of_the_verb(verb: str) -> None:
    loaded = load_verb(verb)
    assert loaded.examples, f"'eyas {verb}' has no example"
    assert [line for line in loaded.examples if not f"{line} ".startswith(f"eyas {verb} ")] == []
    assert [line for line in loaded.examples if line not in verb_parser(verb, loaded).format_help()] == []


@pytest.mark.parametrize("page", ["docs/from-supergradients.md"])
def test_commands_of_a_page_run(
    page: str, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """All in one copy of the folder and in order, as a reader goes through the page."""
    monkeypatch.chdir(shutil.copytree(example_folder, tmp_path / "folder"))
    lines = commands((ROOT / page).read_text(encoding="utf-8"))
    failed = failures(line.partition(" #")[0] for line in lines)
    out, err = capfd.readouterr()
    assert len(lines) > 5 and not failed, f"{failed}\n{out}\n{err}"


def test_a_failing_example_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert failures(["eyas --version", "eyas lineage gone"]) == ["eyas lineage gone: exit 2"]


def test_the_prepared_folder_has_what_examples_speak_of(example_folder: Path) -> None:
    for name in ("runs/quickstart/model.safetensors", "runs/quickstart/card.json", "street.jpg", "clip.mp4"):
        assert (example_folder / name).stat().st_size > 0, name
    assert len(list((example_folder / "images").glob("*.jpg"))) == 3
