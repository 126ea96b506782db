"""Learning-rate schedules: pure functions of the step."""

from __future__ import annotations

import math


def warmup_cosine(
    step: int, total_steps: int, *, warmup_steps: int, warmup_factor: float, final_factor: float
) -> float:
    """Return the factor on the base learning rate at `step`: linear warm-up, then half a cosine.

    Args:
        step: optimizer steps done so far, 0 at the start.
        total_steps: steps of the whole run.
        warmup_steps: steps of the linear warm-up, cut to half of the run.
        warmup_factor: the factor at step 0.
        final_factor: the factor at `total_steps` and after it.
    """
    warmup_steps = min(warmup_steps, total_steps // 2)
    if step < warmup_steps:
        return warmup_factor + (1.0 - warmup_factor) * step / warmup_steps
    return half_cosine((step - warmup_steps) / max(1, total_steps - warmup_steps), final_factor)


def half_cosine(progress: float, final_factor: float) -> float:
    """Return the factor that falls from 1 at progress 0 to `final_factor` at 1 and after it."""
    return final_factor + (1.0 - final_factor) * 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))


def ema_decay(step: int, ceiling: float) -> float:
    """Return the decay of the weight average after `step` updates: short-sighted at first, up to `ceiling`."""
    return min(ceiling, (1 + step) / (10 + step))
