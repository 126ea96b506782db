"""Several processes compute what one does on the same global batch; strategies, and sensible defaults."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from eyas.data.augment.config import AugmentPolicy
from eyas.data.loading.loader import train_loader
from eyas.errors import UserError
from eyas.losses.detection import DetectionCriterion
from eyas.models.zoo import build
from eyas.training.batches import to_float_images
from eyas.training.config_overrides import override
from eyas.training.experiment import build as build_experiment
from eyas.training.experiment import make_trainer
from eyas.training.parallel import (
    gather_over_processes,
    mean_over_processes,
    pick_accelerator,
    pick_precision,
    sync_batchnorm,
)
from eyas.training.recipe import Recipe, TrainerRecipe
from eyas.training.splits import load_train_and_val
from eyas.training.strategies import STRATEGIES

CONFIDENT = 4.0  # added to the class bias, so that target scores sum to more than the loss's floor of 1


def gradients(recipe: Recipe, rank: int, world_size: int) -> list[torch.Tensor]:
    """Return the averaged gradients of the first global batch of 8 images, statistics of BatchNorm frozen."""
    torch.manual_seed(0)
    index, _ = load_train_and_val(recipe.data)
    net = build("p", len(index.classes)).eval()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("cls_pred.bias"):
                parameter += CONFIDENT
    loader = train_loader(
        index, recipe.data.input_spec(), AugmentPolicy(), batch_size=8 // world_size, rank=rank, world_size=world_size
    )
    batch = next(iter(loader))
    criterion = DetectionCriterion(reduce=mean_over_processes)
    terms = criterion(net(to_float_images(batch.images, 1 / 255)), batch)
    sum(terms.values()).backward()
    grads = [p.grad for p in net.parameters() if p.grad is not None]
    if world_size > 1:
        for grad in grads:
            dist.all_reduce(grad)
            grad /= world_size
    return grads


def worker(rank: int, recipe: Recipe, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    assert gather_over_processes(rank) == [0, 1]
    grads = gradients(recipe, rank, 2)
    if rank == 0:
        torch.save(grads, folder / "grads.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_gradient_of_one_on_the_same_global_batch(tiny: Recipe, tmp_path: Path) -> None:
    mp.spawn(worker, (tiny, tmp_path), nprocs=2)
    shared = torch.load(tmp_path / "grads.pt", weights_only=True)
    alone = gradients(tiny, 0, 1)
    assert len(shared) == len(alone) > 50
    for one, other in zip(shared, alone, strict=True):
        # Sums run in another order; a sign or a factor that is wrong would be off by the gradient itself.
        assert float((one - other).norm()) <= 1e-4 * float(other.norm()) + 1e-7
    assert max(float(grad.abs().max()) for grad in alone) > 1e-3


def test_one_process_needs_no_exchange() -> None:
    value = torch.tensor(2.5)
    assert mean_over_processes(value) is value
    assert gather_over_processes("x") == ["x"]


def test_picks() -> None:
    assert pick_accelerator("cpu") == "cpu"
    with pytest.raises(UserError, match="'npu' is not available"):
        pick_accelerator("npu")
    assert pick_precision("16-mixed", "cuda") == "16-mixed"
    assert pick_precision("auto", "mps") == "32-true"
    assert sync_batchnorm("cuda", 2) and not sync_batchnorm("cuda", 1) and not sync_batchnorm("cpu", 2)


@pytest.mark.parametrize(("amx", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_a_cpu_computes_in_bf16_only_where_it_can(monkeypatch: pytest.MonkeyPatch, amx: bool, precision: str) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert pick_precision("auto", "cpu") == precision


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_row_gives_several_processes_a_strategy_that_lightning_knows(name: str) -> None:
    from lightning.pytorch.strategies import ParallelStrategy  # not above: spawned processes import this file bare

    trainer = TrainerRecipe(devices=4, strategy=name, accelerator="cpu")
    made = make_trainer(Recipe(trainer=trainer), Path("run"), []).strategy
    assert isinstance(made, ParallelStrategy) and made.num_processes == 4


@pytest.mark.parametrize(("devices", "num_nodes", "expected"), [(1, 1, "auto"), (4, 1, "ddp"), (1, 2, "ddp")])
def test_auto_takes_one_process_alone(devices: int, num_nodes: int, expected: str) -> None:
    assert STRATEGIES["auto"](dataclasses.replace(TrainerRecipe(), devices=devices, num_nodes=num_nodes)) == expected


def test_an_unknown_strategy_is_refused_before_anything_starts() -> None:
    with pytest.raises(UserError, match="no strategy 'dpp' \\(did you mean 'ddp'"):
        build_experiment(override(Recipe(), {"trainer.strategy": "dpp", "data.root": "nowhere"}), Path("run"))
