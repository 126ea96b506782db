"""Checkpoints as SuperGradients' Trainer writes them, of a network small enough for tests."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.models.nets import with_random_statistics
from torch import Tensor

from eyas.models import zoo
from eyas.models.detection_net import DetectionNet
from eyas.models.fuse import fold_bn
from eyas.models.layers import QARepVGG
from eyas.models.public_form import to_public_state
from eyas.models.spec import StageSpec, YoloNasSpec

# YOLO-NAS S, eight times narrower.
NARROW = YoloNasSpec(
    stem_width=6,
    stages=tuple(StageSpec(width, depth, width // 3) for width, depth in ((12, 2), (24, 3), (48, 5), (96, 2))),
    context_hidden=48,
    context_width=96,
    neck=(
        StageSpec(24, 2, 8), StageSpec(12, 2, 6),
        StageSpec(24, 2, 8, False, "conv"), StageSpec(48, 2, 8, False, "conv"),
    ),
    head_widths=(8, 16, 32),
)  # fmt: skip
NAMES = ("cat", "dog", "red car", "tree", "boat")


def narrow_net(num_classes: int = len(NAMES), seed: int = 0) -> DetectionNet:
    """Return a network with weights and statistics as a training leaves them."""
    torch.manual_seed(seed)
    net = with_random_statistics(zoo.build(NARROW, num_classes))
    for name, value in net.named_parameters():
        if name.endswith("cls_pred.weight"):
            torch.nn.init.normal_(value, std=0.3)
    return net.eval()


def steps(
    size: tuple[int, int] = (64, 64),
    *,
    reverse: int = 1,
    rescale: tuple[int, int] | None = None,
    padding: str = "DetectionBottomRightPadding",
    divisor: float | None = 255.0,
    more: tuple[Any, ...] = (),
) -> dict[str, Any]:
    """Return an image processor as a dataset of SuperGradients describes it."""
    found: list[Any] = ["ReverseImageChannels", {"DetectionLongestMaxSizeRescale": {"output_shape": rescale or size}}]
    found += [{"ReverseImageChannels": {}}] * (reverse - 1)
    found += [{padding: {"output_shape": size, "pad_value": 114}}]
    found += [{"StandardizeImage": {"max_value": divisor}}] if divisor else []
    found += [*more, {"ImagePermute": {"permutation": (2, 0, 1)}}]
    return {"ComposeProcessing": {"processings": found}}  # fmt: skip


def published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights as SuperGradients has them: with a fused kernel beside the branches, which means nothing."""
    return {name: weights.get(name, value + 7) for name, value in to_public_state(weights).items()}


def trained(
    weights: Mapping[str, Tensor],
    ema: Mapping[str, Tensor] | None = None,
    *,
    processing: dict[str, Any] | None = None,
    names: tuple[str, ...] = NAMES,
) -> dict[str, Any]:
    """Return what the Trainer keeps of a run: `ckpt_best.pth`, or `average_model.pth` without an average of weights."""
    said = {"class_names": list(names), "image_processor": processing or steps(), "iou": 0.65, "conf": 0.5}
    metrics = {"mAP@0.50:0.95": np.float64(0.41), "best_score_threshold": np.float32(0.3)}
    found = {
        "net": OrderedDict(published(weights)),
        "acc": np.float64(0.41),
        "epoch": 7,
        "metrics": {"tracked_metric_name": np.str_("mAP@0.50:0.95"), "valid": metrics},
        "packages": {"torch": np.str_("1.13.1"), "numpy": "1.23.0"},
        "processing_params": said,
    }
    if ema is not None:
        found |= {
            "ema_net": OrderedDict(published(ema)),
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-4}]},
        }
        found |= {"scaler_state_dict": {"scale": 65536.0, "growth_factor": 2.0}}
    return found


def partially_fused(net: DetectionNet) -> dict[str, Tensor]:
    """Return the weights with each block's branches as one convolution, and the BatchNorm after it left."""
    state = dict(net.state_dict())
    for name, block in net.named_modules():
        if isinstance(block, QARepVGG):
            kernel, bias = fold_bn(block.branch_3x3.conv.weight, None, block.branch_3x3.bn)
            point = block.branch_1x1.weight.double()
            if block.residual:
                point = point + torch.eye(len(point), dtype=point.dtype)[:, :, None, None]
            kernel = kernel + torch.nn.functional.pad(point, (1, 1, 1, 1))
            state = {key: value for key, value in state.items() if not key.startswith(f"{name}.branch_")}
            state[f"{name}.rbr_reparam.weight"] = kernel.float().detach()
            state[f"{name}.rbr_reparam.bias"] = (bias + block.branch_1x1.bias.double()).float().detach()
    return state


def as_numpy_one(path: Path) -> None:
    """Rewrite a checkpoint as NumPy 1 names its functions: `numpy.core` instead of `numpy._core`."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries.items():
            changed = data.replace(b"cnumpy._core.", b"cnumpy.core.") if name.endswith("data.pkl") else data
            archive.writestr(name, changed)
