"""How busy a GPU is."""

from __future__ import annotations

import contextlib

import torch


def busy(device: torch.device) -> int | None:
    """Return in which share of the last moments a CUDA device computed, in percent; None where that can't be known.

    What it says is NVML's (the package nvidia-ml-py): a kernel was running, not that it used the whole device.
    """
    if device.type != "cuda":
        return None
    with contextlib.suppress(ModuleNotFoundError, RuntimeError, OSError):
        return int(torch.cuda.utilization(device))
    return None
