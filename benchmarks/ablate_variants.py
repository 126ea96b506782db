"""What the ablation tries: a recipe, and one change of it a row."""

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
from eyas.training import optim
from eyas.training.experiment import Experiment

BASELINE = "AdamW 2e-3"
MUON = "Muon 1e-2"
TEACHER = "{teacher}"  # stands for the run that `--teachers` has for the data set
BCE = "Muon 1e-2, BCE"
FLAT = "Muon 1e-2, BCE, flat half"


@dataclass(frozen=True)
class Variant:
    """A change of a recipe.

    Attributes:
        group: what of the recipe it concerns.
        recipe: fields of the recipe that it sets.
        spec: fields of the model's spec that it sets.
        closing: the share of the epochs that see single images; the recipe's own if None.
        change: what it does to an experiment that is built.
        of: the variant that it changes, "" for the baseline, which is no change of another.
    """

    group: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    closing: float | None = None
    change: Callable[[Experiment], None] | None = None
    of: str = BASELINE

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


def sgd_factor(factor: float) -> Callable[[Experiment], None]:
    """Return what sets how many times the rate of the kernels all else has, in this process."""

    def change(_: Experiment) -> None:
        optim.SGD_FACTOR = factor

    return change


def of_bce(group: str, recipe: Mapping[str, Any] | None = None, **others: Any) -> Variant:
    """Return a change of the recipe with Muon and cross-entropy."""
    return Variant(group, recipe or {}, of=BCE, **others)


def of_flat(group: str, recipe: Mapping[str, Any] | None = None, **others: Any) -> Variant:
    """Return a change of the recipe with Muon, cross-entropy and half of the time at the full rate."""
    return Variant(group, recipe or {}, of=FLAT, **others)


def of_muon(group: str, recipe: Mapping[str, Any] | None = None, **others: Any) -> Variant:
    """Return a change of the recipe with Muon."""
    return Variant(group, recipe or {}, of=MUON, **others)


