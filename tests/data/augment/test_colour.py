"""The augmentation policy: ranges are checked, and what each setting may and may not do to a colour."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tests.data.scenes import textured

from eyas.data.augment.colour import Colours, draw_colours, gamma_table, matrices, recolour
from eyas.data.augment.config import AugmentPolicy
from eyas.errors import UserError

IMAGE = textured(1)
NONE = AugmentPolicy.none()


def jitter(canvas: np.ndarray, policy: AugmentPolicy, rng: np.random.Generator) -> None:
    recolour(canvas, draw_colours(policy, rng), policy)


def matrix(policy: AugmentPolicy, rng: np.random.Generator) -> np.ndarray:
    return matrices(policy, [draw_colours(policy, rng)])[0]


def jittered(seed: int = 0, **settings: float) -> np.ndarray:
    """Return the image with the colours changed by a policy that does nothing else."""
    canvas = IMAGE.copy()
    jitter(canvas, dataclasses.replace(NONE, **settings), np.random.default_rng(seed))
    return canvas


def test_nothing_asked_nothing_changed() -> None:
    assert np.array_equal(jittered(), IMAGE)
    assert not NONE.colours


def test_swap_changes_red_and_blue() -> None:
    assert np.array_equal(jittered(swap=1.0), IMAGE[..., ::-1])


@pytest.mark.parametrize("settings", [{"saturation": 0.8}, {"hue": 90.0}, {"saturation": 0.8, "hue": 90.0}])
def test_saturation_and_hue_leave_grey_alone(settings: dict[str, float]) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    canvas = grey.copy()
    jitter(canvas, dataclasses.replace(NONE, **settings), np.random.default_rng(5))
    assert np.abs(canvas.astype(int) - grey).max() <= 1
    assert np.abs(jittered(5, **settings).astype(int) - IMAGE).mean() > 2


def test_a_third_of_the_circle_turns_red_into_another_primary() -> None:
    most = Colours(np.ones(7), swap=False, exponent=None, shifts=(0, 0, 0))  # the hue turns by all that is allowed
    turned = matrices(dataclasses.replace(NONE, hue=120.0), [most])[0, :, :3] @ np.array([255, 0, 0])
    assert sorted(turned.round().astype(int).tolist()) == [0, 0, 255]


def test_gain_and_offset_stay_in_their_range() -> None:
    for seed in range(30):
        found = matrix(dataclasses.replace(NONE, gain=0.3, offset=0.1), np.random.default_rng(seed))
        gain = found[0, 0]
        assert 0.7 <= gain <= 1.3
        assert np.allclose(found[:, :3], gain * np.eye(3), atol=1e-6)
        assert abs(found[0, 3]) <= 25.5


def test_values_saturate_instead_of_wrapping() -> None:
    canvas = np.full((4, 4, 3), 250, np.uint8)
    bright = next(
        s for s in range(99) if matrix(dataclasses.replace(NONE, gain=0.5), np.random.default_rng(s))[0, 0] > 1.1
    )
    jitter(canvas, dataclasses.replace(NONE, gain=0.5), np.random.default_rng(bright))
    assert (canvas == 255).all()


def test_gamma_keeps_black_and_white() -> None:
    for exponent in (0.5, 1.0, 2.0):
        table = gamma_table(exponent)
        assert (table[0], table[255]) == (0, 255)
        assert (np.diff(table.astype(int)) >= 0).all()
    assert np.array_equal(gamma_table(1.0), np.arange(256))
    assert gamma_table(2.0)[128] == 64
    changed = jittered(gamma=0.5)
    assert not np.array_equal(changed, IMAGE)


def test_draws_differ_and_repeat() -> None:
    settings = {"gain": 0.3, "saturation": 0.4, "hue": 10.0, "tint": 0.1}
    assert np.array_equal(jittered(1, **settings), jittered(1, **settings))
    assert not np.array_equal(jittered(1, **settings), jittered(2, **settings))


def test_none_changes_nothing() -> None:
    none = AugmentPolicy.none()
    assert not none.moves
    assert not none.colours
    assert not none.flip


def test_closing_ends_mosaic_and_mixup_only() -> None:
    policy = AugmentPolicy(mosaic=0.7, mixup=0.3, flip=0.5, hue=5.0)
    closing = policy.closing()
    assert (closing.mosaic, closing.mixup) == (0.0, 0.0)
    assert (closing.flip, closing.hue, closing.scale) == (0.5, 5.0, policy.scale)


def test_it_survives_json() -> None:
    policy = AugmentPolicy(scale=(0.4, 1.1), degrees=3.0)
    assert AugmentPolicy.from_dict(json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize(
    "fields",
    [{"mosaic": 1.1}, {"flip": -0.1}, {"gain": 1.0}, {"hue": -1.0}, {"scale": (1.5, 0.5)}, {"scale": (0.0, 1.0)}],
)
def test_values_out_of_range_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(UserError) as error:
        AugmentPolicy(**fields)  # type: ignore[arg-type]
    assert error.value.where == next(iter(fields))
    assert error.value.expected


def test_unknown_field_is_refused_with_the_near_one() -> None:
    with pytest.raises(UserError, match="did you mean 'mosaic'"):
        AugmentPolicy.from_dict({"mosiac": 1.0})
