"""Bundles from somebody else, or that were damaged: each fault is told in plain words, and nothing is left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.artifacts.test_manifest import change, manifest_of, small_model
from tests.runtime.fakes import write_jpeg

from eyas.artifacts.card import hash_file
from eyas.artifacts.layout import MANIFEST
from eyas.artifacts.manifest import MAX_BYTES
from eyas.cli.main import main
from eyas.errors import UserError
from eyas.runtime.loading import load
from eyas.runtime.onnx_file import has_external_data

openvino = pytest.importorskip("openvino")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EYAS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    onnx.save(small_model(), folder / "model.onnx")
    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)
    return folder


@pytest.fixture
def bundle(compiled: Path, tmp_path: Path) -> Path:
    return make(tmp_path / "bundle", compiled, "onnxruntime", ("model.onnx",))


@pytest.fixture
def ir(compiled: Path, tmp_path: Path) -> Path:
    return make(tmp_path / "ir", compiled, "openvino", ("model.xml", "model.bin"))


def make(folder: Path, compiled: Path, target: str, names: tuple[str, ...]) -> Path:
    """Write a bundle of some of the compiled files; the first one is the entry."""
    folder.mkdir()
    for name in ("model.onnx", *names):
        (folder / name).write_bytes((compiled / name).read_bytes())
    hashes = {name: hash_file(folder / name) for name in names}
    manifest_of(folder, target=target, files=hashes, entry=names[0]).write(folder)
    for name in {"model.onnx"} - set(names):
        (folder / name).unlink()
    return folder


def rehash(folder: Path) -> None:
    named = json.loads((folder / MANIFEST).read_text())["files"]
    change(folder, files={name: hash_file(folder / name) for name in named})


def refused(folder: Path, match: str) -> UserError:
    """Assert that the bundle is refused with these words, and that its folder is as it was; return the error."""
    before = sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*"))
    with pytest.raises(UserError, match=match) as error:
        load(folder)
    assert sorted((path, path.stat().st_mtime_ns) for path in folder.rglob("*")) == before
    return error.value


def test_both_bundles_work_before_they_are_damaged(bundle: Path, ir: Path) -> None:
    for folder in (bundle, ir):
        with load(folder) as detector:
            assert len(detector(np.full((64, 96, 3), 200, np.uint8))) == 2


def test_a_missing_runtime_names_its_command(ir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert refused(ir, "package 'openvino', which is not installed").fix == 'pip install "eyas[openvino]"'


def test_a_refused_bundle_leaves_no_output(ir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (ir / "model.bin").write_bytes(b"changed")
    street = write_jpeg(tmp_path / "street.jpg")
    assert main(["detect", str(ir), str(street), "--out", str(tmp_path / "found"), "--save-json"]) == 2
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
def test_an_ir_without_one_of_its_files(ir: Path, name: str) -> None:
    (ir / name).unlink()
    refused(ir, f"{name} is missing")


def test_an_ir_whose_weights_the_manifest_does_not_name(ir: Path) -> None:
    """They would be read without having been hashed, through a link from anywhere."""
    change(ir, files={"model.xml": hash_file(ir / "model.xml")})
    (ir / "model.bin").rename(ir.parent / "elsewhere.bin")
    (ir / "model.bin").symlink_to(ir.parent / "elsewhere.bin")
    assert ".bin of the same name" in refused(ir, "entry is model.xml").expected


@pytest.mark.parametrize("name", ["model.xml", "model.bin"])
@pytest.mark.parametrize(
    "damage", [lambda data: b"", lambda data: data[: len(data) // 2], lambda data: b"\x00\xff" * 99]
)
def test_an_ir_that_is_damaged(ir: Path, name: str, damage: Callable[[bytes], bytes]) -> None:
    (ir / name).write_bytes(damage((ir / name).read_bytes()))
    refused(ir, f"{name} was changed")
    rehash(ir)
    if name == "model.xml" or len((ir / name).read_bytes()) < 99:
        refused(ir, r"can't open model\.xml")


def test_openvino_opens_nothing_but_ir(bundle: Path) -> None:
    """Its reader of ONNX would follow external data to wherever they are said to lie."""
    (bundle / "model.onnx").write_bytes(with_external("/etc/hostname").SerializeToString())
    rehash(bundle)
    change(bundle, target="openvino")
    refused(bundle, "entry is model.onnx")


def external(location: str) -> TensorProto:
    """Return a tensor whose values lie in another file."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def with_external(location: str) -> onnx.ModelProto:
    """Return the small graph with a weight that lies in another file."""
    model = small_model()
    model.graph.initializer.append(external(location))
    return model


