"""Small bundles that are made without torch: the graph of the manifest's test, under any name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from tests.artifacts.test_manifest import manifest_of, small_model

from eyas.artifacts.card import Card
from eyas.artifacts.layout import MANIFEST


def write_bundle(folder: Path, name: str = "small", **changes: Any) -> Path:
    """Write a bundle whose two boxes' scores grow with an image's brightness; bundles of other names differ."""
    folder.mkdir(parents=True)
    onnx.save(small_model(), folder / "model.onnx")
    manifest = manifest_of(folder, name=name, **changes)
    manifest.write(folder)
    Card.write(folder, "bundle", [MANIFEST, "model.onnx"], version="0", created=manifest.created)
    return folder
