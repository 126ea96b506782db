"""Training: a recipe and a dataset in, a run folder out. The only package that imports Lightning."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from eyas.models.torchvision_operators import let_torchvision_load
from eyas.training.recipe import Recipe

let_torchvision_load()  # before Lightning, whose metrics import torchvision wherever it is installed


def train(
    data: str | Path,
    *,
    recipe: str | Recipe = "",
    out: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    size: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    logger: str | Iterable[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Train a detector and return the folder of the run.

    Args:
        data: the dataset's folder (COCO, YOLO or Pascal VOC).
        recipe: a recipe, or the name of one: scratch, finetune, yolo_nas_coco, quick. By default finetune when
            `weights` is given and scratch otherwise.
        out: the run's folder; runs/NAME-MODEL by default, with a number when that exists.
        model: a row of the model zoo: p, n, s, m, l.
        weights: what to start from: a run's folder, a .safetensors file or a public YOLO-NAS checkpoint.
        size, epochs, batch: short for data.size, trainer.epochs and data.batch_size.
        minutes: how long it may take from this call to its end; schedule and evaluations are planned for that time
            instead of for `epochs`.
        logger: trackers that the run is sent to beside its CSV files: mlflow, tensorboard, wandb.
        overrides: any field of the recipe, as {"optim.lr": 1e-3}.

    Raises:
        UserError: something given can't be used, a check before training failed, or the loss diverged.

    Ctrl-C, SIGTERM and SIGHUP end the training after its step with everything saved; then the signal goes to the
    handler that was there before: KeyboardInterrupt, by default, or the end of the process.
    """
    from eyas.signals import StopSignals
    from eyas.training.config_overrides import override
    from eyas.training.fit import fit
    from eyas.training.loggers import split_names
    from eyas.training.recipes import named

    if not isinstance(recipe, Recipe):
        recipe = named(recipe or ("finetune" if weights else "scratch"))
    short = {
        "data.root": str(data),
        "model.name": model,
        "model.weights": str(weights) if weights else None,
        "data.size": size,
        "trainer.epochs": epochs,
        "trainer.minutes": minutes,
        "data.batch_size": batch,
        "trainer.logger": split_names([logger] if isinstance(logger, str) else logger) or None,
    }
    given = {name: value for name, value in short.items() if value is not None}
    started = time.monotonic()
    signals = StopSignals()
    try:
        with signals:
            whole = override(recipe, {**given, **(overrides or {})})
            return fit(whole, Path(out) if out else None, signals=signals, started=started)
    finally:
        signals.hand_on()