VARIANTS: Mapping[str, Variant] = MappingProxyType({
    BASELINE: Variant("default", of=""),
    "AdamW 1e-3": Variant("rate", {"optim.lr": 1e-3}),
    "AdamW 4e-3": Variant("rate", {"optim.lr": 4e-3}),
    "AdamW 8e-3": Variant("rate", {"optim.lr": 8e-3}),
    "batch 8": Variant("batch", {"data.batch_size": 8}),
    "no mosaic": Variant("augmentation", {"augment.mosaic": 0.0, "augment.mixup": 0.0}, closing=0.0),
    "Muon 3e-3": Variant("optimizer", {"optim.optimizer": "muon", "optim.lr": 3e-3}),
    MUON: Variant("optimizer", {"optim.optimizer": "muon", "optim.lr": 1e-2}),
    "Muon 2e-2": Variant("optimizer", {"optim.optimizer": "muon", "optim.lr": 2e-2}),
    "Muon 4e-2": Variant("optimizer", {"optim.optimizer": "muon", "optim.lr": 4e-2}),
    # Changes of the recipe with Muon.
    BCE: of_muon("loss", {"loss.classification": "bce"}),
    "+ quality focal": of_muon("loss", {"loss.classification": "quality_focal"}),
    "+ flat half": of_muon("schedule", {"optim.flat": 0.5}),
    # Changes of that with cross-entropy.
    FLAT: of_bce("schedule", {"optim.flat": 0.5}),
    # Changes of that with half of the time at the full rate.
    "+ batch 8": of_flat("batch", {"data.batch_size": 8}),
    "+ batch 32": of_flat("batch", {"data.batch_size": 32}),
    "+ no mosaic": of_flat("augmentation", {"augment.mosaic": 0.0, "augment.mixup": 0.0}, closing=0.0),
    "+ mosaic 0.5": of_flat("augmentation", {"augment.mosaic": 0.5}),
    "+ closing 30 %": of_flat("augmentation", closing=0.3),
    "+ closing 50 %": of_flat("augmentation", closing=0.5),
    "+ no mixup": of_flat("augmentation", {"augment.mixup": 0.0}),
    "+ scale 0.75-1.33": of_flat("augmentation", {"augment.scale": (0.75, 1.33)}),
    "+ BatchNorm momentum 0.1": of_flat("normalization", change=batch_norm("momentum", 0.1)),
    "+ BatchNorm eps 1e-5": of_flat("normalization", change=batch_norm("eps", 1e-5)),
    "+ SiLU": of_flat("activation", spec={"activation": "silu"}),
    "+ hard-swish": of_flat("activation", spec={"activation": "hardswish"}),
    "+ conflicts over all": of_flat("assignment", {"loss.assigner.conflicts": "all"}),
    "+ top-k 10": of_flat("assignment", {"loss.assigner.top_k": 10}),
    "+ top-k 7": of_flat("assignment", {"loss.assigner.top_k": 7}),
    "+ alpha 0.5": of_flat("assignment", {"loss.assigner.alpha": 0.5}),
    "+ beta 4": of_flat("assignment", {"loss.assigner.beta": 4.0}),
    "+ IoU weight 5": of_flat("loss", {"loss.iou_weight": 5.0}),
    "+ DFL weight 1.5": of_flat("loss", {"loss.dfl_weight": 1.5}),
    "+ class weight 0.5": of_flat("loss", {"loss.class_weight": 0.5}),
    "+ flat 0.75": of_flat("schedule", {"optim.flat": 0.75}),
    "+ flat 0.25": of_flat("schedule", {"optim.flat": 0.25}),
    "+ rate 5e-3": of_flat("rate", {"optim.lr": 5e-3}),
    "+ rate 2e-2": of_flat("rate", {"optim.lr": 2e-2}),
    "+ SGD at the same rate": of_flat("optimizer", change=sgd_factor(1.0)),
    "+ SGD at 20 times the rate": of_flat("optimizer", change=sgd_factor(20.0)),
    "+ a teacher": of_flat("distillation", {"distill.teacher": TEACHER}),
    "+ a teacher's responses": of_flat(
        "distillation", {"distill.teacher": TEACHER, "distill.features": 0.0, "distill.localisation": 0.0}
    ),
    "+ dual head": of_flat("head", {"model.head": "dual"}),
    "+ EMA to 0.998": of_flat("average", {"optim.ema": 0.998}),
    "+ weight decay 0.005": of_flat("weight decay", {"optim.weight_decay": 0.005}),
    "+ weight decay 0.1": of_flat("weight decay", {"optim.weight_decay": 0.1}),
    "+ equal bins": of_flat("initial boxes", change=equal_bins),
    # What gains by itself, together.
    "+ closing, IoU 5": of_flat("combination", {"loss.iou_weight": 5.0}, closing=0.3),
    "+ closing, IoU 5, decay 0.1": of_flat(
        "combination", {"loss.iou_weight": 5.0, "optim.weight_decay": 0.1}, closing=0.3
    ),
    "+ closing, IoU 5, decay 0.1, flat 0.75": of_flat(
        "combination", {"loss.iou_weight": 5.0, "optim.weight_decay": 0.1, "optim.flat": 0.75}, closing=0.3
    ),
    "+ fp32": of_flat("precision", {"trainer.precision": "32-true"}),
})  # fmt: skip


def lineage(name: str) -> list[Variant]:
    """Return a variant after those that it changes."""
    variant = VARIANTS[name]
    return [*(lineage(variant.of) if variant.of else []), variant]


def whole(name: str) -> Variant:
    """Return a variant with all that it changes of the baseline."""
    line = lineage(name)
    return Variant(
        line[-1].group,
        {field: value for one in line for field, value in one.recipe.items()},
        {field: value for one in line for field, value in one.spec.items()},
        next((one.closing for one in reversed(line) if one.closing is not None), None),
        next((one.change for one in reversed(line) if one.change is not None), None),
        line[-1].of,
    )
