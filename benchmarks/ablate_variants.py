"""What the ablation tries: the default recipe, and one change of it a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from eyas.models.detection_net import DetectionNet
from eyas.models.heads.ndfl import Head
from eyas.models.spec import YoloNasSpec
from eyas.training.experiment import Experiment


@dataclass(frozen=True)
class Variant:
    """A change of the default recipe.

    Attributes:
        group: what of the recipe it concerns.
        recipe: fields of the recipe that it sets.
        spec: fields of the model's spec that it sets.
        closing: the share of the epochs that see single images; the recipe's own if None.
        change: what it does to an experiment that is built.
    """

    group: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    closing: float | None = None
    change: Callable[[Experiment], None] | None = None

    def spec_of(self, spec: YoloNasSpec) -> YoloNasSpec:
        """Return the spec with the variant's fields."""
        return dataclasses.replace(spec, **self.spec)


def batch_norm(name: str, value: float) -> Callable[[Experiment], None]:
    """Return what sets an attribute of every BatchNorm of the network."""

    def change(experiment: Experiment) -> None:
        for module in experiment.module.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                setattr(module, name, value)

    return change


def equal_bins(experiment: Experiment) -> None:
    """Let the untrained head say boxes of sixteen strides, as bins of equal weight do (SuperGradients)."""
    assert isinstance(experiment.module.net, DetectionNet)
    for module in experiment.module.net.heads.modules():
        if isinstance(module, Head) and module.reg_pred.bias is not None:
            with torch.no_grad():
                module.reg_pred.bias.zero_()


BASELINE = "default"
VARIANTS: Mapping[str, Variant] = MappingProxyType({
    BASELINE: Variant("default"),
    "batch 8": Variant("batch and rate", {"data.batch_size": 8}),
    "batch 4": Variant("batch and rate", {"data.batch_size": 4, "optim.lr": 1.4e-3}),
    "batch 32": Variant("batch and rate", {"data.batch_size": 32, "optim.lr": 2.8e-3}),
    "lr 1e-3": Variant("batch and rate", {"optim.lr": 1e-3}),
    "lr 4e-3": Variant("batch and rate", {"optim.lr": 4e-3}),
    "no mosaic": Variant("augmentation", {"augment.mosaic": 0.0, "augment.mixup": 0.0}, closing=0.0),
    "mosaic 0.5": Variant("augmentation", {"augment.mosaic": 0.5}),
    "closing 30 %": Variant("augmentation", closing=0.3),
    "closing 50 %": Variant("augmentation", closing=0.5),
    "no mixup": Variant("augmentation", {"augment.mixup": 0.0}),
    "scale 0.75-1.33": Variant("augmentation", {"augment.scale": (0.75, 1.33)}),
    "BatchNorm momentum 0.1": Variant("normalization", change=batch_norm("momentum", 0.1)),
    "BatchNorm eps 1e-5": Variant("normalization", change=batch_norm("eps", 1e-5)),
    "SiLU": Variant("activation", spec={"activation": "silu"}),
    "hard-swish": Variant("activation", spec={"activation": "hardswish"}),
    "conflicts over all": Variant("assignment", {"loss.assigner.conflicts": "all"}),
    "top-k 10": Variant("assignment", {"loss.assigner.top_k": 10}),
    "top-k 7": Variant("assignment", {"loss.assigner.top_k": 7}),
    "alpha 0.5": Variant("assignment", {"loss.assigner.alpha": 0.5}),
    "beta 4": Variant("assignment", {"loss.assigner.beta": 4.0}),
    "IoU weight 5": Variant("loss", {"loss.iou_weight": 5.0}),
    "DFL weight 1.5": Variant("loss", {"loss.dfl_weight": 1.5}),
    "class weight 2": Variant("loss", {"loss.class_weight": 2.0}),
    "BCE on quality": Variant("loss", {"loss.classification": "bce"}),
    "quality focal": Variant("loss", {"loss.classification": "quality_focal"}),
    "Muon": Variant("optimizer", {"optim.optimizer": "muon"}),
    "Muon, lr 5e-3": Variant("optimizer", {"optim.optimizer": "muon", "optim.lr": 5e-3}),
    "flat half, then cosine": Variant("schedule", {"optim.flat": 0.5}),
    "EMA to 0.998": Variant("average", {"optim.ema": 0.998}),
    "weight decay 0.005": Variant("weight decay", {"optim.weight_decay": 0.005}),
    "weight decay 0.1": Variant("weight decay", {"optim.weight_decay": 0.1}),
    "fp32": Variant("precision", {"trainer.precision": "32-true"}),
    "equal bins": Variant("initial boxes", change=equal_bins),
})  # fmt: skip
