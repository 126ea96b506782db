"""`eyas serve`: the command line becomes the engine's settings."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from eyas.cli import serve as verb
from eyas.errors import UserError
from eyas.serve import launch
from eyas.serve.engine.settings import EngineSettings


def settings_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> EngineSettings:
    """Return the engine's settings that a command line leads to."""
    seen: list[EngineSettings] = []

    def serve(_bundles: list[str], _settings: Any, engine: EngineSettings, **_more: Any) -> None:
        seen.append(engine)

    monkeypatch.setattr(launch, "serve", serve)
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert verb.run(parser.parse_args(list(words))) == 0
    return seen[0]


def test_nothing_said_leaves_it_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, "b") == EngineSettings()


def test_numbers_arrive_in_the_engines_units(monkeypatch: pytest.MonkeyPatch) -> None:
    words = "b --slo 200 --memory 4096 --worker-memory 512 --min-workers 2 --threads 3 --max-batch 16"
    found = settings_of(monkeypatch, *words.split())
    assert found == EngineSettings(
        goal=0.2, memory_limit=4 << 30, worker_memory=512 << 20, min_workers=2, threads=3, max_batch=16
    )
    assert settings_of(monkeypatch, "b", "--workers", "4").workers == 4


@pytest.mark.parametrize("words", ["--workers none", "--workers 0", "--memory -1", "--min-workers 0"])
def test_what_makes_no_sense_is_refused(monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    with pytest.raises(UserError, match=r"workers|memory"):
        settings_of(monkeypatch, "b", *words.split())
