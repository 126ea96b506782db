"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(
    step: int,
    total_steps: int,
    *,
    warmup_steps: int,
    warmup_factor: float,
    final_factor: float,
    flat: float = 0.0,
) -> float:
    """Return the factor on the base learning rate at `step`: linear warm-up, then `annealed`.

    Args:
        step: optimizer steps done so far, 0 at the start.
        total_steps: steps of the whole run.
        warmup_steps: steps of the linear warm-up, cut to half of the run.
        warmup_factor: the factor at step 0.
        final_factor: the factor at `total_steps` and after it.
        flat: the share of what follows the warm-up at the full rate.
    """
    warmup_steps = min(warmup_steps, total_steps // 2)
    if step < warmup_steps:
        return warmup_factor + (1.0 - warmup_factor) * step / warmup_steps
    return annealed((step - warmup_steps) / max(1, total_steps - warmup_steps), final_factor, flat)


def annealed(progress: float, final_factor: float, flat: float = 0.0) -> float:
    """Return the factor after the warm-up: 1 until progress `flat`, then half a cosine to `final_factor` at 1.

    "Flat-cosine" is that of RTMDet (arXiv 2212.07784), with a half.
    """
    fallen = min(1.0, max(0.0, progress - flat) / (1.0 - flat))
    return final_factor + (1.0 - final_factor) * 0.5 * (1.0 + math.cos(math.pi * fallen))


def ema_decay(step: int, ceiling: float) -> float:
    """Return the decay of the weight average after `step` updates: short-sighted at first, up to `ceiling`."""
    return min(ceiling, (1 + step) / (10 + step))
