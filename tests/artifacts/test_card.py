"""Cards: a changed, missing or smuggled file is refused; the chain of ancestors is walked."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.nasty import variants

from eyas.artifacts.card import CARD, Card, hash_file, lineage
from eyas.errors import UserError

ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # SHA-256 of "abc", FIPS 180-4's example


def artefact(folder: Path, *, parents: tuple[dict[str, str], ...] = ()) -> Card:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("abc")
    (folder / "deep" / "b.txt").write_text("b")
    return Card.write(
        folder, "run", ["deep/b.txt", "a.txt"], version="1", created="now", parents=parents, recipe={"lr": 0.1}
    )


def test_a_card_is_extended_by_files_that_came_and_that_changed(tmp_path: Path) -> None:
    before = artefact(tmp_path, parents=({"kind": "run", "path": "up", "sha256": ABC},))
    (tmp_path / "0.txt").write_text("new")
    (tmp_path / "a.txt").write_text("changed")
    card = Card.extend(tmp_path, ["0.txt", "a.txt"])
    assert Card.verify(tmp_path, needed=["0.txt"]) == card
    assert list(card.files) == ["0.txt", "a.txt", "deep/b.txt"] and card.files["a.txt"] != ABC
    assert replace(card, files=before.files) == before
    with pytest.raises(UserError, match=r"card\.json"):
        Card.extend(tmp_path / "deep", ["b.txt"])


def test_a_card_says_who_made_it_and_when_unless_told(tmp_path: Path) -> None:
    card = Card.write(tmp_path, "run", [])
    assert card.version == importlib.metadata.version("eyas")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(card.created)
    assert age < datetime.timedelta(days=1) and card.created.endswith("+00:00")


def test_a_card_holds_the_hashes_and_is_read_back(tmp_path: Path) -> None:
    card = artefact(tmp_path / "x")
    assert card.files["a.txt"] == ABC == hash_file(tmp_path / "x" / "a.txt")
    assert Card.read(tmp_path / "x") == card == Card.verify(tmp_path / "x")
    assert card.recipe == {"lr": 0.1} and list(card.files) == ["a.txt", "deep/b.txt"]
    assert json.loads((tmp_path / "x" / CARD).read_text())["sha256"] == card.sha256


def test_the_hash_of_the_artefact_depends_on_names_and_bytes_alone(tmp_path: Path) -> None:
    card = artefact(tmp_path / "x")
    same = Card("bundle", "2", dict(reversed(card.files.items())), [], {}, "later")
    assert same.sha256 == card.sha256
    renamed = Card("run", "1", {"c.txt": ABC, "deep/b.txt": card.files["deep/b.txt"]}, [], {}, "now")
    changed = Card("run", "1", {**card.files, "a.txt": "0" * 64}, [], {}, "now")
    assert len({card.sha256, renamed.sha256, changed.sha256}) == 3


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "deep" / "b.txt").write_text("B"), r"deep/b\.txt was changed"),
        (lambda folder: (folder / "a.txt").unlink(), r"a\.txt is missing"),
    ],
)
def test_a_changed_or_missing_file(tmp_path: Path, spoil: Callable[[Path], object], told: str) -> None:
    artefact(tmp_path / "x")
    spoil(tmp_path / "x")
    with pytest.raises(UserError, match=told):
        Card.verify(tmp_path / "x")


def test_what_was_just_hashed_is_not_read_again_but_still_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    card = artefact(tmp_path / "x")
    monkeypatch.setattr("eyas.artifacts.card.hash_file", lambda path: hashed.append(path.name) or hash_file(path))
    assert Card.verify(tmp_path / "x", known={"a.txt": ABC}) == card and hashed == ["b.txt"]
    with pytest.raises(UserError, match=r"a\.txt was changed"):
        Card.verify(tmp_path / "x", known={"a.txt": "0" * 64})


def test_a_file_that_no_card_names_is_no_matter(tmp_path: Path) -> None:
    artefact(tmp_path / "x")
    (tmp_path / "x" / "notes.txt").touch()
    assert Card.verify(tmp_path / "x")


@pytest.mark.parametrize("name", ["../outside.txt", "deep/../../outside.txt", "/etc/hostname"])
def test_a_card_that_names_a_file_outside(tmp_path: Path, name: str) -> None:
    artefact(tmp_path / "x")
    (tmp_path / "outside.txt").write_text("abc")
    fields = json.loads((tmp_path / "x" / CARD).read_text())
    (tmp_path / "x" / CARD).write_text(json.dumps({**fields, "files": {name: ABC}}))
    with pytest.raises(UserError, match="outside its folder"):
        Card.verify(tmp_path / "x")


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"kind": "run"}', '{"kind": "run", "more": 1}'])
def test_what_is_no_card(tmp_path: Path, text: str) -> None:
    (tmp_path / CARD).write_text(text)
    with pytest.raises(UserError, match="not a valid Eyas card"):
        Card.read(tmp_path)


def test_no_card_and_rubbish(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file card\.json"):
        Card.read(tmp_path)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        Card.read(tmp_path)


def test_the_ancestors_depth_first(tmp_path: Path) -> None:
    def entry(name: str) -> dict[str, str]:
        return {"kind": "run", "path": str(tmp_path / name), "sha256": ""}

    artefact(tmp_path / "oldest")
    artefact(tmp_path / "left", parents=(entry("oldest"),))
    artefact(tmp_path / "right")
    artefact(tmp_path / "child", parents=(entry("left"), entry("gone"), entry("right")))
    walked = [(depth, folder.name) for depth, folder, _ in lineage(tmp_path / "child")]
    assert walked == [(0, "child"), (1, "left"), (2, "oldest"), (1, "right")]


def test_a_folder_that_was_used_again_ends_the_walk(tmp_path: Path) -> None:
    def entry(name: str) -> dict[str, str]:
        return {"kind": "run", "path": str(tmp_path / name), "sha256": ""}

    artefact(tmp_path / "one", parents=(entry("two"), entry("one")))
    artefact(tmp_path / "two", parents=(entry("one"),))
    assert [folder.name for _, folder, _ in lineage(tmp_path / "one")] == ["one", "two"]


CARD_FIELDS = {
    "kind": "bundle",
    "version": "0",
    "files": {"a": "0" * 64},
    "parents": [{"kind": "run", "path": "x", "sha256": "0" * 64}],
    "recipe": {"x": 1},
    "created": "x",
    "sha256": "0" * 64,
}


def test_any_value_in_any_field_of_a_card(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for what, text in variants(CARD_FIELDS):
        (tmp_path / CARD).write_text(text)
        for function in (Card.verify, lambda folder: list(lineage(folder))):
            try:
                function(tmp_path)
            except UserError as error:
                assert len(str(error)) < 2000, what


def test_cards_that_name_each_other_over_and_over(tmp_path: Path) -> None:
    for number in range(40):
        folder = tmp_path / str(number)
        folder.mkdir()
        parent = {"path": str(tmp_path / str(number + 1))}
        (folder / CARD).write_text(json.dumps({**CARD_FIELDS, "files": {}, "parents": [parent] * 2}))
    with pytest.raises(UserError, match="more than 1000 artefacts"):
        list(lineage(tmp_path / "0"))
