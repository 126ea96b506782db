"""The repository speaks of itself alone: no machine's paths, no to-do notes, no numbers of tickets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.meta.source import ROOT, tracked_files

# The letters in brackets are there so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:[w]ork|[r]oot|[h]ome|[U]sers|[o]pt/wheels)/",
    "a note of unfinished work": r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b",
    "the number of a ticket": r"(?i)\b(?:[i]ssue|[t]icket|[p]ull request) #?\d+\b",
    "a folder outside the repository": r"\b[s]hared/(?:facts|stamps|DESIGN)",
}


def forbidden_words(text: str) -> list[str]:
    """Return what the text must not contain, one line each."""
    lines = text.splitlines()
    return [
        f"line {number}: {meaning}: {match[0]}"
        for number, line in enumerate(lines, 1)
        for meaning, pattern in FORBIDDEN.items()
        if (match := re.search(pattern, line))
    ]


def text_files() -> list[Path]:
    """Return the repository's text files."""
    return [path for path in tracked_files() if b"\0" not in path.read_bytes()[:8192]]


@pytest.mark.parametrize("path", text_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_text_speaks_of_the_repository_alone(path: Path) -> None:
    assert forbidden_words(path.read_text(encoding="utf-8", errors="replace")) == []


@pytest.mark.parametrize(
    "text",
    ["see /~work/main", "'/~home/me/data'", "# TO~DO: later", "is~sue 7", "as in is~sue #12", "sha~red/facts/x"],
)
def test_a_forbidden_word_is_found(text: str) -> None:
    assert forbidden_words(f"fine\n{text.replace('~', '')}")[0].startswith("line 2")


@pytest.mark.parametrize("text", ["data/work/x", "https://a.org/home/x", "an issue of taste", "shared/common"])
def test_an_innocent_word_passes(text: str) -> None:
    assert forbidden_words(text) == []
