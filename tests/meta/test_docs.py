"""The manual is true: its links lead somewhere, the code it names exists, and its commands are accepted."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from tests.meta.source import ROOT, tracked_files

from eyas.cli.main import VERBS, load_verb, split_verb, verb_parser
from eyas.errors import UserError
from eyas.renamed import with_new_options

PAGES = [path for path in tracked_files() if path.suffix == ".md"]
IDS = [str(path.relative_to(ROOT)) for path in PAGES]


def prose(text: str) -> str:
    """Return the Markdown text without its fenced code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)


def fences(text: str, *languages: str) -> Iterator[str]:
    """Yield the content of the fenced code in one of the languages."""
    for language, code in re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S):
        if language in languages:
            yield code


def slug(heading: str) -> str:
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def broken_links(text: str, folder: Path) -> list[str]:
    """Return the relative links and images of the page that lead to no file or heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = folder / name
        if name and not path.exists():
            broken.append(target)
        elif anchor:
            page = path.read_text(encoding="utf-8") if name else text
            if slug(anchor) not in {slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(page), flags=re.M)}:
                broken.append(target)
    return broken


def missing_paths(text: str) -> list[str]:
    """Return the code paths in backticks (ending in .py or /, or with a folder of the repository) that do not exist.

    A path counts from the root of the repository, or from `src/eyas/`.
    """
    found = re.findall(r"`([\w.-]+(?:/[\w.{},-]*)*(?:\.py|/))`", prose(text))
    return [name for name in found if not any((start / name).exists() for start in (ROOT, ROOT / "src" / "eyas"))]


def commands(text: str) -> list[str]:
    """Return the `eyas ...` command lines of the page's fenced shell code."""
    lines = (line for code in fences(text, "", "sh", "bash", "console") for line in join_lines(code))
    starts = (re.sub(r"^\s*(?:\$ )?(?:\.venv/bin/)?", "", line) for line in lines)
    return [line for line in starts if re.match(r"eyas\s", line)]


def mentions(text: str) -> list[str]:
    """Return the `eyas ...` commands that the page's prose has in backticks."""
    return re.findall(r"`(eyas\s[^`]+)`", prose(text))


def join_lines(code: str) -> list[str]:
    """Return the lines of shell code, those that end in a backslash joined to the next."""
    return re.sub(r"\s*\\\n\s*", " ", code).splitlines()


def refusal(command: str, *, mention: bool = False) -> str:
    """Return why the command line refuses the command (nothing is run), "" when it takes it.

    Args:
        command: the line; what follows a `|`, `>` or `#` is left out.
        mention: the prose only speaks of it, so required arguments may be missing.
    """
    words = shlex.split(re.split(r"\s[|>]", command)[0], comments=True)[1:]
    if words[0] in ("--help", "--version") or words == ["COMMAND", "--help"]:
        return ""
    try:
        verb, rest = split_verb(words)
        verb_parser(verb, load_verb(verb)).parse_args(with_new_options(verb, rest))
    except UserError as error:
        return "" if mention and "arguments are required" in error.problem else str(error)
    except SystemExit as error:  # --help
        return f"exit {error.code}" if error.code else ""
    return ""


def page_commands(mention: bool) -> list[tuple[str, str]]:
    """Return (page, command) of every command of the manual, those in code or those in prose."""
    find = mentions if mention else commands
    return [(name, line) for name, page in zip(IDS, PAGES, strict=True) for line in find(page.read_text("utf-8"))]


def unknown_targets(text: str) -> list[str]:
    """Return the targets of `make ...` in the page's shell code that the Makefile does not have."""
    named = re.findall(r"^\s*make (\w+)", "\n".join(fences(text, "", "sh", "bash", "console")), flags=re.M)
    known = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    return [name for name in named if name not in known]


def missing_names(code: str) -> list[str]:
    """Return what the Python code of a page imports from Eyas, or takes as `eyas.NAME`, that does not exist."""
    tree = ast.parse(code)
    missing = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "eyas":
            module = import_module(node.module or "")
            missing += [f"{node.module}.{each.name}" for each in node.names if each.name not in dir(module)]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "eyas":
            missing += [] if node.attr in dir(import_module("eyas")) else [f"eyas.{node.attr}"]
    return missing


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page.read_text(encoding="utf-8"), page.parent) == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_code_that_is_named_exists(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_python_of_the_page_names_what_exists(page: Path) -> None:
    assert [name for code in fences(page.read_text(encoding="utf-8"), "python") for name in missing_names(code)] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_make_targets_exist(page: Path) -> None:
    assert unknown_targets(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(("page", "command"), page_commands(mention=False))
def test_command_is_accepted(page: str, command: str) -> None:
    assert refusal(command) == "", f"{page}: {command}"


@pytest.mark.parametrize(("page", "command"), page_commands(mention=True))
def test_mentioned_command_is_accepted(page: str, command: str) -> None:
    assert refusal(command, mention=True) == "", f"{page}: {command}"


def test_manual_shows_every_verb() -> None:
    shown = {split_verb(shlex.split(command)[1:])[0] for _, command in page_commands(mention=False)}
    assert set(VERBS) <= shown


def test_readme_lists_every_verb() -> None:
    rows = re.findall(r"^\| `eyas ([\w ]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.M)
    assert sorted(rows) == sorted(VERBS)


# What follows shows that the checks above can fail.


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A heading, here\n", encoding="utf-8")
    text = (
        "[a](there.md) [b](gone.md) [c](there.md#a-heading-here) [d](there.md#gone) ![e](gone.png) [f](https://a.b/c)"
    )
    assert broken_links(text, tmp_path) == ["gone.md", "there.md#gone", "gone.png"]


def test_missing_paths_are_found() -> None:
    assert missing_paths("`boxes.py` `data/` `gone.py` `src/eyas/gone/` `pyproject.toml` `a/b`") == [
        "gone.py",
        "src/eyas/gone/",
    ]


def test_unknown_targets_are_found() -> None:
    assert unknown_targets("```sh\nmake test\nmake coffee  # strong\n```\nmake tea") == ["coffee"]


def test_commands_are_found() -> None:
    text = "Use `eyas lineage X`.\n```sh\n$ eyas lineage \\\n   Y\n.venv/bin/eyas lineage Z\npip install eyas\n```\n"
    assert commands(text) == ["eyas lineage Y", "eyas lineage Z"]
    assert mentions(text) == ["eyas lineage X"]


@pytest.mark.parametrize("command", ["eyas linage X", "eyas lineage", "eyas lineage X --nonsense 3"])
def test_a_wrong_command_is_refused(command: str) -> None:
    assert refusal(command)


@pytest.mark.parametrize("command", ["eyas linage", "eyas lineage X --nonsense 3"])
def test_a_wrong_mention_is_refused(command: str) -> None:
    assert refusal(command, mention=True)


@pytest.mark.parametrize("command", ["eyas --version", "eyas lineage X  # a remark", "eyas lineage --help"])
def test_a_right_command_is_accepted(command: str) -> None:
    assert refusal(command) == ""
    assert refusal("eyas lineage", mention=True) == ""


def test_missing_names_are_found() -> None:
    code = "import eyas\nfrom eyas.types import Detections, Gone\neyas.load\neyas.gone\nx.gone"
    assert missing_names(code) == ["eyas.types.Gone", "eyas.gone"]
