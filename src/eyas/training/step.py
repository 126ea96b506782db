"""The whole training step as one unit of static shapes, which never waits for the device: it can be one CUDA graph."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from eyas.losses.criterion import Criterion, PaddedTruth, TruthBatch
from eyas.training.batches import loss_terms
from eyas.training.ema import Ema

Replay = Callable[[Hashable, Callable[[], None]], None]  # runs a function of what always lies at the same place


class ImageBatch(TruthBatch, Protocol):
    """What a step takes of a batch, as `eyas.data.loading.batch.Batch` has it."""

    @property
    def images(self) -> Tensor:
        """Images: uint8 [N, H, W, 3], RGB."""


def truth_rows(boxes: int) -> int:
    """Return the rows of truth that a batch with so many boxes is padded to: 16, 24, 32, 48, 64, 96, 128, ...

    Few different ones come in a run, and at most half of the boxes are added.
    """
    rows = 16
    while rows < boxes:
        rows = rows * 3 // 2 if rows & (rows - 1) == 0 else rows * 4 // 3
    return rows


@dataclass(frozen=True)
class StepSettings:
    """What a step does beside the network and its loss.

    Attributes:
        scale: what pixels are multiplied by.
        clip_norm: the gradient's norm is cut to this; 0 leaves it.
        autocast: what forward and loss compute in where PyTorch deems it safe; None for float32 throughout.
    """

    scale: float = 1 / 255
    clip_norm: float = 0.0
    autocast: torch.dtype | None = None


class TrainingStep:
    """Forward, loss, backward, clipping, optimizer and weight average on one batch, with what it needs in fixed places.

    Batches are copied to static tensors, one set for each size of image, number of images and rows of padded truth;
    the loss terms are left in a static tensor; learning rates and the average's decay are tensors that are written
    before. So what `run` does depends on no value that the host holds, and `replay` may capture it.

    The gradients are the eager step's; the average is computed by other roundings.

    Args:
        net: the network in training mode, on its device.
        criterion: a loss that is `static`.
        optimizer: over the parameters of both; with `capturable` to be captured.
        ema: the average of `net`, if there is one.
        settings: the defaults if None.
        replay: runs `run` on one set of static tensors; calls it if None.

    Attributes:
        terms: float32 [T], the latest weighted loss terms, always in the same memory.
    """

    def __init__(
        self,
        net: nn.Module,
        criterion: Criterion,
        optimizer: torch.optim.Optimizer,
        ema: Ema | None = None,
        settings: StepSettings | None = None,
        replay: Replay | None = None,
    ) -> None:
        self.net = net
        self.criterion = criterion
        self.optimizer = optimizer
        self.settings = settings or StepSettings()
        self.parameters: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
        self.device = self.parameters[0].device
        self.terms = torch.zeros(len(criterion.terms), device=self.device)
        self._ema = ema
        self._pairs = ema.pairs(net) if ema is not None else None
        self._ema_weight = torch.zeros((), device=self.device)
        self._rates = [torch.zeros((), device=self.device) for _ in optimizer.param_groups]
        self._inputs: dict[Hashable, StaticInputs] = {}
        self._replay = replay or (lambda _, function: function())

    def __call__(self, batch: ImageBatch) -> Tensor:
        """Do the step on a batch and return `terms`."""
        shape = (*batch.images.shape, truth_rows(len(batch.boxes)))
        if shape not in self._inputs:
            self._inputs[shape] = StaticInputs.of_shape(*shape, device=self.device)
        inputs = self._inputs[shape]
        inputs.load(batch)
        if self._ema is not None:
            self._ema_weight.fill_(self._ema.next_weight())
        for rate, group in zip(self._rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self._replay(shape, lambda: self.run(inputs))
        return self.terms

    def run(self, inputs: StaticInputs) -> None:
        """Do the step on what the static tensors hold."""
        self.optimizer.zero_grad(set_to_none=True)
        kind = self.device.type
        with torch.autocast(kind, enabled=False):  # whatever the caller has set
            # A weight's cast must not be kept from step to step: a replayed one is made anew.
            with torch.autocast(kind, self.settings.autocast, self.settings.autocast is not None, cache_enabled=False):
                terms = loss_terms(self.net, self.criterion, inputs.images, inputs.truth, self.settings.scale)
            self.terms.copy_(terms.detach())
            terms.sum().backward()  # type: ignore[no-untyped-call]
            if self.settings.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            with self._rates_as_tensors():
                self.optimizer.step()
            if self._ema is not None and self._pairs is not None:
                self._ema.follow(self._pairs, self._ema_weight)

    @contextlib.contextmanager
    def _rates_as_tensors(self) -> Iterator[None]:
        """Let a fused optimizer read its learning rates from the device.

        Only while it steps: the schedule, checkpoints and progress lines go on reading numbers, without waiting.
        """
        groups = self.optimizer.param_groups
        numbers = [group["lr"] for group in groups]
        try:
            for group, rate in zip(groups, self._rates, strict=True):
                if group.get("fused"):
                    group["lr"] = rate
            yield
        finally:
            for group, number in zip(groups, numbers, strict=True):
                group["lr"] = number


@dataclass(frozen=True)
class StaticInputs:
    """The tensors that batches of one shape are copied to.

    Attributes:
        images: uint8 [N, H, W, 3].
        truth: padded to a number of rows.
    """

    images: Tensor
    truth: PaddedTruth

    @classmethod
    def of_shape(
        cls, number: int, height: int, width: int, channels: int, rows: int, *, device: torch.device
    ) -> StaticInputs:
        """Return them for so many images of that size and rows of truth."""
        images = torch.zeros(number, height, width, channels, dtype=torch.uint8, device=device)
        boxes = torch.zeros(rows, 4, device=device)
        labels, counts = (torch.zeros(size, dtype=torch.int64, device=device) for size in (rows, number))
        return cls(images, PaddedTruth(boxes, labels, counts))

    def load(self, batch: ImageBatch) -> None:
        """Take over a batch of this shape, from the host without waiting if its memory is page-locked."""
        boxes = len(batch.boxes)
        self.images.copy_(batch.images, non_blocking=True)
        self.truth.boxes[:boxes].copy_(batch.boxes, non_blocking=True)
        self.truth.labels[:boxes].copy_(batch.labels, non_blocking=True)
        self.truth.counts.copy_(batch.counts, non_blocking=True)
