"""A loss that learns how much each of its terms weighs.

Kendall, Gal and Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses", CVPR 2018 (arXiv 1705.07115).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eyas.losses.criterion import Criterion, TruthBatch


class UncertaintyWeighting(Criterion):
    """Weighs the terms of another criterion: exp(-s) * term + s, with one learned s a term, 0 at the start.

    s is the logarithm of a term's noise: a term that stays large is weighed down, and s keeps the weights from all
    going to 0. A term may so become negative.

    Args:
        inner: the criterion whose terms are weighed.

    Attributes:
        log_variances: float32 [T], s of each term.
    """

    def __init__(self, inner: Criterion) -> None:
        super().__init__(inner.reduce)
        self.inner = inner
        self.terms = inner.terms
        self.static = inner.static
        self.log_variances = nn.Parameter(torch.zeros(len(inner.terms)))

    def forward(self, output: object, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the inner criterion's terms, weighed."""
        terms: dict[str, Tensor] = self.inner(output, batch)
        pairs = zip(self.terms, self.log_variances, strict=True)
        return {name: (-spread).exp() * terms[name] + spread for name, spread in pairs}
