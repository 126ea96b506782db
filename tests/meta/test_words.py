"""The repository speaks of itself alone, in the field's words: no machine's paths, no home-made terms, unique names."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest
from tests.meta.source import ROOT, modules, tracked_files

# The letters in brackets are there so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(?:[w]ork|[r]oot|[h]ome|[U]sers|[o]pt/wheels)/",
    "a note of unfinished work": r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b",
    "the number of a ticket": r"(?i)\b(?:[i]ssue|[t]icket|[p]ull request) #?\d+\b",
    "a folder outside the repository": r"\b[s]hared/(?:facts|stamps|DESIGN)",
}

# Words of our own -> what the field says; in src and in what a user reads.
HOME_MADE = {
    r"(?<![a-z])[Pp]ictures?(?![a-z])|PICTURE": "image",
    r"\bto mend:": "fix:",
    r"\b[Cc]rew\b": "workers",
    r"\b[Ll]obby\b": "request lifecycle",
    r"\b[Ll]edger\b": "requests in flight",
    r"\b[Kk]eeper\b": "model manager",
    r"\bstand_in\b": "emulation",
    r"\bDoors?\b": "ingress",
    r"\bdata set\b": "dataset",
}
OLD_NAMES = {"src/eyas/renamed.py", "src/eyas/data/augment/config.py", "src/eyas/runtime/detect.py", "CHANGELOG.md"}


def forbidden_words(text: str) -> list[str]:
    """Return what the text must not contain, one line each."""
    lines = text.splitlines()
    return [
        f"line {number}: {meaning}: {match[0]}"
        for number, line in enumerate(lines, 1)
        for meaning, pattern in FORBIDDEN.items()
        if (match := re.search(pattern, line))
    ]


def home_made_words(text: str) -> list[str]:
    """Return the words that the field has another one for, one line each."""
    return [
        f"line {number}: {match[0]}: say {word}"
        for number, line in enumerate(text.splitlines(), 1)
        for pattern, word in HOME_MADE.items()
        if (match := re.search(pattern, line))
    ]


def shown_files() -> list[Path]:
    """Return the files of which users see something: the source, the manual, the examples."""
    kept = (".py", ".md", ".html", ".ipynb")
    tops = ("src", "docs", "examples", "README.md")
    found = [path for path in tracked_files() if path.suffix in kept and path.relative_to(ROOT).parts[0] in tops]
    return [path for path in found if str(path.relative_to(ROOT)) not in OLD_NAMES]


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


@pytest.mark.parametrize("path", shown_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_what_users_see_is_in_the_words_of_the_field(path: Path) -> None:
    assert home_made_words(path.read_text(encoding="utf-8")) == []


def test_a_home_made_word_is_found() -> None:
    assert home_made_words("an image\nof num_pictures pictures") == ["line 2: pictures: say image"]
    assert home_made_words("to depict, a ledgerless image") == []


def test_no_class_name_stands_twice() -> None:
    names = Counter(
        node.name
        for path in modules().values()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert [name for name, count in names.items() if count > 1 and not name.startswith("_")] == []
