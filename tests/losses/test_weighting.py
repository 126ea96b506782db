"""Every way to weigh the terms of a loss, and what the learned one learns."""

from __future__ import annotations

import pytest
import torch

from eyas.errors import UserError
from eyas.losses.criterion import Criterion, TruthBatch
from eyas.losses.uncertainty import UncertaintyWeighting
from eyas.losses.weighting import WEIGHTINGS, weighed


class Two(Criterion):
    """A term that is large and one that is small, both of what the network says."""

    terms = ("large", "small")
    static = True

    def forward(self, output: torch.Tensor, batch: TruthBatch) -> dict[str, torch.Tensor]:
        return {"large": 4.0 * output.square().mean(), "small": 0.25 * output.abs().mean()}


@pytest.mark.parametrize("name", WEIGHTINGS)
def test_every_weighting_begins_with_the_criterions_own_terms(name: str) -> None:
    criterion = weighed(Two(), name)
    output = torch.ones(3)
    assert (criterion.terms, criterion.static) == (("large", "small"), Two.static)
    assert {term: float(value) for term, value in criterion(output, None).items()} == {"large": 4.0, "small": 0.25}


def test_the_learned_weights_are_the_terms_inverse() -> None:
    """The least of exp(-s) * value + s lies at s = log(value)."""
    criterion = UncertaintyWeighting(Two())
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        torch.stack(list(criterion(torch.ones(3), None).values())).sum().backward()
        optimizer.step()
    assert criterion.log_variances.exp().tolist() == pytest.approx([4.0, 0.25], rel=1e-3)


def test_an_unknown_weighting_is_refused() -> None:
    with pytest.raises(UserError, match=r"no weighting 'uncertain' \(did you mean 'uncertainty'"):
        weighed(Two(), "uncertain")
