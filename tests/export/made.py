"""A run with a network that exports in seconds, on images of synthetic shapes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from tests.models.nets import with_random_statistics
from torch import nn

from eyas.artifacts.card import Card
from eyas.artifacts.layout import CONFIG, RECIPE, WEIGHTS
from eyas.artifacts.run import Run, RunConfig
from eyas.data.shapes import make_shapes
from eyas.files import write_json
from eyas.models import weights, zoo
from eyas.models.heads import HEADS
from eyas.models.spec import StageSpec, YoloNasSpec
from eyas.types import InputSpec, Thresholds, UInt8Array

TINY = YoloNasSpec(
    stem_width=6,
    stages=(StageSpec(8, 1, 4), StageSpec(10, 0, 4), StageSpec(12, 0, 4), StageSpec(12, 0, 4)),
    context_hidden=4,
    context_width=12,
    neck=(StageSpec(8, 0, 4), StageSpec(8, 0, 4), StageSpec(8, 0, 4), StageSpec(8, 1, 4)),
    head_widths=(8, 8, 8),
    reg_max=7,
)


def write_run(folder: Path, data: Path, size: int = 96, spec: YoloNasSpec = TINY) -> Path:
    """Write a run of a network with random weights, whose recipe names the dataset; return its folder."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    classes = _classes(data)
    net = with_random_statistics(zoo.build(spec, len(classes)))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("cls_pred.bias"):
                parameter += 3.5  # from the prior of 0.01 to scores that pass the threshold
    thresholds = Thresholds(confidence=0.05, suppression=HEADS[spec.head].suppression)
    config = RunConfig(zoo.describe(spec), classes, InputSpec(size, size), thresholds)
    Run(folder, config).write()
    weights.save_model(net, folder / WEIGHTS)
    write_json(folder / RECIPE, {"data": {"root": str(data), "train": "train", "val": "val"}})
    Card.write(folder, "run", [CONFIG, RECIPE, WEIGHTS], version="0", created="2026-01-01T00:00:00+00:00")
    return folder


def spare_export(patch: pytest.MonkeyPatch, graph: Path) -> None:
    """Have a graph that was exported once read wherever one would be exported."""
    patch.setattr("eyas.export.bundle.export_graph", lambda *_: onnx.load(graph))


def write_data(folder: Path) -> Path:
    """Write a dataset of a few synthetic images; return its folder."""
    make_shapes(folder, train=6, val=4, size=96)
    return folder


def calibrate_statistics(net: nn.Module, images: UInt8Array) -> None:
    """Give an untrained network what training would: predictions that differ, BatchNorms that know their inputs.

    Without that, activations grow or vanish from layer to layer, and no rounding could be judged on them.

    Args:
        net: is changed, and left in eval mode.
        images: uint8 [N, H, W, 3], what the statistics are taken from.
    """
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "_pred." in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            if name.endswith("cls_pred.bias"):
                parameter += 3.5  # from the prior of 0.01 to scores that pass a threshold
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # the running statistics become the mean over what is seen now
        net.train()
        net(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    net.eval()


def _classes(data: Path) -> tuple[str, ...]:
    from eyas.data.formats import load_dataset

    return load_dataset(data, "val").classes


def computes_in_bf16() -> bool:
    """Return whether OpenVINO computes in bf16 on this processor, which it then does for fp16, too."""
    from eyas.runtime.openvino_core import openvino_core

    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
