"""What a client may ask: texts of a query and JSON's own types mean the same; what has no sense is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from tests.serve.bundles import write_bundle

from eyas.artifacts.manifest import Manifest
from eyas.serve.api import Options
from eyas.serve.errors import ServeError
from eyas.serve.http.openapi import document
from eyas.serve.limits import Limits
from eyas.serve.request_options import asked, from_query, labels_of, suppression, thresholds_of
from eyas.types import Suppression


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return Manifest.read(write_bundle(tmp_path / "colours"))


@pytest.mark.parametrize("kind", get_args(Suppression))
def test_every_suppression_can_be_asked_for(manifest: Manifest, kind: Suppression) -> None:
    assert thresholds_of(Options(suppression=suppression(kind)), manifest).suppression == kind
    assert kind in document(Limits())["components"]["schemas"]["ImageForm"]["properties"]["suppression"]["enum"]
    own = manifest.model_copy(update={"thresholds": replace(manifest.thresholds, suppression=kind)})
    assert thresholds_of(Options(confidence=0.5), own).suppression == kind


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


def test_a_query_and_json_mean_the_same() -> None:
    query = [("conf", "0.5"), ("classes", "a, b"), ("max_detections", "7"), ("timeout", "2"), ("priority", "batch")]
    fields = {"conf": 0.5, "classes": ["a", "b"], "max_detections": 7, "timeout": 2, "priority": "batch"}
    found = from_query(query)
    assert found == asked(fields)
    assert (found.options.classes, found.options.max_detections, found.lane) == (("a", "b"), 7, "batch")
    assert asked({}) == from_query([])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clases": "a"}, "did you mean 'classes'"),
        ({"boxes": 1}, "the fields are model, version, conf"),
        ({"conf": None}, "null"),
        ({"conf": True}, "number"),
        ({"conf": "١"}, "number"),
        ({"iou": [0.5]}, "number"),
        ({"max_detections": 1.5}, "whole"),
        ({"max_detections": float("inf")}, "whole"),
        ({"model": 3}, "text"),
        ({"classes": [1]}, "list of names"),
        ({"priority": "high"}, "interactive, stream, batch"),
    ],
)
def test_what_has_no_sense_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ServeError, match=words) as error:
        asked(fields)
    assert error.value.kind == "invalid"


def test_a_field_may_be_given_once() -> None:
    with pytest.raises(ServeError, match="given twice"):
        from_query([("conf", "0.1"), ("conf", "0.1")])
