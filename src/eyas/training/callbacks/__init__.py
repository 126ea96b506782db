"""Callbacks of a run: averages, checks, evaluation, tables, images, saved states, early stopping."""

from __future__ import annotations

import lightning as L

from eyas.training.callbacks.evaluation import Evaluation
from eyas.training.callbacks.finite import FiniteCheck
from eyas.training.callbacks.weight_average import WeightAverage
from eyas.training.recipe import OptimRecipe


def essential(optim: OptimRecipe | None = None) -> list[L.Callback]:
    """Return the callbacks that a `DetectionModule` is trained and evaluated with, for a Trainer of one's own."""
    return [WeightAverage((optim or OptimRecipe()).ema), FiniteCheck(), Evaluation()]
