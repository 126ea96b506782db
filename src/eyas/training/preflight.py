"""Before the first step: a few seconds that find what usually ruins a training run."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from eyas.data.checks.usable import Usable
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.errors import UserError
from eyas.losses.criterion import Criterion, set_progress
from eyas.machine.memory import available_memory
from eyas.training.batches import loss_terms, to_float_images
from eyas.training.data import DetectionData
from eyas.training.memory import FEW, advice
from eyas.training.optim import make_optimizer
from eyas.training.recipe import Recipe, evolve
from eyas.training.splits import trained


@dataclass(frozen=True)
class PreflightFinding:
    """One thing that was checked.

    Attributes:
        check: its name.
        fine: False stops the run.
        text: what was found, in words and numbers.
    """

    check: str
    fine: bool
    text: str


def preflight(recipe: Recipe, data: DetectionData, net: nn.Module, criterion: Criterion) -> list[PreflightFinding]:
    """Check labels, augmentation, loss balance, learning and memory; the network is left as it was.

    Raises:
        UserError: a check failed; all findings stand in the message.
    """
    findings = [
        check_labels(data.train_index, trained(data.train_index, recipe.data, data.augment)),
        check_augmentation(data),
    ]
    batch = data.trial_batch(FEW, epoch=0)
    findings += [check_memory(recipe, net, batch, criterion.beside), *check_learning(recipe, net, criterion, batch)]
    if data.trial_skipped.known:
        findings.append(PreflightFinding("images", True, data.trial_skipped.summary()))
    bad = [finding for finding in findings if not finding.fine]
    if bad:
        raise UserError(
            "The check before training failed.\n" + "\n".join(f"  {f.check}: {f.text}" for f in bad),
            fix="correct the above, or skip the check with --trainer.preflight false",
        )
    return findings


def check_labels(index: DatasetIndex, usable: Usable | None = None) -> PreflightFinding:
    """Check that labels name classes, boxes are finite and have an area, and every class occurs.

    Args:
        index: the training split.
        usable: the boxes that training sees; all if None.
    """
    boxes, labels = index.boxes, index.labels
    if ((labels < 0) | (labels >= len(index.classes))).any():
        return PreflightFinding("labels", False, f"labels outside 0..{len(index.classes) - 1}")
    if not np.isfinite(boxes).all():
        return PreflightFinding("labels", False, "boxes that are not finite: run 'eyas data check'")
    flat = int(((boxes[:, 2:] - boxes[:, :2]) <= 0).any(axis=1).sum())
    if flat > 0.01 * len(boxes):
        return PreflightFinding("labels", False, f"{flat} of {len(boxes)} boxes have no area: run 'eyas data check'")
    seen = labels if usable is None else labels[usable.kept]
    counts = np.bincount(seen, minlength=len(index.classes))
    absent = [index.classes[i] for i in np.flatnonzero(counts == 0)]
    rarest = int(counts[counts > 0].min()) if len(seen) else 0
    note = f"; never labelled: {', '.join(absent[:5])}" if absent else ""
    note += f"; left out: {usable.told()}" if usable is not None and usable.left_out else ""
    text = f"{len(index)} images, {len(seen)} boxes, {len(index.classes)} classes, rarest class {rarest} boxes{note}"
    return PreflightFinding("labels", True, text)


def check_augmentation(data: DetectionData) -> PreflightFinding:
    """Check that augmentation repeats for one (epoch, image) and differs between epochs and between images.

    A random stream that collapses (every worker or epoch drawing the same numbers) does not show in the loss and costs
    AP. Every sample's stream is a function of seed, epoch and index, so it is the same whichever worker draws it.
    """
    first, again, later = (data.trial_batch(1, epoch=epoch).images for epoch in (0, 0, 1))
    if not torch.equal(first, again):
        return PreflightFinding("augmentation", False, "one image in one epoch came out in two ways")
    if not (data.augment.moves or data.augment.flip or data.augment.colours):
        return PreflightFinding("augmentation", True, "off")
    tries = [data.trial_batch(1, epoch=epoch).images for epoch in (2, 3)]
    if all(torch.equal(first, other) for other in (later, *tries)):
        return PreflightFinding(
            "augmentation", False, "four epochs gave the same image: the random stream does not advance"
        )
    return PreflightFinding("augmentation", True, "streams differ between epochs and images, and repeat on request")


def check_memory(recipe: Recipe, net: nn.Module, batch: Batch, beside: Sequence[nn.Module] = ()) -> PreflightFinding:
    """Estimate a step's memory from what autograd keeps for a few images, and compare with what is free.

    Args:
        recipe: the whole run.
        net: the network.
        batch: the few images.
        beside: further networks, of whose weights nothing but they themselves is kept.
    """
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in net.parameters()}
    net = copy.deepcopy(net).train()
    weights |= {p.untyped_storage().data_ptr() for p in net.parameters()}
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = net(to_float_images(batch.images, recipe.data.input_spec().scale))
    activations = sum(size for pointer, size in kept.items() if pointer not in weights)
    del output
    parameters = sum(p.numel() * p.element_size() for p in net.parameters())
    # Weights, gradients, Adam's two averages and the weight average; a half more activations for backward's own.
    fixed = 5 * parameters + sum(p.numel() * p.element_size() for part in beside for p in part.parameters())
    an_image = math.ceil(1.5 * activations / len(batch.counts))
    needed = an_image * recipe.data.batch_size + fixed
    free = math.floor(free_memory(recipe.trainer.accelerator))
    text = f"about {needed / 2**30:.1f} GiB needed, {free / 2**30:.1f} GiB free"
    if needed > free:
        return PreflightFinding("memory", False, f"{text}: {advice(recipe, max(0, free - fixed) // an_image)}")
    return PreflightFinding("memory", True, text)


def free_memory(accelerator: str) -> float:
    """Return the bytes that are free on the first GPU, or on this machine."""
    if accelerator in ("auto", "cuda") and torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0])
    return float(available_memory())


def check_learning(
    recipe: Recipe, net: nn.Module, criterion: Criterion, batch: Batch, *, steps: int = 12, seconds: float = 6.0
) -> list[PreflightFinding]:
    """Overfit a copy of the network to a few images for some steps: the loss must fall, its terms be balanced."""
    if int(batch.counts.sum()) == 0:
        return [PreflightFinding("learning", True, "not tried: augmentation left no box in the trial images")]
    net, criterion = copy.deepcopy(net).train(), copy.deepcopy(criterion)
    set_progress(criterion, 0.5)  # terms whose weights change are compared as they are in the middle of the run
    optim = evolve(recipe, optim={"lr": min(recipe.optim.lr, 2e-3)}).optim
    optimizer = make_optimizer(net, optim)
    history: list[torch.Tensor] = []
    start = time.monotonic()
    while len(history) < steps and (len(history) < 3 or time.monotonic() - start < seconds):
        terms = loss_terms(net, criterion, batch.images, batch, recipe.data.input_spec().scale)
        history.append(terms.detach())
        optimizer.zero_grad()
        terms.sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    first = dict(zip(criterion.terms, history[0].tolist(), strict=True))
    # A term may have nothing to say of these images.
    sizes = [abs(value) for name, value in first.items() if value and name not in criterion.of_any_size]
    spread = max(sizes) / max(min(sizes), 1e-9) if sizes else 1.0
    shown = ", ".join(f"{name} {value:.2f}" for name, value in first.items())
    finite = all(bool(values.isfinite().all()) for values in history)
    before, after = float(history[0].sum()), float(torch.stack(history[1:]).sum(dim=1).min())
    return [
        PreflightFinding("loss balance", finite and spread < 10, f"{shown}: largest over smallest term {spread:.1f}"),
        PreflightFinding(
            "learning", finite and after < before,
            f"loss {before:.2f} to {after:.2f} in {len(history)} steps on {len(batch.counts)} images",
        ),
    ]  # fmt: skip
