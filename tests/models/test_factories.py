"""Networks of every factory's layers train, and their weights are read as plain ones."""

from __future__ import annotations

from types import MappingProxyType

import pytest
import torch
from torch import nn

from eyas.errors import UserError
from eyas.models import factories, zoo
from eyas.models.factories import FACTORIES, factory_of
from eyas.models.layers import LAYERS, Layers
from eyas.training.build_model import make_network
from eyas.training.config_overrides import override
from eyas.training.recipe import Recipe


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factorys_network_learns_and_has_the_plain_ones_tensors(name: str) -> None:
    net = zoo.build("p", 3, FACTORIES[name]).train()
    output = net(torch.rand(2, 3, 64, 64))
    (output.class_logits.sigmoid().mean() + output.box_logits.square().mean()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    zoo.build("p", 3).load_state_dict(net.state_dict())


def test_a_recipe_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Norm(nn.BatchNorm2d):
        pass

    own = Layers(LAYERS.conv, Norm, LAYERS.block, LAYERS.upsample)
    monkeypatch.setattr(factories, "FACTORIES", MappingProxyType({**FACTORIES, "own": own}))
    recipe = override(Recipe(), {"model.name": "p", "model.layers": "own"})
    net, _ = make_network(recipe.model, ("a", "b"))
    assert {type(each) for each in net.modules() if isinstance(each, nn.BatchNorm2d)} == {Norm}
    plain, _ = make_network(Recipe().model, ("a", "b"))
    assert {type(each) for each in plain.modules() if isinstance(each, nn.BatchNorm2d)} == {nn.BatchNorm2d}


def test_one_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"no layers 'plane' \(did you mean 'plain'"):
        factory_of("plane")
