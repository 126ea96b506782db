"""A training run as a tree of frozen dataclasses: what `recipe.json` holds and what the command line overrides."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from eyas.checks import check_whole
from eyas.data.augment.config import AugmentPolicy
from eyas.errors import UserError
from eyas.losses.distill_settings import DistillSettings
from eyas.losses.settings import LossSettings
from eyas.types import InputSpec

MAX_WORKERS = 256  # loader processes
MAX_MINUTES = 1e6  # some two years


@dataclass(frozen=True)
class ModelRecipe:
    """Which network.

    Attributes:
        name: a row of the model zoo: p, n, s, m or l; "auto" takes the weights' own model, or n without weights.
        spec: a JSON file with a model spec (a search writes such files); overrides `name`.
        weights: a run's folder, a .safetensors file or a YOLO-NAS checkpoint to start from. The head's rows of classes
            that both sides name are kept, the others start anew.
        weights_classes: a text file with the class names of the weights, one a line, where they don't have them.
        head: a row of `eyas.models.heads.HEADS`, such as "dual", which needs no NMS; "" takes the model's own. With
            weights of another head, backbone and neck are taken over.
        layers: what its layers are while it is trained, a row of `eyas.models.factories.FACTORIES`.
        backbone: "timm:NAME" puts a model of timm in the place of the network's own backbone.
        backbone_weights: what that one starts from: pretrained (timm's own weights, fetched), random, or a file of
            them. Weights of a whole network (`weights`) have their backbone with them.
    """

    name: str = "auto"
    spec: str | None = None
    weights: str | None = None
    weights_classes: str | None = None
    head: str = ""
    layers: str = "plain"
    backbone: str | None = None
    backbone_weights: str = "pretrained"


@dataclass(frozen=True)
class DataRecipe:
    """Which images, and how they are fed.

    Attributes:
        root: the dataset's folder (COCO, YOLO or Pascal VOC), or its .json or .yaml file.
        train, val: names of the splits.
        rows: what long rows of YOLO label files hold, where they alone do not say: polygon, keypoints or oriented.
        size: the network's input side in pixels, a multiple of 32.
        margin: pixels left free on the limiting side; YOLO-NAS resizes to 636 in 640.
        batch_size: images a step and process.
        workers: loader processes; -1 chooses by the number of cores.
        worker_seconds: a loader process that gives no batch for so long ends the run.
        drop_empty: leave training images without a box out.
        cache: what is kept in memory: "jpeg" the files' bytes, "decoded" the pixels (small sets only), "none" nothing;
            "gpu" the pixels in the GPU's memory, where batches are then augmented; "auto" chooses by size.
    """

    root: str = ""
    train: str = "train"
    val: str = "val"
    rows: Literal["polygon", "keypoints", "oriented"] | None = None
    size: int = 640
    margin: int = 4
    batch_size: int = 16
    workers: int = -1
    worker_seconds: float = 600.0
    drop_empty: bool = False
    cache: Literal["none", "jpeg", "decoded", "gpu", "auto"] = "none"

    def input_spec(self) -> InputSpec:
        """Return the input contract that these settings mean."""
        return InputSpec(height=self.size, width=self.size, margin=self.margin)


@dataclass(frozen=True)
class OptimRecipe:
    """The optimizer and its schedule: linear warm-up, the full rate for a while if wanted, then half a cosine.

    Attributes:
        optimizer: adamw; or muon, whose updates of kernels are orthogonal and of AdamW's size.
        lr: peak learning rate.
        backbone_factor: the backbone's rate is so many times the others'; below 1 for one that is trained already.
        weight_decay: on kernels only.
        beta1, beta2: AdamW's averages.
        clip_norm: the gradient's norm is cut to this; 0 leaves it.
        accumulate: batches whose gradients are added before a step.
        warmup_steps: optimizer steps of the warm-up.
        warmup_epochs: the warm-up takes at most so many epochs; 0 sets no limit.
        warmup_factor: factor on lr at the first step.
        flat: share of the run after the warm-up at the full rate, before the cosine begins.
        final_factor: factor on lr at the end.
        ema: ceiling of the weight average's decay.
    """

    optimizer: str = "adamw"
    lr: float = 2e-3
    backbone_factor: float = 1.0
    weight_decay: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 10.0
    accumulate: int = 1
    warmup_steps: int = 200
    warmup_epochs: float = 0.0
    warmup_factor: float = 1e-3
    flat: float = 0.0
    final_factor: float = 0.01
    ema: float = 0.9997


@dataclass(frozen=True)
class TrainerRecipe:
    """How long, on what, and how the run is watched.

    Attributes:
        epochs: passes over the training images.
        max_steps: stop after this many optimizer steps, whatever the epochs; 0 for no limit. The schedule spans
            whichever ends first.
        minutes: from the command's start to its exit; 0 sets no limit. Schedule, warm-up, evaluations and the end of
            the augmentation are planned for it instead of for `epochs`, of which `close_epochs` stay the same share.
        close_epochs: the last epochs see single images, without mosaic and mixup.
        seed: fixes the initial weights, the order of images and every augmentation.
        accelerator: auto, cuda, mps or cpu.
        devices: processes on this machine, one a GPU.
        num_nodes: machines that train together.
        strategy: how processes train together: ddp, each with the whole network and a part of every batch; auto takes
            it where there are several.
        precision: auto, 32-true, bf16-mixed or 16-mixed.
        channels_last: the memory layout of convolutions; faster on GPUs with tensor cores and on most CPUs.
        compile: run the network through torch.compile.
        step: how a step is done: eager, by Lightning part after part; padded, as one unit of static shapes; graphed,
            that one as a CUDA graph, one for each size of image and number of boxes; auto takes graphs on a GPU where
            they can be had, else eager.
        val_every: epochs between evaluations; the last epoch is always evaluated.
        patience: stop when AP has not risen for this many evaluations; 0 never stops early.
        average_best: try the mean of the weights of so many best epochs at the end, and keep it if its AP is higher
            than that of any epoch; 0 does not.
        sheets: images on the contact sheet of predictions against truth made at each evaluation; 0 for none.
        save_minutes: minutes between saved states within an epoch (one is saved at each epoch's end anyway).
        preflight: check labels, loss balance, augmentation, learning and memory before the first step.
        logger: trackers that the run is sent to beside its CSV files: mlflow, tensorboard, wandb.
    """

    epochs: int = 100
    max_steps: int = 0
    minutes: float = 0.0
    close_epochs: int = 10
    seed: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "auto"
    channels_last: bool = True
    compile: bool = False
    step: Literal["auto", "eager", "padded", "graphed"] = "auto"
    val_every: int = 1
    patience: int = 0
    average_best: int = 0
    sheets: int = 8
    save_minutes: float = 10.0
    preflight: bool = True
    logger: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """One training run, whole.

    Attributes:
        name: the named recipe that it began as.
        model, data, augment, optim, loss, trainer: its parts.
    """

    name: str = "scratch"
    model: ModelRecipe = field(default_factory=ModelRecipe)
    data: DataRecipe = field(default_factory=DataRecipe)
    augment: AugmentPolicy = field(default_factory=AugmentPolicy)
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    loss: LossSettings = field(default_factory=LossSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    trainer: TrainerRecipe = field(default_factory=TrainerRecipe)

    def __post_init__(self) -> None:
        """Refuse values that can't work, before anything expensive starts."""
        wholes: dict[str, tuple[object, int, int]] = {
            "data.batch_size": (self.data.batch_size, 1, 65_536),
            "data.workers": (self.data.workers, -1, MAX_WORKERS),
            "optim.accumulate": (self.optim.accumulate, 1, 10**6),
            "trainer.epochs": (self.trainer.epochs, 1, 10**7),
            "trainer.max_steps": (self.trainer.max_steps, 0, 10**12),
            "trainer.val_every": (self.trainer.val_every, 1, 10**7),
            "trainer.devices": (self.trainer.devices, 1, 1024),
            "trainer.num_nodes": (self.trainer.num_nodes, 1, 10_000),
            "trainer.sheets": (self.trainer.sheets, 0, 1000),
            "trainer.average_best": (self.trainer.average_best, 0, 1000),
        }
        for name, (value, least, most) in wholes.items():
            if isinstance(value, int) and value < least:
                raise UserError(f"{name} is {value}.", expected=f"at least {least}", where=name)
            check_whole(name, value, least, most)
        for name, leaf in dotted_fields(self).items():
            if isinstance(leaf, float) and not math.isfinite(leaf):
                raise UserError(f"{name} is {leaf}.", expected="a finite number", where=name)
        if self.optim.warmup_epochs < 0:
            name = "optim.warmup_epochs"
            raise UserError(f"{name} is {self.optim.warmup_epochs}.", expected="at least 0", where=name)
        if not 0 <= self.optim.flat < 1:
            name = "optim.flat"
            raise UserError(f"{name} is {self.optim.flat}.", expected="a share from 0 to below 1", where=name)
        if not 0 <= self.trainer.minutes <= MAX_MINUTES:
            name = "trainer.minutes"
            raise UserError(f"{name} is {self.trainer.minutes:g}.", expected="minutes above 0", where=name)
        if self.optim.backbone_factor < 0:
            name = "optim.backbone_factor"
            raise UserError(f"{name} is {self.optim.backbone_factor}.", expected="at least 0", where=name)
        if self.optim.lr <= 0:
            raise UserError(f"optim.lr is {self.optim.lr}.", expected="a learning rate above 0", where="optim.lr")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return dataclasses.asdict(self)


def dotted_fields(value: Any, prefix: str = "") -> dict[str, Any]:
    """Return every leaf of a tree of dataclasses as {"optim.lr": 0.002, ...}."""
    leaves: dict[str, Any] = {}
    for entry in dataclasses.fields(value):
        inner = getattr(value, entry.name)
        name = f"{prefix}{entry.name}"
        if dataclasses.is_dataclass(inner):
            leaves |= dotted_fields(inner, f"{name}.")
        else:
            leaves[name] = inner
    return leaves


def evolve(recipe: Recipe, **parts: Mapping[str, Any] | str) -> Recipe:
    """Return the recipe with fields of its parts replaced: `evolve(r, optim={"lr": 1e-3}, name="mine")`."""
    changed: dict[str, Any] = {
        name: dataclasses.replace(getattr(recipe, name), **value) if isinstance(value, Mapping) else value
        for name, value in parts.items()
    }
    return dataclasses.replace(recipe, **changed)
