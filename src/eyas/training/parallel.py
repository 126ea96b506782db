"""Where a run runs: the accelerator, the precision, the strategy. The one place that knows of parallelism."""

from __future__ import annotations

import os
import platform
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from eyas.errors import UserError

T = TypeVar("T")


def pick_accelerator(wanted: str) -> str:
    """Return "cuda", "mps" or "cpu": the wanted one, or the best that is here for "auto".

    Raises:
        UserError: the wanted one is not here.
    """
    here = ["cpu"]
    if torch.backends.mps.is_available():
        here.insert(0, "mps")
    if torch.cuda.is_available():
        here.insert(0, "cuda")
    if wanted == "auto":
        return here[0]
    if wanted not in here:
        raise UserError(
            f"The accelerator '{wanted}' is not available on {platform.node()}.",
            expected="auto or one of " + ", ".join(here),
            where="trainer.accelerator",
        )
    return wanted


def pick_precision(wanted: str, accelerator: str) -> str:
    """Return Lightning's name of the precision: the wanted one; for "auto", bf16 where the hardware computes in it.

    A CPU without bf16 arithmetic (AMX or AVX512-BF16) emulates it several times slower than fp32, so it gets fp32.
    """
    if wanted != "auto":
        return wanted
    if accelerator == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"
    if accelerator == "cpu":
        return (
            "bf16-mixed" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "32-true"
        )
    return "32-true"


def sync_batchnorm(accelerator: str, num_devices: int) -> bool:
    """Return whether batch statistics are shared over processes (PyTorch can on GPUs only)."""
    return accelerator == "cuda" and num_devices > 1


def prepare(net: nn.Module, *, channels_last: bool, compiled: bool) -> nn.Module:
    """Return the network in the memory layout wanted, its forward compiled in place if asked for."""
    if channels_last:
        net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if compiled:
        net.compile()
    return net


def first_process() -> bool:
    """Return whether this is the process that writes and speaks; others are told their rank when they are started."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def alone() -> bool:
    """Return whether there is one process only."""
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def mean_over_processes(value: Tensor) -> Tensor:
    """Return the mean of a scalar over processes."""
    if alone():
        return value
    value = value.clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def gather_over_processes(value: T) -> list[T]:
    """Return every process's value, by rank; just this one's when there is one process only."""
    if alone():
        return [value]
    values: list[T | None] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return [v for v in values if v is not None]
