"""The peer of the GPU benchmark: trains a model of the package `ultralytics` and writes when each step ended.

    PYTHON benchmarks/training_gpu_peer.py DATA.yaml FOLDER yolo11n SIZE BATCH DEVICE CACHE

The package is AGPL-3.0: it is run as it is published, in an environment of its own; nothing of Eyas imports it, ships
it or depends on it. It trains with its own defaults, from scratch; its evaluation and plots are left out, as Eyas's
are, and it saves nothing (which would take a further package of 50 MB), while Eyas saves at the end of each epoch. It
goes on until it is killed.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import ultralytics


def main() -> None:
    """Train, and write rows of step, epoch and seconds to FOLDER/steps.csv, as Eyas does."""
    data, name, model, size, batch, device, cache = sys.argv[1:8]
    folder, start, steps = Path(name), time.perf_counter(), 0

    def note(trainer: Any) -> None:
        nonlocal steps
        steps += 1
        if steps == 1:
            about = {"version": ultralytics.__version__, "torch": torch.__version__, "amp": bool(trainer.amp)}
            (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
            (folder / "steps.csv").write_text("step,epoch,seconds\n", encoding="utf-8")
        if steps == 1 or steps % 10 == 0:
            if device == "cuda":
                torch.cuda.synchronize()
            with (folder / "steps.csv").open("a", encoding="utf-8") as file:
                file.write(f"{steps},{trainer.epoch},{time.perf_counter() - start}\n")

    network = ultralytics.YOLO(f"{model}.yaml")
    network.add_callback("on_train_batch_end", note)
    network.train(
        data=data, imgsz=int(size), batch=int(batch), epochs=100_000, device="0" if device == "cuda" else "cpu",
        workers=min(14, max(1, (os.cpu_count() or 2) - 2)), cache="ram" if cache == "ram" else False,
        pretrained=False, val=False, plots=False, save=False, project=str(folder), exist_ok=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
