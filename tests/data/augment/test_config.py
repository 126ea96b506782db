"""The augmentation policy: ranges are checked, it survives JSON, and "none" means none."""

from __future__ import annotations

import json

import pytest

from eyas.data.augment.config import AugmentPolicy
from eyas.errors import UserError


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
