"""How busy a GPU is, as far as NVML says it."""

from __future__ import annotations

from typing import NoReturn

import pytest
import torch

from eyas.training.gpu import busy

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