def inside_a_function(model: onnx.ModelProto) -> None:
    """Put an external tensor into a function of the model."""
    node = helper.make_node("Constant", [], ["c"], value=external("x"))
    model.functions.append(helper.make_function("own", "f", [], ["c"], [node], [helper.make_opsetid("", 20)]))


def inside_a_branch(model: onnx.ModelProto) -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("x"))
    inner = helper.make_graph([node], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["a"], ["b"], then_branch=inner, else_branch=inner))


def inside_a_sparse_tensor(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add().values.CopyFrom(external("x"))


def inside_a_list_of_tensors(model: onnx.ModelProto) -> None:
    """Put an external tensor among those of an attribute."""
    node = helper.make_node("Own", [], ["c"], domain="own")
    node.attribute.append(helper.make_attribute("many", [external("x")]))
    model.graph.node.append(node)


def inside_training(model: onnx.ModelProto) -> None:
    """Put an external tensor into what a training graph starts with."""
    model.training_info.add().initialization.initializer.append(external("x"))


HIDDEN = (inside_a_function, inside_a_branch, inside_a_sparse_tensor, inside_a_list_of_tensors, inside_training)


@pytest.mark.parametrize("hide", HIDDEN)
def test_external_data_is_found_wherever_it_hides(bundle: Path, hide: Callable[[onnx.ModelProto], None]) -> None:
    model = small_model()
    assert not has_external_data(model.SerializeToString())
    hide(model)
    assert has_external_data(model.SerializeToString())
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    rehash(bundle)
    refused(bundle, "refers to other files for its weights")


def test_external_data_behind_a_link_inside_the_folder(bundle: Path) -> None:
    secret = bundle.parent / "secret.bin"
    secret.write_bytes(bytes(4))
    (bundle / "weights.bin").symlink_to(secret)
    (bundle / "model.onnx").write_bytes(with_external("weights.bin").SerializeToString())
    rehash(bundle)
    refused(bundle, "refers to other files for its weights")


def test_a_graph_nested_deeper_than_python_follows(bundle: Path) -> None:
    nested = b""
    for _ in range(3000):  # graph { node { attribute { graph { ... } } } }
        for key in (0x32, 0x2A, 0x0A):
            nested = bytes([key]) + varint(len(nested)) + nested
    (bundle / "model.onnx").write_bytes(bytes([0x3A]) + varint(len(nested)) + nested)
    rehash(bundle)
    refused(bundle, "not an ONNX file")


def varint(value: int) -> bytes:
    groups = []
    while True:
        groups.append(value & 127)
        value >>= 7
        if not value:
            return bytes([group | 128 for group in groups[:-1]] + groups[-1:])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('{"format": "eyas-bundle", "details": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deep"),
        ('{"format": "eyas-bundle", "candidates": ' + "9" * 5000 + "}", "not valid JSON"),
        ("\ufeff{}", "not a bundle manifest"),
        ("null", "not a bundle manifest"),
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "not a bundle manifest"),
    ],
    ids=["deep", "digits", "bom", "null", "empty", "cut", "list"],
)
def test_text_that_python_can_t_hold(bundle: Path, text: str, match: str) -> None:
    (bundle / MANIFEST).write_text(text, encoding="utf-8")
    refused(bundle, match)


def test_bytes_that_are_no_text(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes(b"\xff\xfe{}")
    refused(bundle, "not valid JSON")


def test_a_manifest_of_gigabytes_is_not_read(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(MAX_BYTES + 1)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: pytest.fail("it was read"))
    refused(bundle, r"manifest.json has 16 MiB")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("place", ["thresholds", "parity", "details"])
def test_numbers_that_are_not_finite(bundle: Path, place: str, number: str) -> None:
    change(bundle, **{place: "HERE"})
    text = (bundle / MANIFEST).read_text()
    (bundle / MANIFEST).write_text(text.replace('"HERE"', f'{{"soft_sigma": {number}}}'))
    assert refused(bundle, r"NaN or (an )?infinite").problem.count("is not valid") <= 1
