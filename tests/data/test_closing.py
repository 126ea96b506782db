"""The policy of a run's end: from which batch on it holds, whoever makes the batches and wherever they were resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.data.given import Tasks
from tests.data.scenes import all_same, dataset, same

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.data.loading.loader import TrainLoader, train_loader
from eyas.training.timetable import Planning, Timetable, step_of
from eyas.types import InputSpec

SPEC = InputSpec(64, 64, margin=0)
POLICY = AugmentPolicy(mixup=0.5)
SWITCH = (1, 3)  # in the middle of eight batches that share images


def loader_of(index: DatasetIndex, policy: AugmentPolicy = POLICY, **options: object) -> TrainLoader:
    return train_loader(index, SPEC, policy, batch_size=4, seed=5, **options)  # type: ignore[arg-type]


def batches_of(loader: TrainLoader, epochs: int) -> list[Batch]:
    return [batch for _ in range(epochs) for batch in loader]


def mixed(index: DatasetIndex, epochs: int, closing: Callable[[int, int], bool], **options: object) -> list[Batch]:
    """Return the batches of two ordinary runs, those that are among the last ones from a run that has no others."""
    usual = batches_of(loader_of(index, **options), epochs)
    single = batches_of(loader_of(index, POLICY.closing(), **options), epochs)
    return [
        last if closing(*divmod(number, 10)) else first
        for number, (first, last) in enumerate(zip(usual, single, strict=True))
    ]


def closes(epoch: int, batch: int) -> bool:
    return (epoch, batch) >= SWITCH


@pytest.fixture(scope="module")
def expected(index: DatasetIndex) -> list[Batch]:
    """Return two epochs with the switch in the second."""
    return mixed(index, 2, closes)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_switch_is_at_a_batch_for_any_number_of_workers(
    index: DatasetIndex, expected: list[Batch], workers: int
) -> None:
    loader = loader_of(index, workers=workers, closing=closes, epochs=2)
    assert all_same(batches_of(loader, 2), expected)
    loader.close()


def test_a_task_has_batches_of_one_policy_in_their_order(index: DatasetIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = Tasks(monkeypatch)
    loader = loader_of(index, workers=1, closing=closes, epochs=2)
    batches_of(loader, 2)
    loader.close()
    assert tasks.given == [
        (0, tuple(range(8)), False), (0, (8, 9), False), (1, (0, 1, 2), False), (1, tuple(range(3, 8)), True),
        (1, (8, 9), True),
    ]  # fmt: skip


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_resumed_exactly_on_both_sides_of_the_switch(
    index: DatasetIndex, expected: list[Batch], workers: int
) -> None:
    stopped, resumed = (loader_of(index, workers=2 - workers, closing=closes) for _ in range(2))
    states = []
    for _ in range(2):
        states += [stopped.state_dict() for _ in stopped]
    stopped.close()
    for given in (9, 12, 13, 14, 19):
        resumed.load_state_dict(states[given - 1])
        rest = list(resumed)
        assert all_same(rest, expected[given : given + len(rest)]) and len(rest) in (1, 6, 7, 8)
    resumed.close()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_device_draws_by_the_policy_of_each_batch(index: DatasetIndex, workers: int) -> None:
    store = {"cache": "gpu", "device": torch.device("cpu")}
    loader = loader_of(index, workers=workers, closing=closes, **store)
    got = batches_of(loader, 2)
    loader.close()
    # The store keeps other sizes for two policies than for one, never other samples.
    assert all(same(one, other) for one, other in zip(got, mixed(index, 2, closes, **store), strict=True))


AHEAD = 33  # two workers with two tasks of eight batches each, and one


@pytest.mark.parametrize("workers", [0, 2])
def test_what_was_handed_out_is_changed_by_no_later_planning(
    index: DatasetIndex, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = Tasks(monkeypatch)
    table = Timetable([Planning(0, 60, 1, 1, 55, AHEAD)])
    later = {8: Planning(8, 60, 1, 1, 30, AHEAD), 20: Planning(20, 60, 1, 1, 10, AHEAD)}

    def closing(epoch: int, batch: int) -> bool:
        return table.closing(step_of(epoch, batch, 10, 1))

    loader = loader_of(index, workers=workers, closing=closing, epochs=6)
    got: list[Batch] = []
    for _ in range(6):
        for batch in loader:
            got.append(batch)
            if len(got) in later:
                table.add(later[len(got)])
    loader.close()
    assert all(flag == closing(epoch, number) for epoch, numbers, flag in tasks.given for number in numbers)
    # The planning of step 8 reaches as far back as to what no worker can have had by then.
    assert [closing(*divmod(number, 10)) for number in range(60)] == [number >= 8 + AHEAD for number in range(60)]
    assert all_same(got, mixed(index, 6, closing))


def test_the_largest_size_of_both_policies_counts(tmp_path: Path) -> None:
    large = dataset(tmp_path, 4, sizes=((600, 800),))
    policy, closing = AugmentPolicy(scale=(0.2, 0.3)), AugmentPolicy(scale=(1.0, 2.0), mosaic=0.0, mixup=0.0)
    options = {"closing_policy": closing}
    by_step = next(iter(loader_of(large, policy, closing=lambda *_: True, **options)))
    by_epoch = next(iter(loader_of(large, policy, close_at_epoch=0, **options)))
    assert same(by_step, by_epoch)
    assert same(by_step, next(iter(loader_of(large, closing))))
