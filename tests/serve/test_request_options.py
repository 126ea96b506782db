"""Classes that a client asks for by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from tests.serve.bundles import write_bundle

from eyas.artifacts.manifest import Manifest
from eyas.serve.api import Options
from eyas.serve.errors import ServeError
from eyas.serve.http.openapi import document
from eyas.serve.limits import Limits
from eyas.serve.oip.detection import suppression as named
from eyas.serve.request_options import labels_of, thresholds_of
from eyas.types import Suppression


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(write_bundle(tmp_path / "colours"))


@pytest.mark.parametrize("suppression", get_args(Suppression))
def test_every_suppression_can_be_asked_for(manifest: Manifest, suppression: Suppression) -> None:
    assert thresholds_of(Options(suppression=named(suppression)), manifest).suppression == suppression
    assert suppression in document(Limits())["components"]["schemas"]["ImageForm"]["properties"]["suppression"]["enum"]
    own = manifest.model_copy(update={"thresholds": replace(manifest.thresholds, suppression=suppression)})
    assert thresholds_of(Options(confidence=0.5), own).suppression == suppression


def test_classes_become_labels(manifest: Manifest) -> None:
    assert labels_of(Options(), manifest) is None
    assert labels_of(Options(classes=manifest.classes[::-1]), manifest) == tuple(range(len(manifest.classes)))


def test_a_class_that_is_not_there_is_told_with_those_that_are(manifest: Manifest) -> None:
    with pytest.raises(ServeError, match=f"has no class 'zebra'; it has {', '.join(manifest.classes)}[.]"):
        labels_of(Options(classes=("zebra",)), manifest)
    many = manifest.model_copy(update={"classes": tuple(f"c{number:02}" * 20 for number in range(80))})
    with pytest.raises(ServeError, match=r"and 70 more[.]") as error:
        labels_of(Options(classes=("zebra",)), many)
    assert len(str(error.value)) < 500
