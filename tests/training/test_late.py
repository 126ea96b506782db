"""What a GPU says, and when: values that come late, in order and none lost; how busy it is."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from eyas.training import late
from eyas.training.gpu import busy
from eyas.training.late import LateValues


class Far(torch.Tensor):
    """Stands for a tensor on a GPU."""

    is_cuda = True


class Events:
    """Stand for the GPU's progress: `done` of the copies have come."""

    def __init__(self) -> None:
        self.made = 0
        self.done = 0
        self.waited: list[int] = []

    def __call__(self) -> Event:
        self.made += 1
        return Event(self, self.made)


class Event:
    def __init__(self, events: Events, number: int) -> None:
        self.events, self.number = events, number

    def record(self) -> None:
        """Nothing: it is known by its number."""

    def query(self) -> bool:
        return self.number <= self.events.done

    def synchronize(self) -> None:
        self.events.waited.append(self.number)
        self.events.done = max(self.events.done, self.number)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    events = Events()
    monkeypatch.setattr(torch.cuda, "Event", events)
    monkeypatch.setattr(torch, "empty_like", lambda values, **_: torch.zeros(values.shape))
    return events


def test_on_a_cpu_they_are_there_at_once_and_are_those_of_their_step() -> None:
    values, static = LateValues[int](), torch.zeros(2)
    for step in range(3):
        static.fill_(step)
        values.put(static, step)
    assert values.take() == [([0.0, 0.0], 0), ([1.0, 1.0], 1), ([2.0, 2.0], 2)] and values.take() == []


def test_from_a_gpu_what_has_come_is_taken_and_the_rest_waits(events: Events) -> None:
    values, static = LateValues[str](), torch.zeros(1).as_subclass(Far)
    for step in range(3):
        static.fill_(step)
        values.put(static, f"step {step}")
    assert values.take() == []
    events.done = 2
    assert [note for _, note in values.take()] == ["step 0", "step 1"]
    assert values.take(everything=True) == [([2.0], "step 2")] and events.waited == [3]


def test_the_host_is_only_so_far_ahead(events: Events) -> None:
    values, static = LateValues[int](), torch.zeros(1).as_subclass(Far)
    taken = []
    for step in range(20):
        values.put(static, step)
        taken += values.take()
    assert [note for _, note in taken] == list(range(20 - late.MOST_ON_THE_WAY))


GPU = torch.device("cuda", 0)


def test_a_processor_has_no_such_number() -> None:
    assert busy(torch.device("cpu")) is None


def test_it_is_what_nvml_says_of_that_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "utilization", lambda device: 87 if device == GPU else 0)
    assert busy(GPU) == 87


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no NVML"), OSError("no library")])
def test_a_machine_without_nvml_shows_nothing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(device: torch.device) -> NoReturn:
        raise error

    monkeypatch.setattr(torch.cuda, "utilization", refuse)
    assert busy(GPU) is None
