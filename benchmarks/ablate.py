"""Finds where learning is lost: one change of a recipe at a time, in equal processor time, to the end.

    python -m benchmarks.ablate screen --data bccd=DIR --data cards=DIR [--only NAME ...]
    python -m benchmarks.ablate final --data bccd=DIR --data cards=DIR --only NAME ...
    python -m benchmarks.ablate page

The variants with a teacher need `--teachers DIR`, with a run for each data set by its name: a larger row, trained
before and for nothing, as a user who has one would.

`screen` trains the pico net at 192 px, four minutes of a core a run, one seed (the default has three, which say what
differences mean nothing); `final` the nano net at 320 px, ten minutes of a core, three seeds.

Every run has one core to itself and a schedule that it finishes. How many epochs fit into the minutes is not left to
the clock of a shared machine: the processor time of an image is measured for the default and the variant by turns in
one process, and the epochs follow from the ratio. So a variant whose step is dearer gets fewer of them, and a run
comes to the same whatever else the machine does. The AP is that of the average of the weights at the end, on the
split "val", not that of the best epoch.

What is done is kept in `results/ablation.json`, and not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from types import MappingProxyType
from typing import Any

from benchmarks.ablate_page import write
from benchmarks.ablate_variants import BASELINE, VARIANTS, whole

from eyas.data.formats import load_dataset

RESULTS = Path(__file__).parent / "results" / "ablation.json"


@dataclass(frozen=True)
class Stage:
    """One of the two rounds.

    Attributes:
        title: in the page.
        model: a row of the zoo.
        size: of the images, in pixels.
        minutes: of a core, for the default.
        seeds: of each variant.
        baseline_seeds: of the default.
    """

    title: str

    model: str
    size: int
    minutes: float
    seeds: tuple[int, ...]
    baseline_seeds: tuple[int, ...]


STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "screen": Stage("Screen: P at 192 px, 4 minutes of a core", "p", 192, 4.0, (0,), (0, 1, 2)),
        "final": Stage("Final: N at 320 px, 10 minutes of a core", "n", 320, 10.0, (0, 1, 2), (0, 1, 2)),
    }
)


class Results:
    """What is known so far: a JSON file that is written after each result."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self._lock = threading.Lock()

    def put(self, key: str, value: dict[str, Any]) -> None:
        """Keep a result."""
        with self._lock:
            self.rows[key] = value
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_text(json.dumps(self.rows, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def key_of(*parts: object) -> str:
    """Return the name of a result."""
    return " | ".join(str(part) for part in parts)


def in_process(cell: dict[str, Any], core: int) -> dict[str, Any]:
    """Return what a process for a cell, bound to a core, says."""
    with tempfile.TemporaryDirectory(prefix="ablate-") as folder:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.ablate_cell", json.dumps({**cell, "core": core}), f"{folder}/run"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{cell}: {done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def cells_of(stage: Stage, names: list[str], data: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Yield what is to be run, as (variant, data set, seed): every variant once before any twice."""
    seeds = sorted({*stage.seeds, *stage.baseline_seeds})
    for seed in seeds:
        for name in names:
            if seed in (stage.baseline_seeds if name == BASELINE else stage.seeds):
                yield from ((name, one, seed) for one in data)


def work(
    stage_name: str, cell: tuple[str, str, int], roots: Mapping[str, str], teachers: Path, results: Results, core: int
) -> None:
    """Measure what a variant costs, unless that is known, and train it once."""
    stage, (name, data, seed) = STAGES[stage_name], cell
    key = key_of(stage_name, data, name, seed)
    if key in results.rows:
        return
    images = len(load_dataset(roots[data], "train"))
    fixed = {
        "variant": name, "root": roots[data], "teacher": f"{teachers}/{data}", "model": stage.model, "size": stage.size,
        "seed": seed, "images": images,
    }  # fmt: skip
    baseline = key_of(stage_name, data, "cost")
    own = key_of(stage_name, data, name, "cost")
    if baseline not in results.rows:
        results.put(baseline, in_process({**fixed, "variant": BASELINE, "kind": "cost"}, core))
    if own not in results.rows:
        variant = whole(name)
        same = set(variant.recipe) <= FREE and not variant.spec and variant.closing is None
        costs = {"default": 1.0, "variant": 1.0} if same else in_process({**fixed, "kind": "cost"}, core)
        results.put(own, costs)
    epochs = 60 * stage.minutes / (results.rows[baseline]["default"] * images)
    epochs *= results.rows[own]["default"] / results.rows[own]["variant"]
    load = os.getloadavg()[0]
    result = in_process({**fixed, "kind": "train", "epochs": max(1, round(epochs))}, core)
    results.put(key, {**result, "load": round(load, 1)})
    print(f"{time.strftime('%H:%M')} {key}: AP {result['ap']:.3f} ({result['epochs']} epochs, {result['cpu_s']} s)")


# Fields that only change numbers, not the work that a step is.
FREE = frozenset({
    "optim.lr", "optim.weight_decay", "optim.ema", "optim.final_factor", "optim.flat", "loss.class_weight",
    "loss.iou_weight", "loss.dfl_weight", "loss.classification", "loss.assigner.top_k", "loss.assigner.alpha",
    "loss.assigner.beta", "augment.scale", "augment.mixup",
})  # fmt: skip


def lanes(
    stage_name: str, cells: list[tuple[str, str, int]], roots: Mapping[str, str], teachers: Path, results: Results
) -> None:
    """Work on the cells, one after another on each core."""
    waiting: SimpleQueue[tuple[str, str, int]] = SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    failed: list[BaseException] = []

    def lane(core: int) -> None:
        while not failed:
            try:
                cell = waiting.get_nowait()
            except Empty:
                return
            try:
                work(stage_name, cell, roots, teachers, results, core)
            except BaseException as error:
                failed.append(error)
                raise

    threads = [threading.Thread(target=lane, args=(core,)) for core in sorted(os.sched_getaffinity(0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def main() -> None:
    """Run a stage, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[*STAGES, "page"])
    parser.add_argument("--data", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    parser.add_argument("--teachers", type=Path, default=Path("teachers"), metavar="DIR")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.stage == "page":
        write(Results(options.out).rows, {name: stage.title for name, stage in STAGES.items()})
        return
    roots = dict(one.split("=", 1) for one in options.data)
    names = [BASELINE, *(name for name in options.only if name != BASELINE)]
    cells = list(cells_of(STAGES[options.stage], names, roots))
    lanes(options.stage, cells, roots, options.teachers, Results(options.out))


if __name__ == "__main__":
    main()
