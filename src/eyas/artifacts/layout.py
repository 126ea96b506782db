"""Which files make up an artefact, and where they lie: known before any of them is read."""

from __future__ import annotations

from pathlib import Path

from eyas.errors import UserError
from eyas.files import read_json

# Of a run.
CONFIG = "config.json"
RECIPE = "recipe.json"
WEIGHTS = "model.safetensors"  # the best EMA weights: what is evaluated, deployed, resumed from
LAST_WEIGHTS = "last.safetensors"
QUANTIZATION = "quantization.json"
CHECKPOINT = "checkpoints/last.ckpt"  # for --resume only, as are the next four
PREVIOUS_CHECKPOINT = "checkpoints/previous.ckpt"
CHECKPOINT_HASHES = "checkpoints/hashes.json"
ORIGIN = "origin.json"
IMAGES = "images.csv"
PLANNINGS = "plannings.csv"  # of a run that was given a time
METRICS = "metrics.csv"  # a row an epoch
STEPS = "steps.csv"  # a row every few steps
CURVES = "results.png"
SHEETS = "images"  # epoch_001.jpg, ...: predictions against truth
TRACKERS = "trackers"  # NAME.json: how far a tracker has what the run has
ENVIRONMENT = "env.json"
MAX_BYTES = 64 * 2**20  # of its settings, and of its recipe
RUN_FORMAT = "eyas-run"  # what its settings say they are

# Of a bundle, besides its engine's own.
MANIFEST = "manifest.json"


def run_of(path: Path) -> Path | None:
    """Return the folder of the run that a file lies in, directly or among its saved states; None if it is in none."""
    for folder in (path.parent, path.parent.parent):
        settings = folder / CONFIG
        try:
            fields = read_json(settings, max_bytes=1 << 24) if settings.is_file() else None
        except UserError:
            fields = None
        if isinstance(fields, dict) and fields.get("format") == RUN_FORMAT:
            return folder
    return None
