"""A bundle: manifest, files and card are written together, and what differs from them is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.registry.carded import write_bundle

from eyas.artifacts.bundle import Bundle
from eyas.artifacts.card import CARD, Card
from eyas.artifacts.layout import MANIFEST
from eyas.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


def test_sealed_it_is_read_back_and_agrees_with_its_card(folder: Path) -> None:
    bundle = Bundle.read(folder)
    changed = Bundle(folder, bundle.manifest.model_copy(update={"name": "other"}))
    parent = {"kind": "run", "path": "run", "sha256": "0" * 64}
    card = changed.seal(parents=[parent], recipe={"target": "onnx"})
    assert Bundle.read(folder) == changed and changed.verify() == card == Card.read(folder)
    assert (card.kind, card.parents, card.recipe) == ("bundle", [parent], {"target": "onnx"})
    assert set(card.files) == {MANIFEST, "model.onnx"}
    assert (card.version, card.created) == (bundle.manifest.eyas, bundle.manifest.created)


def test_without_a_card_only_the_manifest_counts(folder: Path) -> None:
    (folder / CARD).unlink()
    bundle = Bundle.read(folder)
    with pytest.raises(UserError):
        bundle.verify()


@pytest.mark.parametrize("name", [MANIFEST, "model.onnx"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    bundle = Bundle.read(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    for look in (lambda: Bundle.read(folder), bundle.verify):
        with pytest.raises(UserError, match=rf"{name} was changed after it was written"):
            look()


@pytest.mark.parametrize("kept", [[], [MANIFEST], ["model.onnx"]])
def test_a_card_that_does_not_speak_of_a_file_is_refused(folder: Path, kept: list[str]) -> None:
    bundle = Bundle.read(folder)
    Card.write(folder, "bundle", kept)
    with pytest.raises(UserError, match="The card does not list"):
        Bundle.read(folder)
    with pytest.raises(UserError, match="The bundle's card does not list"):
        bundle.verify()


def test_a_manifest_that_names_another_file_than_the_card_is_refused(folder: Path) -> None:
    manifest = Bundle.read(folder).manifest.model_copy(update={"files": {"model.onnx": "0" * 64}})
    bundle = Bundle(folder, manifest)
    bundle.seal(parents=[], recipe={})
    with pytest.raises(UserError, match=r"model.onnx is not the file that the manifest lists"):
        bundle.verify()
    with pytest.raises(
        UserError, match=r"model.onnx was changed after it was written: its SHA-256 differs from the manifest's"
    ):
        Bundle.read(folder)
