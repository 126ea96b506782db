"""Specs and the rows of the zoo: sizes, what is written of them, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

import pytest
import torch
from tests.models.nets import IRREGULAR, meta_net
from torch import nn

from eyas.errors import UserError
from eyas.models import measure, zoo
from eyas.models.backbones.timm_library import pyramid_of
from eyas.models.fuse import fuse_blocks, fused
from eyas.models.measure import flops, num_parameters, table
from eyas.models.public_form import to_public_state
from eyas.models.spec import StageSpec, YoloNasSpec

# Parameters in the public form, which has the fused kernels beside the branches, and fused: 12.2, 31.9 and 42.0 million
# are published; GFLOP at 640 x 640: 31.8 for S.
GOLDEN = {
    "yolo_nas_s": (19_053_888, 12_175_888, 31.8),
    "yolo_nas_m": (51_182_658, 31_906_578, 87.8),
    "yolo_nas_l": (66_976_392, 41_999_192, 119.8),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_parameters_and_flops_are_the_published_ones(name: str) -> None:
    unfused, small, gflop = GOLDEN[name]
    net = meta_net(name)
    statistics = sum(value.numel() for value in net.buffers())
    assert sum(value.numel() for value in to_public_state(net.state_dict()).values()) - statistics == unfused
    assert small < num_parameters(net) < unfused
    blocks = fuse_blocks(net)
    assert num_parameters(blocks) == small
    assert flops(blocks, 640, 640) / 1e9 == pytest.approx(gflop, abs=0.05)
    assert flops(fused(net), 640, 640) == flops(blocks, 640, 640)


def test_own_rows_are_of_their_class() -> None:
    nano, pico = fuse_blocks(meta_net("yolo_nas_n")), fuse_blocks(meta_net("yolo_nas_p"))
    assert num_parameters(nano) == 2_251_408
    assert flops(nano, 640, 640) < 5e9
    assert num_parameters(pico) == 830_037
    assert flops(pico, 640, 640) < 2.5e9


def test_names_and_short_names_mean_the_same_frozen_specs() -> None:
    assert set(zoo.SPECS) == {f"yolo_nas_{short}" for short in "pnsml"}
    for short, name in zoo.ALIASES.items():
        assert zoo.resolve(short) is zoo.resolve(name) is zoo.SPECS[name]
    with pytest.raises(TypeError):
        zoo.SPECS["x"] = zoo.resolve("s")  # type: ignore[index]


@pytest.mark.parametrize(
    ("given", "near"), [("yolo_nas_x", "yolo_nas_"), ("yolonas_s", "yolo_nas_s"), ("yolo-nas-m", "yolo_nas_m")]
)
def test_unknown_name_is_refused_with_the_nearest(given: str, near: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{near}"):
        zoo.resolve(given)


def test_no_class_is_refused() -> None:
    with pytest.raises(UserError, match="0 classes"):
        zoo.build("p", 0)


@pytest.mark.parametrize("model", ["n", "yolo_nas_p", IRREGULAR])
def test_a_described_model_is_built_again(model: str) -> None:
    entry = json.loads(json.dumps(zoo.describe(model)))
    with torch.device("meta"):
        again = zoo.build_described(entry, 3)
    assert again.num_classes == 3
    assert again.spec == (zoo.resolve(model) if isinstance(model, str) else model)
    assert entry["name"] == {"n": "yolo_nas_n", "yolo_nas_p": "yolo_nas_p"}.get(model, "")  # type: ignore[call-overload]


@pytest.mark.parametrize("entry", [{}, {"kind": "other", "spec": {}}, {"kind": "yolo_nas", "spec": 3}])
def test_a_foreign_description_is_refused(entry: dict[str, object]) -> None:
    with pytest.raises(UserError, match="kind"):
        zoo.build_described(entry, 3)


def test_flops_of_layers_counted_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ConvTranspose2d(4, 5, 2, 2), nn.Conv2d(5, 6, 1)).train()
    by_hand = 2 * (4 * 3 * 9 * 5 * 6 + 4 * 5 * 4 * 5 * 6 + 5 * 6 * 10 * 12)
    assert flops(net, 10, 12) == by_hand
    assert net.training and not net[0]._forward_hooks


def test_table_has_a_line_for_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "build", lambda name, num_classes: meta_net(name))  # built once for all tests
    lines = table().splitlines()
    assert len(lines) == 1 + len(zoo.SPECS)
    assert next(line for line in lines if line.startswith("yolo_nas_s")).split()[2:] == ["12.878", "12.176", "31.8"]


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


def test_a_network_of_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it now fails
    pyramid_of.cache_clear()
    spec = dataclasses.replace(zoo.resolve("p"), backbone="timm:resnet18")
    described = zoo.describe(spec)
    assert described["spec"]["backbone"] == "timm:resnet18"
    with pytest.raises(UserError, match="'timm', which is not installed") as caught:
        zoo.build_described(described, 3)
    assert caught.value.fix == 'pip install "eyas[timm]"'
