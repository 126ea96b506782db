from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.foreign import NARROW
from tests.models.nets import IRREGULAR
from tests.models.reference import ROWS, reference_shapes
from torch import Tensor

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.checkpoint import COCO_CLASSES, read_checkpoint
from eyas.models.fuse import fused
from eyas.models.infer import infer_spec, name_of
from eyas.models.public_form import from_public_state, to_public_state
from eyas.models.spec import YoloNasSpec
from eyas.models.weights import save_model

SMALL = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}


def layout(kind: str, weights: dict[str, Tensor]) -> dict[str, Any]:
    """Return a checkpoint as the published tools write it."""
    spread = {f"module.{name}": value for name, value in weights.items()}
    wrong = {name: torch.zeros_like(value) for name, value in weights.items()}
    return {
        "plain": dict(weights),
        "net": {"net": weights, "epoch": 3, "acc": torch.tensor(0.5)},
        "ema_net": {"net": wrong, "ema_net": weights, "optimizer_state_dict": {"lr": [1.0]}},
        "state_dict": {"state_dict": weights, "metrics": {"mAP": 0.4}},
        "net, module": {"net": spread},
        "ema_net, module": {"net": wrong, "ema_net": {f"module.{name}": value for name, value in spread.items()}},
        "with a constant": {"net": {**weights, "backbone.id_tensor": torch.zeros(1)}},
        "compiled": {"net": {f"_orig_mod.{name}": value for name, value in weights.items()}},
        "compiled, module": {"net": {f"module._orig_mod.{name}": value for name, value in weights.items()}},
    }[kind]


LAYOUTS = ("plain", "net", "ema_net", "state_dict", "net, module", "ema_net, module", "with a constant")
LAYOUTS += ("compiled", "compiled, module")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_every_layout_gives_the_same_weights(tmp_path: Path, kind: str) -> None:
    torch.save(layout(kind, SMALL), tmp_path / "a.pth")
    state = read_checkpoint(tmp_path / "a.pth").state
    assert set(state) == set(SMALL)
    assert all(torch.equal(state[name], value) for name, value in SMALL.items())


def test_published_small_net_is_recognized_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = {name: torch.rand(shape) for name, shape in reference_shapes("yolo_nas_s", 5).items()}
    source = {name: value.long() if "num_batches" in name else value for name, value in source.items()}
    torch.save({"net": {f"module.{name}": value for name, value in source.items()}}, tmp_path / "s.pth")
    checkpoint = read_checkpoint(tmp_path / "s.pth")
    net = checkpoint.network()
    assert checkpoint.spec() == "yolo_nas_s" and net.num_classes == 5 and net.spec == zoo.resolve("s")
    loaded = net.state_dict()
    assert loaded.keys() == from_public_state(source).keys() < source.keys()
    assert all(torch.equal(value, source[key]) for key, value in loaded.items())


@pytest.mark.parametrize("name", ROWS)
def test_size_is_found_from_shapes(name: str) -> None:
    with torch.device("meta"):
        state = {key: torch.zeros(shape) for key, shape in reference_shapes(name, 7).items()}
    assert name_of(infer_spec(state)) == name


SPECS = [
    *zoo.SPECS,
    NARROW,
    dataclasses.replace(IRREGULAR, activation="relu"),
    dataclasses.replace(NARROW, head="dual"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_any_widths_and_depths_are_found_from_shapes(spec: str | YoloNasSpec) -> None:
    with torch.device("meta"):
        net = zoo.build(spec, 3)
    expected = zoo.resolve(spec) if isinstance(spec, str) else spec
    assert infer_spec(net.state_dict()) == expected
    assert infer_spec(to_public_state(net.state_dict())) == expected
    assert infer_spec(fused(net).state_dict()) == expected


def test_weights_of_a_smaller_row_are_recognized(tmp_path: Path) -> None:
    save_model(zoo.build("p", 2), tmp_path / "p.safetensors")
    assert read_checkpoint(tmp_path / "p.safetensors").spec() == "yolo_nas_p"


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    torch.save(SMALL, tmp_path / "a.pth")
    with pytest.raises(UserError, match="not YOLO-NAS weights"):
        read_checkpoint(tmp_path / "a.pth").network()
    torch.save({"heads.head1.cls_pred.weight": torch.zeros(2, 8, 1, 1)}, tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"no network that Eyas knows: backbone\.stem"):
        read_checkpoint(tmp_path / "b.pth").network()


@pytest.mark.parametrize("fault", ["missing", "shape"])
def test_incomplete_weights_are_refused_by_name(tmp_path: Path, fault: str) -> None:
    state = {name: torch.zeros(shape) for name, shape in reference_shapes("yolo_nas_s", 2).items()}
    name = "neck.neck2.upsample.weight"
    if fault == "missing":
        del state[name]
    else:
        state[name] = torch.zeros(96, 95, 2, 2)
    torch.save({"net": state}, tmp_path / "s.pth")
    with pytest.raises(UserError, match=r"neck\.neck2\.upsample\.weight"):
        read_checkpoint(tmp_path / "s.pth").network()


class Harmful:
    """Creates the file `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Innocent:
    """A class of somebody's own."""


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    torch.save({"net": SMALL, "x": Harmful(tmp_path / "ran")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match=r"would run code \(posix\.mkdir\)"):
        read_checkpoint(tmp_path / "bad.pth")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "bad.pth", weights_only=False)
    assert (tmp_path / "ran").exists(), "the file is harmless, so the test proves nothing"


def test_an_own_class_in_a_checkpoint_is_refused_with_what_to_do(tmp_path: Path) -> None:
    torch.save({"net": SMALL, "x": Innocent()}, tmp_path / "own.pth")
    with pytest.raises(UserError, match=r"Innocent\)[\s\S]*save only its weights"):
        read_checkpoint(tmp_path / "own.pth")


@pytest.mark.parametrize("content", [b"", b"hello world", b"\x80\x02}q\x00.", bytes(range(256)) * 4])
def test_rubbish_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth"):
        read_checkpoint(tmp_path / "a.pth")


def test_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"net": SMALL}, tmp_path / "a.pth")
    (tmp_path / "a.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:-40])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("content", [{"epoch": 3, "net": "abc"}, [1, 2], {}])
def test_a_checkpoint_without_weights_is_refused_with_what_it_has(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"epoch, net|list|nothing"):
        read_checkpoint(tmp_path / "a.pth")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file a\.pth"):
        read_checkpoint(tmp_path / "a.pth")


def test_the_eighty_classes() -> None:
    assert len(set(COCO_CLASSES)) == 80
    assert (COCO_CLASSES[0], COCO_CLASSES[13], COCO_CLASSES[58], COCO_CLASSES[79]) == (
        "person", "bench", "potted plant", "toothbrush",
    )  # fmt: skip
