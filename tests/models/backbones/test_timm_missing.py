"""Where timm is not installed: a run that needs it says so, and everything else does without."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.backbones.timm_library import pyramid_of


def test_a_network_of_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)  # importing it now fails
    pyramid_of.cache_clear()
    spec = dataclasses.replace(zoo.resolve("p"), backbone="timm:resnet18")
    described = zoo.describe(spec)
    assert described["spec"]["backbone"] == "timm:resnet18"
    with pytest.raises(UserError, match="'timm', which is not installed") as caught:
        zoo.build_described(described, 3)
    assert caught.value.fix == 'pip install "eyas[timm]"'
