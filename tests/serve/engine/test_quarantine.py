from __future__ import annotations

import numpy as np
import pytest

from eyas.serve.engine import quarantine
from eyas.serve.engine.quarantine import Quarantine


@pytest.mark.parametrize("image", [b"poison", np.zeros((4, 5, 3), np.uint8)])
def test_an_image_in_two_dead_batches_is_kept_out_for_some_time(image: bytes) -> None:
    kept = Quarantine()
    kept.died(0.0, [image, b"other", image])
    assert not kept.holds(0.0, image), "twice in one batch is one death"
    kept.died(1.0, [image])
    assert kept.holds(2.0, image) and len(kept) == 1
    assert not kept.holds(2.0, b"pois0n") and not kept.holds(2.0, np.zeros((5, 4, 3), np.uint8))
    assert not kept.holds(2.0 + quarantine.KEPT_SECONDS, image) and len(kept) == 0


def test_an_image_that_is_run_with_success_is_cleared() -> None:
    kept = Quarantine()
    kept.died(0.0, [b"probe", b"poison"])
    kept.survived(b"probe")
    kept.survived(b"p0ison")
    kept.died(1.0, [b"probe", b"poison"])
    assert not kept.holds(1.0, b"probe") and kept.holds(1.0, b"poison")


def test_it_does_not_grow_without_end() -> None:
    kept = Quarantine()
    for _ in range(2):
        kept.died(0.0, [str(i).encode() for i in range(quarantine.MOST + 10)])
    assert len(kept) <= quarantine.MOST
    assert kept.holds(0.0, str(quarantine.MOST).encode())
