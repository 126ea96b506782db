"""A checkpoint as SuperGradients writes it becomes a run that gives the very same answers."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from tests.models.foreign import NAMES, as_numpy_one, narrow_net, partially_fused, steps, trained

from eyas.artifacts import layout
from eyas.artifacts.card import Card
from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.letterbox import letterbox
from eyas.models.checkpoint import COCO_CLASSES
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fuse_blocks, fused
from eyas.models.importing import import_checkpoint
from eyas.models.weights import load_model
from eyas.models.zoo import build_described

IMAGE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def saved(path: Path, content: Any, *, numpy_one: bool = False) -> Path:
    torch.save(content, path)
    if numpy_one:
        as_numpy_one(path)
    return path


def wrong(net: DetectionNet) -> dict[str, torch.Tensor]:
    return {name: torch.zeros_like(value) for name, value in net.state_dict().items()}


FORMS = {
    "average_model.pth": lambda net: trained(net.state_dict()),
    "ckpt_best.pth": lambda net: trained(wrong(net), net.state_dict()),
    "in parallel": lambda net: trained({f"module.{name}": value for name, value in net.state_dict().items()}),
    "partially fused": lambda net: trained(partially_fused(net)),
    "a part of the blocks fused": lambda net: trained(
        {**partially_fused(net), **{k: v for k, v in net.state_dict().items() if k.startswith(("neck.", "heads."))}}
    ),
    "blocks fused": lambda net: trained(fuse_blocks(net).state_dict()),
    "wholly fused": lambda net: trained(fused(net).state_dict()),
    "half precision": lambda net: trained({name: value.half() for name, value in net.state_dict().items()}),
    "whole networks": lambda net: {"net": net.state_dict(), "processing_params": trained({})["processing_params"]},
}


@pytest.mark.parametrize("numpy_one", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_networks_answers(tmp_path: Path, form: str, numpy_one: bool) -> None:
    net = narrow_net()
    net = net.half().float() if form == "half precision" else net
    path = saved(tmp_path / "a.pth", FORMS[form](net), numpy_one=numpy_one)
    run = import_checkpoint(path, tmp_path / "run")
    frame = np.full((64, 64, 3), 114, np.uint8)
    frame[:48] = IMAGE
    expected = torch.from_numpy(frame[None, :, :, ::-1].copy()).permute(0, 3, 1, 2) / 255  # RGB or BGR
    assert_same_answers(net, expected, run)


def assert_same_answers(net: DetectionNet, network_input: torch.Tensor, run: Path, tolerance: float = 2e-3) -> None:
    """Hold what the run's detector says of IMAGE against what the network says of what it is to be fed."""
    with torch.no_grad():
        output = net(network_input.float())
    config = Run.read(run).config
    frame, _ = letterbox(IMAGE, config.input)
    own = load_model(run / layout.WEIGHTS, build_described(config.model, len(config.classes))).eval()
    with torch.no_grad():
        got = own(torch.from_numpy(frame[None]).permute(0, 3, 1, 2).float() * config.input.scale)
    torch.testing.assert_close(got.class_logits, output.class_logits, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(got.box_logits, output.box_logits, rtol=tolerance, atol=tolerance)


MEAN_FREE = {"NormalizeImage": {"mean": np.zeros((1, 1, 3), np.float32), "std": [0.5, 0.25, 0.125]}}
# Steps -> what they do to IMAGE, written down step by step: its place in the frame, then the values.
CONTRACTS: dict[str, tuple[dict[str, Any], int, Any]] = {
    "published": (steps(reverse=2, padding="DetectionCenterPadding"), 8, lambda x: x / 255),
    "RGB or BGR": (steps(), 0, lambda x: x[..., ::-1] / 255),
    "raw values": (steps(divisor=None), 0, lambda x: x[..., ::-1]),
    "another divisor": (steps(divisor=128.0, reverse=2), 0, lambda x: x / 128),
    "deviations": (steps(more=(MEAN_FREE,)), 0, lambda x: x[..., ::-1] / 255 / np.array([0.5, 0.25, 0.125])),
    "deviations, red first": (steps(reverse=2, more=(MEAN_FREE,)), 0, lambda x: x / 255 / np.array([0.5, 0.25, 0.125])),
    "reversed after deviations": (
        steps(more=(MEAN_FREE, {"ReverseImageChannels": {}})), 0,
        lambda x: (x[..., ::-1] / 255 / np.array([0.5, 0.25, 0.125]))[..., ::-1],
    ),
    "lists within lists": ({"ComposeProcessing": {"processings": [steps()]}}, 0, lambda x: x[..., ::-1] / 255),
    "numpy's sizes": (steps((np.int64(64), np.int64(64))), 0, lambda x: x[..., ::-1] / 255),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("name", CONTRACTS)
def test_the_input_contract_is_the_files(tmp_path: Path, name: str) -> None:
    processing, top, values = CONTRACTS[name]
    net = narrow_net()
    path = saved(tmp_path / "a.pth", trained(net.state_dict(), processing=processing))
    run = import_checkpoint(path, tmp_path / "run")
    frame = np.full((64, 64, 3), 114.0)
    frame[top : top + 48] = IMAGE
    network_input = torch.from_numpy(np.ascontiguousarray(values(frame))).permute(2, 0, 1)[None]
    assert_same_answers(net, network_input, run, tolerance=0.02)


REFUSED = {
    "a mean": (steps(more=({"NormalizeImage": {"mean": [0.4, 0.4, 0.4], "std": [1, 1, 1]}},)), "NormalizeImage"),
    "stretched": (steps(more=({"DetectionRescale": {"output_shape": (64, 64)}},)), "DetectionRescale"),
    "unequal margins": (steps((64, 96), rescale=(60, 96)), "fitted into"),
    "padded with a fraction": (steps(more=({"DetectionCenterPadding": {"output_shape": (64, 64)}},)), "padded twice"),
    "no size": ({"ComposeProcessing": {"processings": ["ReverseImageChannels"]}}, "size"),
    "no steps": ({"ComposeProcessing": {"processings": [3]}}, "step"),
    "no multiple of 32": (steps((60, 60)), "60"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_input_that_eyas_does_not_give_is_refused_by_name(tmp_path: Path, name: str) -> None:
    processing, told = REFUSED[name]
    path = saved(tmp_path / "a.pth", trained(narrow_net().state_dict(), processing=processing))
    with pytest.raises(UserError, match=told):
        import_checkpoint(path, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    config = Run.read(import_checkpoint(path, tmp_path / "run", input="published")).config
    assert (config.input.width, config.input.margin, config.input.pad_mode) == (640, 4, "center")


def foreign(monkeypatch: pytest.MonkeyPatch, name: str, state: dict[str, Any]) -> Any:
    """Return an object whose class has that full name; there is such a module only while the test runs."""
    module, _, short = name.rpartition(".")
    parts = module.split(".")
    for length in range(1, len(parts) + 1):
        above = ".".join(parts[:length])
        monkeypatch.setitem(sys.modules, above, sys.modules.get(above) or ModuleType(above))
    made = sys.modules[module]
    if not hasattr(made, short):
        setattr(made, short, type(short, (), {"__module__": module}))
    found = vars(made)[short]()
    found.__dict__.update(state)
    return found


def test_objects_of_supergradients_mean_what_their_descriptions_mean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(name: str, **state: Any) -> Any:
        return foreign(monkeypatch, f"super_gradients.training.processing.processing.{name}", state)

    chain = [
        step("DetectionLongestMaxSizeRescale", output_shape=(60, 60)),
        step("DetectionCenterPadding", output_shape=(64, 64), pad_value=114),
        step("StandardizeImage", max_value=255.0),
        step("NormalizeImage", mean=np.zeros((1, 1, 3), np.float32), std=np.full((1, 1, 3), 0.5, np.float32)),
        step("ImagePermute", permutation=(2, 0, 1)),
    ]
    content = trained(narrow_net().state_dict(), processing=step("ComposeProcessing", processings=chain))
    config = Run.read(import_checkpoint(saved(tmp_path / "a.pth", content), tmp_path / "run")).config
    assert (config.input.width, config.input.margin, config.input.pad_mode) == (64, 4, "center")


def test_names_in_omegaconf_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def node(name: str, **state: Any) -> Any:
        return foreign(monkeypatch, f"omegaconf.{name}", state)

    names = node("listconfig.ListConfig", _metadata=None, _parent=None)
    names._content = [node("nodes.AnyNode", _val=name, _parent=names) for name in NAMES]
    content = trained(narrow_net().state_dict())
    content["processing_params"]["class_names"] = names
    content["settings"] = node("dictconfig.DictConfig", _content={"a": node("nodes.AnyNode", _val=3)})
    config = Run.read(import_checkpoint(saved(tmp_path / "a.pth", content), tmp_path / "run")).config
    assert config.classes == NAMES


def without_spec(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in ("spec", "vocabulary")}


def test_a_whole_network_of_supergradients_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved as it is, not as a state dict: its class is unknown here, its tensors are not."""
    net = narrow_net()
    for module in net.modules():
        if type(module).__module__.startswith("eyas"):
            kind = type(foreign(monkeypatch, f"super_gradients.modules.{type(module).__name__}", {}))
            monkeypatch.setattr(type(module), "__reduce__", lambda self, kind=kind: (kind, (), without_spec(self)))
    torch.save(net, tmp_path / "a.pth")
    monkeypatch.undo()
    run = import_checkpoint(tmp_path / "a.pth", tmp_path / "run", classes=NAMES)
    config = Run.read(run).config
    own = load_model(run / layout.WEIGHTS, build_described(config.model, len(config.classes)))
    assert all(torch.equal(own.state_dict()[name], value) for name, value in net.state_dict().items())


def test_names_and_thresholds_come_from_the_file(tmp_path: Path) -> None:
    content = trained(narrow_net().state_dict())
    content["processing_params"] |= {"nms_top_k": 400, "max_predictions": 50, "class_agnostic_nms": True}
    content["processing_params"]["conf"] = np.float64(0.35)
    config = Run.read(import_checkpoint(saved(tmp_path / "a.pth", content), tmp_path / "run")).config
    assert config.classes == NAMES
    found = config.thresholds
    assert (found.confidence, found.iou, found.candidates, found.max_detections) == (0.35, 0.65, 400, 50)
    assert found.suppression == "class_agnostic"


@pytest.mark.parametrize("num", [5, 79, 80, 81])
def test_coco_is_taken_only_for_80_nameless_classes_and_said_aloud(tmp_path: Path, num: int) -> None:
    path = saved(tmp_path / "a.pth", {"net": narrow_net(num).state_dict()})
    said: list[str] = []
    if num != 80:
        with pytest.raises(UserError, match=rf"does not name its {num} classes[\s\S]*eyas import .*--classes"):
            import_checkpoint(path, tmp_path / "run")
        return
    run = import_checkpoint(path, tmp_path / "run", tell=said.append)
    assert Run.read(run).config.classes == COCO_CLASSES
    assert any("COCO's are assumed" in line for line in said)
    assert any("COCO's are assumed" in line for line in Card.read(run).recipe["notes"])


def test_eighty_own_names_are_not_cocos(tmp_path: Path) -> None:
    names = tuple(f"part {i}" for i in range(80))
    path = saved(tmp_path / "a.pth", trained(narrow_net(80).state_dict(), names=names))
    assert Run.read(import_checkpoint(path, tmp_path / "run")).config.classes == names
    given = tuple(f"piece {i}" for i in range(80))
    assert Run.read(import_checkpoint(path, tmp_path / "b", classes=given)).config.classes == given


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (NAMES[:4], "lists 4 class names"),
        ((*NAMES, "six"), "lists 6 class names"),
        (("a", "b", "a", "c", "d"), "twice"),
    ],
)
def test_wrong_names_in_the_file_are_told(tmp_path: Path, names: tuple[str, ...], told: str) -> None:
    path = saved(tmp_path / "a.pth", trained(narrow_net().state_dict(), names=names))
    with pytest.raises(UserError, match=told):
        import_checkpoint(path, tmp_path / "run")
    assert Run.read(import_checkpoint(path, tmp_path / "run", classes=NAMES)).config.classes == NAMES


def test_the_card_names_source_hash_and_licence(tmp_path: Path) -> None:
    path = saved(tmp_path / "ckpt_best.pth", trained(wrong(narrow_net()), narrow_net().state_dict()))
    card = Card.verify(import_checkpoint(path, tmp_path / "run"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert card.parents == [{"kind": "checkpoint", "path": str(path), "sha256": digest}]
    assert (card.recipe["imported"], card.recipe["sha256"], card.recipe["weights"]) == (
        "ckpt_best.pth", digest, "ema_net",
    )  # fmt: skip
    assert "does not say" in card.recipe["licence"]
    own = import_checkpoint(path, tmp_path / "own", licence="CC-BY-4.0")
    assert Card.read(own).recipe["licence"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("name", "num", "published"),
    [
        ("yolo_nas_s_coco.pth", 80, True), ("yolo_nas_l_coco (1).pth", 80, True), ("ckpt_best.pth", 80, False),
        ("yolo_nas_s_coco.pth", 5, False), ("yolo_nas_s_coco_mine.pth", 80, False),
    ],
)  # fmt: skip
def test_only_published_weights_get_the_note_on_commercial_use(
    tmp_path: Path, name: str, num: int, published: bool
) -> None:
    path = saved(tmp_path / name, {"net": narrow_net(num).state_dict()})
    said: list[str] = []
    names = None if num == 80 else NAMES
    run = import_checkpoint(path, tmp_path / "run", classes=names, tell=said.append)
    assert any("non-commercial" in line for line in said) is published
    assert ("non-commercial" in json.dumps(Card.read(run).recipe)) is published


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    state = {name: tensor.clone() for name, tensor in narrow_net().state_dict().items()}
    state["neck.neck1.upsample.bias"][3] = value
    with pytest.raises(UserError, match=r"not finite: in neck\.neck1\.upsample\.bias"):
        import_checkpoint(saved(tmp_path / "a.pth", trained(state)), tmp_path / "run")


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", trained(narrow_net().state_dict()))
    run = import_checkpoint(path, tmp_path / "run")
    before = (run / "config.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        import_checkpoint(path, run)
    assert (run / "config.json").read_bytes() == before


@pytest.mark.parametrize(("name", "told"), [("a.onnx", "compiled graph"), ("a.txt", "not a checkpoint")])
def test_other_files_are_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / name).write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=told):
        import_checkpoint(tmp_path / name, tmp_path / "run")


def test_a_folder_of_checkpoints_is_answered_with_its_best(tmp_path: Path) -> None:
    for name in ("average_model.pth", "ckpt_best.pth"):
        saved(tmp_path / name, trained(narrow_net().state_dict()))
    with pytest.raises(UserError, match=r"ckpt_best\.pth"):
        import_checkpoint(tmp_path, tmp_path / "run")


def test_partially_fused_weights_can_be_trained_on(tmp_path: Path) -> None:
    """The second BatchNorm of a block undoes what the first one does: in training, too, it is the same function."""
    net = narrow_net()
    path = saved(tmp_path / "a.pth", trained(partially_fused(net)))
    run = import_checkpoint(path, tmp_path / "run")
    config = Run.read(run).config
    own = load_model(run / layout.WEIGHTS, build_described(config.model, len(config.classes))).train()
    block = own.backbone.stage2.blocks.bottlenecks[0].cv1
    original = net.backbone.stage2.blocks.bottlenecks[0].cv1
    x = torch.randn(4, block.branch_1x1.in_channels, 12, 12)
    kernel = partially_fused(net)["backbone.stage2.blocks.bottlenecks.0.cv1.rbr_reparam.weight"]
    z = torch.nn.functional.conv2d(x, kernel, padding=1)
    normal = (z - z.mean((0, 2, 3), keepdim=True)) / z.var((0, 2, 3), unbiased=False, keepdim=True).add(1e-3).sqrt()
    weight, bias = original.post_bn.weight, original.post_bn.bias
    expected = torch.relu(normal * weight[:, None, None] + bias[:, None, None])
    torch.testing.assert_close(block(x), expected, rtol=0.02, atol=0.02)
