"""How long loader workers take to start and what memory they take: Eyas beside torch's DataLoader in its three ways.

    python benchmarks/loader_start.py [--workers 1 2 8] [--annotations 1000000]

Every way is tried in a process of its own that has imported torch and holds the columns of an index. Measured are the
seconds until each of the workers has given a batch, and the proportional set size (a page that n processes share counts
as 1/n) of all processes that were started, when every worker has read the whole index. Prints a table and writes
benchmarks/results/loader_start.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

WAYS = ("eyas", "fork", "forkserver", "spawn")


class Reader:
    """Holds the columns of an index, reads all of them and makes a tiny batch."""

    def __init__(self, annotations: int) -> None:
        self.boxes = np.ones((annotations, 4), np.float32)
        self.labels = np.ones(annotations, np.int64)
        self.areas = np.ones(annotations, np.float32)

    def __call__(self, _: int, numbers: tuple[int, ...], *rest: Any) -> Iterator[Any]:
        """Yield a batch for each number."""
        import cv2  # noqa: F401  # what a real maker needs

        from eyas.data.loading.batch_arrays import BatchArrays

        for _number in numbers:
            total = np.array([self.boxes.sum() + self.labels.sum() + self.areas.sum()], np.int64)
            none, rows = np.zeros(0, np.int64), np.zeros((1, 4), np.float32)
            yield BatchArrays(rest[-1]((1, 2, 2, 3)), rows, total, none, none, rows[:0], none, none)

    def __getitem__(self, number: int) -> int:
        """Return what a batch tells; the form that torch's DataLoader wants."""
        from eyas.data.loading.batch_arrays import own_memory

        return int(next(self(0, (number,), own_memory)).labels[0])


def started(way: str, reader: Reader, workers: int) -> Iterator[int]:
    """Start the workers and yield a number for each batch, one a worker in turn."""
    if way == "eyas":
        from eyas.data.loading.workers import Pipe

        pipe = Pipe(reader, workers, None, 12)
        for batch in pipe.run([(0, (number,)) for number in range(2 * workers)]):
            yield int(batch.labels[0])
        return
    import torch.multiprocessing
    from torch.utils.data import DataLoader

    context = torch.multiprocessing.get_context(way)
    if way == "forkserver":
        context.set_forkserver_preload(["torch.utils.data", "cv2", "eyas.data.loading.batch_arrays"])
    yield from DataLoader(
        reader, sampler=range(2 * workers), batch_size=None, num_workers=workers, prefetch_factor=1,
        persistent_workers=True, multiprocessing_context=context,
    )  # fmt: skip


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and those that they did."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [each for child in children for each in (int(child), *descendants(int(child)))]


def pss(pid: int) -> float:
    """Return the proportional set size of a process in MiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(way: str, workers: int, annotations: int) -> dict[str, float]:
    """Return the seconds to start and the MiB of one way; to be called in a new process."""
    import os

    import loader_start  # not __main__, which workers do not have
    import torch  # noqa: F401

    reader = loader_start.Reader(annotations)
    start = time.perf_counter()
    batches = started(way, reader, workers)
    for _ in range(workers):
        next(batches)
    seconds = time.perf_counter() - start
    rest = [next(batches) for _ in range(workers)]
    assert len(rest) == workers
    own, all_of_them = pss(os.getpid()), [pss(pid) for pid in descendants(os.getpid())]
    return {"seconds": seconds, "mib": sum(all_of_them), "processes": len(all_of_them), "trainer_mib": own}


def main() -> None:
    """Measure all ways in turn, print a table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3, help="the quickest start counts")
    parser.add_argument("--one", nargs=2, metavar=("WAY", "WORKERS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.one[0], int(args.one[1]), args.annotations)))
        return
    rows = []
    print(f"{'way':<12}{'workers':>8}{'start, s':>10}{'MiB':>8}{'processes':>11}")
    for workers in args.workers:
        for way in WAYS:
            command = [sys.executable, __file__, "--annotations", str(args.annotations), "--one", way, str(workers)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                for _ in range(args.rounds)
            ]
            best = min(runs, key=lambda run: run["seconds"])
            rows.append({"way": way, "workers": workers, **best})
            print(
                f"{way:<12}{workers:>8}{best['seconds']:>10.2f}{best['mib']:>8.0f}{best['processes']:>11}", flush=True
            )
    machine = {"processor": platform.processor() or platform.machine(), "python": platform.python_version()}
    out = Path(__file__).parent / "results" / "loader_start.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps({"machine": machine, "annotations": args.annotations, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
