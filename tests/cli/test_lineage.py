"""`eyas lineage`: the chain of cards is shown, and anything changed since is found."""

from __future__ import annotations

from pathlib import Path

import pytest

from eyas.artifacts.card import Card
from eyas.cli.main import main


def artefact(folder: Path, kind: str, parents: list[dict[str, str]], text: str = "content") -> dict[str, str]:
    """Write an artefact with one file and return the entry that a child notes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file.txt").write_text(text)
    card = Card.write(folder, kind, ["file.txt"], version="0.1.0", created="2026-01-02T03:04:05+00:00", parents=parents)
    return {"kind": kind, "path": str(folder), "sha256": card.sha256}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle made from a run made from a dataset, and from weights that are no longer here."""
    dataset = artefact(tmp_path / "shapes", "dataset", [])
    gone = {"kind": "weights", "path": str(tmp_path / "gone"), "sha256": "0" * 64}
    run = artefact(tmp_path / "run", "run", [dataset, gone])
    artefact(tmp_path / "bundle", "bundle", [run])
    return tmp_path / "bundle"


def test_splits_of_one_folder_without_a_card_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parents = [{"kind": "dataset", "path": str(tmp_path / "data"), "sha256": split * 64} for split in "ab"]
    artefact(tmp_path / "run", "run", parents)
    assert main(["lineage", str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.count("no card there") == 1


def test_the_chain_is_shown(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line for line in lines if "└─" in line or line.startswith("bundle")]
    assert heads == [
        f"bundle {bundle}",
        f"└─ run {bundle.parent / 'run'}",
        f"   └─ weights {bundle.parent / 'gone'}: no card there, can't be verified",
        f"   └─ dataset {bundle.parent / 'shapes'}",
    ]
    assert sum("unchanged" in line for line in lines) == 3
    assert Card.read(bundle).sha256[:12] in lines[1] and "2026-01-02" in lines[1]


@pytest.mark.parametrize("name", ["bundle", "run", "shapes"])
def test_a_changed_byte_anywhere_is_found(bundle: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle.parent / name / "file.txt").write_text("contents")
    assert main(["lineage", str(bundle)]) == 1
    text = capsys.readouterr().out
    assert text.count("CHANGED: file.txt was changed") == 1 and text.count("unchanged") == 2


def test_a_missing_file_is_found(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bundle.parent / "run" / "file.txt").unlink()
    assert main(["lineage", str(bundle)]) == 1
    assert "CHANGED: file.txt is missing" in capsys.readouterr().out


def test_a_parent_that_was_made_again_is_found(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artefact(bundle.parent / "run", "run", [], text="another training")
    assert main(["lineage", str(bundle)]) == 1
    assert "CHANGED: created again since" in capsys.readouterr().out


def test_a_parent_may_be_known_by_the_hash_of_one_file(tmp_path: Path) -> None:
    run = artefact(tmp_path / "run", "run", [])
    one_file = Card.read(tmp_path / "run").files["file.txt"]
    artefact(tmp_path / "later", "run", [{**run, "sha256": one_file}])
    assert main(["lineage", str(tmp_path / "later")]) == 0


def test_no_folder_and_no_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lineage", str(tmp_path / "nowhere")]) == 2
    assert main(["lineage", str(tmp_path)]) == 2
    assert "card.json" in capsys.readouterr().err
