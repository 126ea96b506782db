"""Batches drawn on a stream of their own, a batch ahead: what waits for what, with stand-ins for CUDA's streams."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.scenes import all_same, dataset

from eyas.data.augment.config import AugmentPolicy
from eyas.data.device.batches import DeviceBatches
from eyas.data.loading.batch import Batch
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.types import InputSpec


class Stream:
    """Notes what is done with it."""

    def __init__(self, *_: object) -> None:
        self.waited: list[object] = []

    def wait_stream(self, stream: Stream) -> None:
        self.waited.append(stream)

    def wait_event(self, event: tuple[Stream, int]) -> None:
        self.waited.append(event)


@pytest.fixture
def streams(monkeypatch: pytest.MonkeyPatch) -> list[Stream]:
    """Stand in for CUDA's streams: the trainer's comes first, the others as they are entered."""
    entered = [Stream()]
    current = [entered[0]]

    @contextmanager
    def enter(stream: Stream) -> Iterator[None]:
        before, current[0] = current[0], stream
        entered.append(stream)
        yield
        current[0] = before

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", enter)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _=None: current[0])
    monkeypatch.setattr(Stream, "record_event", lambda stream: (stream, len(entered)), raising=False)
    return entered


class Notes:
    """Notes on which stream each batch was planned and drawn, and who was told of its memory."""

    def __init__(self, loader: TrainLoader, patch: pytest.MonkeyPatch) -> None:
        self.drawn: list[object] = []
        self.policies: list[AugmentPolicy] = []
        self.told: list[object] = []
        assert isinstance(loader.batches, DeviceBatches)
        draw = loader.batches.drawn

        def noted(planned: Batch, pixels: torch.Tensor, policy: AugmentPolicy) -> Batch:
            self.drawn.append(torch.cuda.current_stream())
            self.policies.append(policy)
            return draw(planned, pixels, policy)

        patch.setattr(loader.batches, "drawn", noted)
        patch.setattr(torch.Tensor, "record_stream", lambda _, stream: self.told.append(stream))


def test_a_batch_is_drawn_while_the_one_before_is_trained_on(
    tmp_path: Path, streams: list[Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, options = dataset(tmp_path, 16), {"cache": "gpu", "device": torch.device("cpu"), "batch_size": 4}

    def closing(_: int, batch: int) -> bool:
        return batch >= 2

    def loader() -> Any:
        return train_loader(made, InputSpec(64, 64), AugmentPolicy(), closing=closing, epochs=1, **options)  # type: ignore[arg-type]

    expected, watched = list(loader()), loader()
    notes, batches = Notes(watched, monkeypatch), watched.batches
    batches.prepare()
    monkeypatch.setattr(batches, "device", _CudaByName())
    given = []
    for number, batch in enumerate(watched):
        given.append(batch)
        assert len(notes.drawn) == min(number + 2, 4)
        assert batch.block is None
    trainer, drawer = streams[0], streams[1]
    assert notes.drawn == [drawer] * 4 and drawer is not trainer and drawer.waited == [trainer]
    assert [stream for stream, _ in trainer.waited] == [drawer] * 4 and len(set(trainer.waited)) == 4
    assert notes.told == [trainer] * (8 * 4)
    assert notes.policies == [AugmentPolicy()] * 2 + [AugmentPolicy().closing()] * 2
    assert all_same(given, expected)


class _CudaByName:
    """The processor under a GPU's name."""

    type = "cuda"
