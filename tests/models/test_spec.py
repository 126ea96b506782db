from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from tests.models.nets import IRREGULAR

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.spec import StageSpec, YoloNasSpec


@pytest.mark.parametrize("spec", [*zoo.SPECS.values(), IRREGULAR], ids=[*zoo.SPECS, "irregular"])
def test_spec_survives_json(spec: YoloNasSpec) -> None:
    assert YoloNasSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


FIRST = {"channels", "depth", "hidden", "concat_intermediates", "block"}  # the fields of a stage in the first version


@pytest.mark.parametrize("name", zoo.SPECS)
def test_what_is_written_of_a_named_row_is_what_the_first_version_wrote(name: str) -> None:
    written = zoo.resolve(name).to_dict()
    assert all(set(stage) == FIRST for stage in (*written["stages"], *written["neck"]))
    assert set(written) == {
        "stem_width", "stages", "context_hidden", "context_width", "neck", "head_widths", "stem_block", "activation",
        "reg_max", "head",
    }  # fmt: skip


def test_later_fields_are_written_where_they_say_something() -> None:
    spec = zoo.resolve("p")
    first = dataclasses.replace(spec.stages[0], kernel=5, bits=8)
    changed = dataclasses.replace(spec, stages=(first, *spec.stages[1:]), stem_kernel=5, stem_bits=16)
    written = json.loads(json.dumps(changed.to_dict()))
    assert (written["stages"][0]["kernel"], written["stages"][0]["bits"], written["stem_kernel"]) == (5, 8, 5)
    assert set(written["stages"][1]) == FIRST
    assert YoloNasSpec.from_dict(written) == changed


def test_unknown_field_is_refused_with_the_nearest_name() -> None:
    fields = zoo.resolve("s").to_dict()
    fields["stem_widht"] = fields.pop("stem_width")
    with pytest.raises(UserError, match="did you mean 'stem_width'"):
        YoloNasSpec.from_dict(fields)


def test_unknown_field_of_a_stage_is_refused_with_the_nearest_name() -> None:
    fields = zoo.resolve("s").to_dict()
    fields["stages"][1]["deph"] = 4
    with pytest.raises(UserError, match=r"did you mean 'depth'[\s\S]*stages"):
        YoloNasSpec.from_dict(fields)


@pytest.mark.parametrize("missing", ["stem_width", "stages", "head_widths"])
def test_missing_field_is_refused_by_name(missing: str) -> None:
    fields = zoo.resolve("s").to_dict()
    del fields[missing]
    with pytest.raises(UserError, match=missing):
        YoloNasSpec.from_dict(fields)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("stem_width", 0, "stem_width is 0"),
        ("stem_width", 16.0, "stem_width is 16.0"),
        ("reg_max", True, "reg_max is True"),
        ("activation", "rel", "did you mean 'relu'"),
        ("activation", "identity", "Unknown activation"),
        ("stem_block", "convv", "did you mean 'conv'"),
        ("head", "dfl", "did you mean 'ndfl'"),
        ("head", ["ndfl"], "Unknown head a list"),
        ("backbone", "yolonas", "did you mean 'yolo_nas'"),
        ("stem_kernel", 7, "stem_kernel is 7"),
        ("stem_bits", 4, "stem_bits is 4"),
        ("head_widths", (64, 128), "head_widths has 2 entries"),
        ("head_widths", (64, 0, 128), "head_widths is 0"),
        ("stages", (StageSpec(8, 1, 4),) * 3, "stages has 3 entries"),
        ("neck", (StageSpec(8, 1, 4),) * 5, "neck has 5 entries"),
    ],
)
def test_impossible_value_is_refused(field: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        dataclasses.replace(zoo.resolve("s"), **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", 1),
        ("depth", -1),
        ("depth", "2"),
        ("hidden", 0),
        ("block", "repvgg2"),
        ("kernel", 4),
        ("kernel", 3.0),
        ("kernel", True),
        ("bits", 4),
        ("bits", "8"),
    ],
)
def test_impossible_stage_is_refused(field: str, value: Any) -> None:
    with pytest.raises(UserError, match=field):
        dataclasses.replace(StageSpec(8, 1, 4), **{field: value})


@pytest.mark.parametrize(
    "change", [{"stages": 3}, {"stages": [1, 2, 3, 4]}, {"neck": None}, {"head_widths": 5}, {"stages": ["ab"] * 4}]
)
def test_wrong_type_is_a_user_error(change: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        YoloNasSpec.from_dict({**zoo.resolve("s").to_dict(), **change})
