"""An image moved within its own rectangle, in the upper left corner of the frame, as SuperGradients augments.

There, an image is moved, coloured, flipped and mixed at its own size, and then fitted into the frame with padding at
the right and at the bottom. Here the same comes from one resampling: its rectangle in the frame stands for the image.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from eyas.data.augment.affine import Move, cut
from eyas.data.augment.colour import draw_colours
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.mosaic import turn
from eyas.data.augment.plan import Image, Mix, Piece, Plan


def within_image(
    source: Image,
    partner: Callable[[], Image],
    size: tuple[int, int],
    policy: AugmentPolicy,
    rng: np.random.Generator,
) -> Plan[Image]:
    """Draw what is done to an image, and perhaps to a partner that shines through it.

    Args:
        source: the image.
        partner: gives another image.
        size: (height, width) of the frame.
        policy: chances and ranges.
        rng: the sample's own random numbers.
    """
    height, width = source.height, source.width
    fit = fit_of(source, size)
    area = max(1, int(height * fit)), max(1, int(width * fit))
    draws = rng.random(3).tolist()
    low, high = policy.scale
    scale = fit * (low + (high - low) * draws[0])
    left = (area[1] - width * scale) / 2 + policy.translate * (2 * draws[1] - 1) * area[1]
    top = (area[0] - height * scale) / 2 + policy.translate * (2 * draws[2] - 1) * area[0]
    move = Move(scale, left, top, *turn(policy, rng))
    piece = Piece(source, (0, 0, area[1], area[0]), cut(height, width, move, area))
    colours = draw_colours(policy, rng) if policy.colours else None
    flip = bool(rng.random() < policy.flip)
    mix = _mix(partner(), area, policy, rng) if rng.random() < policy.mixup else None
    return Plan((piece,), area, mix, colours, flip)


def fit_of(source: Image, size: tuple[int, int]) -> float:
    """Return how many pixels of the frame a pixel of the image becomes when it is fitted into it."""
    return min(size[0] / source.height, size[1] / source.width)


def _mix(partner: Image, area: tuple[int, int], policy: AugmentPolicy, rng: np.random.Generator) -> Mix[Image]:
    """Let a partner shine through by half: fitted in, then made smaller (black beside it) or larger (a part of it)."""
    mirrored = bool(rng.random() < policy.flip)
    height, width = area
    factor = float(rng.uniform(*policy.scale))
    scale = factor * min(height / partner.height, width / partner.width)
    inner = int(height * factor), int(width * factor)
    top = int(rng.integers(0, inner[0] - height)) if inner[0] > height else 0
    left = int(rng.integers(0, inner[1] - width)) if inner[1] > width else 0
    placed = cut(partner.height, partner.width, Move(scale, -left, -top), area)
    return Mix(Piece(partner, (0, 0, width, height), placed, mirrored), 0.5, inner)
