"""A training run as a tree of frozen dataclasses: the content of `recipe.json`, with command line overrides."""

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
    """The network.

    Attributes:
        name: a row of the model zoo: p, n, s, m or l; "auto" takes the model of the weights, or n without weights.
        spec: a JSON file with a model spec, such as a search writes; overrides `name`.
        weights: a run's folder, a .safetensors file or a YOLO-NAS checkpoint to start from. The head keeps its rows for
            classes known to both sides; the others start from random weights.
        weights_classes: a text file with the class names of the weights, one per line, if the weights do not include
            them.
        head: a row of `eyas.models.heads.HEADS`, such as "dual", which needs no NMS; "" takes the model's own. If the
            weights have another head, only backbone and neck are used.
        layers: implementation of the layers during training, a row of `eyas.models.factories.FACTORIES`.
        backbone: "timm:NAME" replaces the network's own backbone with a timm model.
        backbone_weights: initial weights of that backbone: pretrained (timm's own, downloaded), random, or a file.
            Weights of a whole network (`weights`) include the backbone.
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
    """The images, and how they are loaded.

    Attributes:
        root: the dataset: a folder (COCO, YOLO or Pascal VOC), or a .json or .yaml file.
        train, val: names of the splits.
        rows: meaning of long rows in YOLO label files, if it can't be detected: polygon, keypoints or oriented.
        size: the network's input side in pixels, a multiple of 32.
        margin: pixels left free along the longest side; YOLO-NAS resizes to 636 in 640.
        batch_size: images per step and process.
        workers: loader processes; -1 chooses by the number of cores.
        worker_seconds: the run ends if a loader process produces no batch for this long.
        drop_empty: leave out training images without boxes.
        cache: what is kept in memory: "jpeg" the encoded files, "decoded" the pixels (small sets only), "none" nothing;
            "gpu" the pixels in GPU memory, where batches are then augmented; "auto" chooses by size.
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
    """The optimizer and its schedule: linear warm-up, an optional flat phase, then cosine decay.

    Attributes:
        optimizer: adamw, or muon, whose kernel updates are orthogonal and scaled to AdamW's size.
        lr: peak learning rate.
        backbone_factor: factor on the learning rate of the backbone; below 1 for a pretrained one.
        weight_decay: weight decay of the kernels; other parameters have none.
        beta1, beta2: AdamW's decay rates of the running averages.
        clip_norm: maximum gradient norm; 0 disables clipping.
        accumulate: batches whose gradients are accumulated per step.
        warmup_steps: optimizer steps of the warm-up.
        warmup_epochs: upper limit of the warm-up in epochs; 0 sets no limit.
        warmup_factor: factor on lr at the first step.
        flat: fraction of the run at the full rate between warm-up and cosine decay.
        final_factor: factor on lr at the end.
        ema: maximum decay of the exponential moving average of the weights.
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
    """Duration, hardware and monitoring of the run.

    Attributes:
        epochs: passes over the training images.
        max_steps: stop after this many optimizer steps, whatever the epochs; 0 for no limit. The schedule ends with
            whichever limit is reached first.
        minutes: time limit from the command's start to its exit; 0 sets no limit. Schedule, warm-up, evaluations and
            the end of the augmentation are planned for it instead of for `epochs`; `close_epochs` keeps its fraction of
            them.
        close_epochs: last epochs, trained on single images without mosaic and mixup.
        seed: seed of the initial weights, the order of images and every augmentation.
        accelerator: auto, cuda, mps or cpu.
        devices: processes on this machine, one per GPU.
        num_nodes: machines that train together.
        strategy: distributed strategy: ddp, each process with the whole network and part of every batch; auto uses it
            for several processes.
        precision: auto, 32-true, bf16-mixed or 16-mixed.
        channels_last: store convolutions channels-last; faster on GPUs with tensor cores and on most CPUs.
        compile: run the network through torch.compile.
        step: execution of a step: eager, operation by operation; padded, as one unit of static shapes; graphed, the
            same as a CUDA graph for each image size and number of boxes; auto uses graphs on a GPU if possible, else
            eager.
        val_every: epochs between evaluations; the last epoch is always evaluated.
        patience: stop when AP has not improved for this many evaluations; 0 never stops early.
        average_best: at the end, average the weights of this many best epochs, and keep the average if its AP is higher
            than that of any epoch; 0 disables it.
        sheets: images on the contact sheet of predictions and ground truth drawn at each evaluation; 0 for none.
        save_minutes: minutes between saved states within an epoch (one is also saved at the end of each epoch).
        preflight: check labels, loss balance, augmentation, learning and memory before the first step.
        logger: trackers to send the run to, besides its CSV files: mlflow, tensorboard, wandb.
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
    """A complete training run.

    Attributes:
        name: the named recipe that it is based on.
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
            raise UserError(f"{name} is {self.optim.flat}.", expected="a fraction from 0 to below 1", where=name)
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
