"""The named recipes: plain functions that return one. Fields can be overridden from a file or the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from eyas.assign.settings import TaskAlignedSettings
from eyas.data.augment.config import AugmentPolicy
from eyas.errors import row_of
from eyas.losses.settings import LossSettings
from eyas.training.recipe import DataRecipe, ModelRecipe, OptimRecipe, Recipe, TrainerRecipe


def scratch() -> Recipe:
    """Return the recipe for training from random weights on one's own images: what learnt most from the same minutes.

    `benchmarks/ablation.md` has what each of its choices is worth.
    """
    return Recipe(
        name="scratch",
        optim=OptimRecipe(optimizer="muon", lr=1e-2, flat=0.5),
        loss=LossSettings(classification="bce"),
        trainer=TrainerRecipe(close_epochs=30),
    )


def finetune() -> Recipe:
    """Return the recipe for starting from trained weights: a lower rate, milder augmentation, 30 epochs."""
    return Recipe(
        name="finetune",
        augment=AugmentPolicy(mosaic=0.5, mixup=0.0),
        optim=OptimRecipe(lr=4e-4, weight_decay=1e-2, warmup_steps=100, ema=0.999),
        trainer=TrainerRecipe(epochs=30, close_epochs=5, patience=10),
    )


def yolo_nas_coco() -> Recipe:
    """Return the recipe that YOLO-NAS S was published with, for COCO on 8 GPUs (256 images a step).

    It is what the files of super-gradients 3.7.1 say: 300 epochs of AdamW at 2e-4, weight decay 1e-5, warm-up of 1000
    steps and at most one epoch from 1e-6, cosine to a tenth, EMA 0.9997; affine, swapped channels, HSV, flip and mixup
    within the image; no mosaic; images without objects left out; the mean of the ten best epochs at the end.
    What differs stands in docs/from-supergradients.md. The published weights came from more than this (Objects365
    pre-training and pseudo-labels), so the recipe alone does not reach their AP.
    """
    return Recipe(
        name="yolo_nas_coco",
        model=ModelRecipe(name="s"),
        data=DataRecipe(batch_size=32, drop_empty=True),
        augment=AugmentPolicy(
            mosaic=0.0,
            mixup=0.5,
            translate=0.25,
            gain=0.0,
            offset=0.0,
            saturation=0.0,
            hue=0.0,
            tint=0.0,
            swap=0.5,
            hsv=(18.0, 30.0, 30.0),
            hsv_chance=0.5,
            within="image",
            min_area=0.0,
            min_visible=0.0,
            min_ratio=0.1,
            max_aspect=20.0,
        ),
        optim=OptimRecipe(
            lr=2e-4,
            weight_decay=1e-5,
            clip_norm=0.0,
            warmup_steps=1000,
            warmup_epochs=1.0,
            warmup_factor=5e-3,
            final_factor=0.1,
            ema=0.9997,
        ),
        loss=LossSettings(assigner=TaskAlignedSettings(conflicts="all")),
        trainer=TrainerRecipe(epochs=300, close_epochs=0, devices=8, accelerator="cuda", average_best=10),
    )


def quick() -> Recipe:
    """Return the recipe for a first look within minutes on a CPU: the pico net at 256 px, light augmentation."""
    return Recipe(
        name="quick",
        model=ModelRecipe(name="p"),
        data=DataRecipe(size=256, batch_size=8),
        augment=AugmentPolicy(mosaic=0.0, mixup=0.0, scale=(0.8, 1.25)),
        optim=OptimRecipe(optimizer="muon", lr=1e-2, warmup_steps=50, flat=0.7, ema=0.99),
        loss=LossSettings(classification="bce"),
        trainer=TrainerRecipe(epochs=12, close_epochs=3),
    )


RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {"scratch": scratch, "finetune": finetune, "yolo_nas_coco": yolo_nas_coco, "quick": quick}
)


def named(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    return row_of(RECIPES, name, "There is no recipe")()
