"""What ends of epochs cost, and what a batch's way costs: this source beside another one, by turns.

    git worktree add ../before COMMIT
    python benchmarks/loading_epochs.py --trees ../before/src src [--rounds 5]

A process a round and source trains three epochs of 128 images (640 x 480, JPEG) at 320 px with one loader process, a
pause standing in for the step of a GPU, which leaves the processor alone, and evaluates 32 images after each epoch.
Measured are the seconds until the first batch, the waits for the first batch of an evaluation and of a later epoch,
the images a second of the whole, and the memory of the loader processes. A last part takes batches that are made of
nothing, so that their way from the worker is all there is. Prints a table and writes
benchmarks/results/loading_epochs.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 16
EPOCHS = 3
WAY_BATCHES = 100


class Nothing:
    """Makes batches without any work but their memory: 64 images of 320 px with 7 boxes each."""

    def __call__(self, _: int, numbers: tuple[int, ...], *rest: Any) -> Iterator[Any]:
        """Yield a batch for each number."""
        from eyas.data.loading.batch_arrays import BatchArrays

        for _number in numbers:
            images = rest[-1]((64, 320, 320, 3))
            images[:] = 1
            row = np.zeros(64, np.int64)
            yield BatchArrays(
                images, np.zeros((448, 4), np.float32), np.zeros(448, np.int64), row + 7, row,
                np.zeros((64, 6), np.float32), np.zeros((64, 2), np.int64), row[:0],
            )  # fmt: skip


def measure(folder: Path, step: float) -> dict[str, float]:
    """Return what one process measures."""
    from benchmarks.loading import make_dataset
    from benchmarks.loading_epochs import Nothing as Named  # by a name that another process can import

    from eyas.data.augment.config import AugmentPolicy
    from eyas.data.loading.eval_loader import eval_loader
    from eyas.data.loading.loader import train_loader
    from eyas.data.loading.workers import Pipe
    from eyas.types import InputSpec

    index, spec = make_dataset(folder), InputSpec(320, 320)
    evaluation = eval_loader(index.subset(np.arange(32)), spec, batch_size=BATCH, workers=1)
    # An older source knows no `before_end`.
    ready: dict[str, Any] = (
        {"before_end": evaluation.prepare, "epochs": EPOCHS} if hasattr(evaluation, "prepare") else {}
    )
    loader = train_loader(index, spec, AugmentPolicy(), batch_size=BATCH, workers=1, **ready)
    waits: dict[str, list[float]] = {"start": [], "epoch": [], "evaluation": []}
    begun = time.perf_counter()
    for epoch in range(EPOCHS):
        for batches, name in ((loader, "epoch" if epoch else "start"), (evaluation, "evaluation")):
            asked = time.perf_counter()
            for number, _ in enumerate(batches):
                if not number:
                    waits[name].append(time.perf_counter() - asked)
                time.sleep(step)
    seconds = time.perf_counter() - begun
    memory = sum(proportional(pid) for pid in children())
    loader.close()
    evaluation.close()
    no_device: Any = None  # that of an older source: no page-locking
    way = Pipe(Named(), 1, no_device, 64 * 320 * 320 * 3)
    taken = way.run([(0, (number,)) for number in range(WAY_BATCHES)])
    next(taken)
    asked = time.perf_counter()
    on_the_way = sum(1 for _ in taken) / (time.perf_counter() - asked)
    way.close()
    return {
        "first batch, s": waits["start"][0],
        "wait at an epoch's start, ms": 1e3 * statistics.median(waits["epoch"]),
        "wait at the first evaluation's, ms": 1e3 * waits["evaluation"][0],
        "wait at a later evaluation's, ms": 1e3 * statistics.median(waits["evaluation"][1:]),
        "images a second": EPOCHS * (128 + 32) / seconds,
        "batches of nothing a second": on_the_way,
        "memory of the loader processes, MiB": memory / 2**20,
    }


def children() -> list[int]:
    """Return the processes that this one has started."""
    return [int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="ascii").split()]


def proportional(pid: int) -> int:
    """Return a process's proportional set size in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Run the sources by turns, print the table, keep the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trees", nargs="+", default=["src"], help="folders that hold the package, the oldest first")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step", type=float, default=0.05, help="seconds that the GPU takes for a batch of 16")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loading_epochs.json")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(Path(folder), arguments.step)))
        return
    found: dict[str, list[dict[str, float]]] = {tree: [] for tree in arguments.trees}
    root = Path(__file__).resolve().parents[1]
    for _ in range(arguments.rounds):
        for tree in arguments.trees:
            path = os.pathsep.join([str(Path(tree).resolve()), str(root)])
            command = [sys.executable, __file__, "--measure", "--step", str(arguments.step)]
            environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            found[tree].append(json.loads(done.stdout))
    print("| median of the rounds |" + "".join(f" {tree} |" for tree in found))
    print("| --- |" + " ---: |" * len(found))
    for name in found[arguments.trees[0]][0]:
        values = [statistics.median(one[name] for one in rounds) for rounds in found.values()]
        print(f"| {name} |" + "".join(f" {value:.3g} |" for value in values))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps({"load": os.getloadavg(), **found}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
