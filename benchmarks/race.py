"""A race: Eyas N, YOLO11n and YOLO26n from scratch on the same images, a core each, for the same minutes.

    python -m benchmarks.race --data bccd=DIR --data cards=DIR --peer PYTHON --minutes 10 --size 320 \\
        --seeds 0 1 2 --out results/race.json
    python -m benchmarks.race ... --latency            # the time an image takes, of the nets of the first seed
    python -m benchmarks.race page results/race.json   # puts the tables into training.md

A cell is a net, a data set and a seed. As many run at once as there are lanes, each on a core of its own with one
thread; on a GPU (--device cuda) one after the other. The nets alternate, so all meet the same conditions. What is
finished is kept in --out after each cell and not done again; a cell that failed is tried again by the next call, and
one that had less of its core than --least-share with --repeat. PYTHON is that of an environment with `ultralytics`
(AGPL-3.0), which is run as it is published. The rules stand in benchmarks/training.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.race_latency import latency
from benchmarks.race_report import page, tables
from benchmarks.race_runs import EYAS, Cell, Setting, end_all, scored, train

from eyas.data.formats import load_dataset
from eyas.errors import UserError
from eyas.files import write_json
from eyas.machine.processor import processor

NETS = (EYAS, "yolo11n", "yolo26n")
OVERHEAD = 60.0  # seconds a cell takes beyond its minutes, as a first guess


class Race:
    """The cells of one race, and what is known of them.

    Args:
        setting: what is the same for all.
        cells: all of them, in order.
        out: where the results are kept.
        least_share: a cell that had less of its core was disturbed.
        repeat: run disturbed cells again.

    Raises:
        UserError: the file holds a race with other settings.
    """

    def __init__(self, setting: Setting, cells: Sequence[Cell], out: Path, least_share: float, repeat: bool) -> None:
        self.setting, self.cells, self.out, self.least_share = setting, cells, out, least_share
        self.results: dict[str, Any] = {"settings": setting.fixed(), "cells": {}}
        if out.is_file():
            self.results = json.loads(out.read_text(encoding="utf-8"))
            if self.results["settings"] != setting.fixed():
                raise UserError(
                    f"{out} holds a race with other settings: {self.results['settings']}.",
                    expected=str(setting.fixed()),
                    fix="name another --out, or give the same settings",
                )
        cpu = processor()
        self.results["machine"] = {"name": cpu.name, "cores": cpu.cores, "python": platform.python_version()}
        kept: dict[str, Any] = self.results["cells"]
        self.repeated = {cell.key for cell in cells if repeat and self.disturbed(kept.get(cell.key, {}))}
        self.waiting = [cell for cell in cells if not self._done(cell, kept.get(cell.key, {}))]
        self._begun = 0
        self._seconds = [60 * setting.minutes + OVERHEAD]
        self._lock = threading.Lock()

    def _done(self, cell: Cell, row: dict[str, Any]) -> bool:
        """Return whether nothing is to be done for a cell."""
        return cell.key not in self.repeated and all(split in row.get("scores", {}) for split in self.setting.splits)

    def disturbed(self, row: dict[str, Any]) -> bool:
        """Return whether others took a part of the cell's core."""
        return self.setting.device == "cpu" and "share" in row and row["share"] < self.least_share

    def take(self) -> tuple[int, Cell] | None:
        """Return the next cell that nobody works at and how many were begun with it, None when there is none left."""
        with self._lock:
            if not self.waiting:
                return None
            self._begun += 1
            return self._begun, self.waiting.pop(0)

    def run(self, lanes: int) -> None:
        """Run all cells that are left, some at once."""
        total = len(self.waiting)
        self.tell(f"{total} of {len(self.cells)} cells to run in {lanes} lane{'s' * (lanes > 1)}")
        cores = sorted(os.sched_getaffinity(0)) if self.setting.device == "cpu" else []
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with ThreadPoolExecutor(lanes) as pool:
            done = [
                pool.submit(self._lane, lane, cores[lane] if cores else None, total, lanes) for lane in range(lanes)
            ]
            try:
                for lane in done:
                    lane.result()
            finally:  # whatever ended one lane, Ctrl-C too, ends the others
                self.waiting.clear()
                end_all()

    def _lane(self, lane: int, core: int | None, total: int, lanes: int) -> None:
        """Run cell after cell in the processes of one core."""
        if core is not None:
            os.sched_setaffinity(0, {core})  # this thread's; the processes that it starts inherit it
        while (taken := self.take()) is not None:
            (number, cell), start = taken, time.monotonic()
            self.tell(f"{number}/{total} {cell}: begins in lane {lane}; {self.left(lanes)}")
            row = self._cell(cell, lane)
            with self._lock:
                self._seconds.append(time.monotonic() - start)
                self.results["cells"][cell.key] = row
                self.save()
            self.tell(f"{number}/{total} {cell}: {self._summary(row)}; {self.left(lanes)}")

    def _cell(self, cell: Cell, lane: int) -> dict[str, Any]:
        """Train a cell unless it was, score what has no score yet, and return its row."""
        row: dict[str, Any] = self.results["cells"].get(cell.key, {})
        begun = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        try:
            if "wall" not in row or cell.key in self.repeated:
                row = {"begun": begun, "lane": lane}
                shutil.rmtree(self.setting.folder(cell), ignore_errors=True)
                row |= {**train(self.setting, cell, lane), "scores": {}}
            for split in self.setting.splits:
                if split not in row["scores"]:
                    row["scores"][split] = scored(self.setting, cell, lane, split)
        except UserError as error:
            return {**row, "failed": str(error)}
        return {name: value for name, value in row.items() if name != "failed"}

    def _summary(self, row: dict[str, Any]) -> str:
        """Return what came of a cell in a line."""
        if "failed" in row:
            return f"FAILED: {row['failed']}"
        aps = ", ".join(f"{split} AP {100 * found['AP']:.1f}" for split, found in row["scores"].items())
        share = f"{row['share']:.0%} of the core{', DISTURBED' if self.disturbed(row) else ''}"
        return f"{aps}, {row['epochs']} epochs, {row['wall']:.0f} s, {row['cpu']:.0f} s of processor ({share})"

    def left(self, lanes: int) -> str:
        """Return how long the cells that wait will take."""
        each = self._seconds[-1] if len(self._seconds) == 1 else sum(self._seconds[1:]) / (len(self._seconds) - 1)
        return f"{len(self.waiting)} wait, about {len(self.waiting) * each / lanes / 60:.0f} min"

    def tell(self, text: str) -> None:
        """Print a line with the time of day."""
        print(f"{datetime.datetime.now():%H:%M:%S} {text}", flush=True)

    def save(self) -> None:
        """Keep what is known."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.out, self.results)


def named_folder(text: str) -> tuple[str, Path]:
    """Return the name and the folder of NAME=DIR."""
    name, equals, folder = text.partition("=")
    if not (name and equals and folder):
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=DIR")
    return name, Path(folder).resolve()


def arguments() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=named_folder, action="append", required=True, metavar="NAME=DIR", help="may be repeated")
    add("--peer", required=True, metavar="PYTHON", help="Python of an environment with ultralytics")
    add("--minutes", type=float, default=10.0)
    add("--size", type=int, default=320)
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--nets", nargs="+", default=list(NETS), help=f"default: {' '.join(NETS)}")
    add("--splits", nargs="+", default=["val"], help="what is scored; kept nets are scored on a new one (default: val)")
    add("--eyas", default="", metavar="OPTIONS", help='further options of eyas train: "--optim.lr 1e-3"')
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--lanes", type=int, help="cells at once (default: 2, or as many as there are cores; 1 on a GPU)")
    add("--least-share", type=float, default=0.9, help="of its core; with less a cell was disturbed (default: 0.9)")
    add("--repeat", action="store_true", help="run disturbed cells again")
    add("--latency", action="store_true", help="then measure INT8 bundles of the first seed's nets")
    add("--seconds", type=float, default=20.0, help="how long each is timed (default: 20)")
    add("--out", type=Path, default=Path("results/race.json"))
    add("--work", type=Path, help="where runs lie (default: beside --out)")
    return parser


def main() -> None:
    """Run what is left of the race, or write the page."""
    if sys.argv[1:2] == ["page"]:
        page(json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
        return
    args = arguments().parse_args()
    work = (args.work or args.out.with_suffix("")).resolve()
    data = dict(args.data)
    setting = Setting(
        data, args.peer, args.minutes, args.size, args.device, args.eyas, tuple(args.splits), work,
    )  # fmt: skip
    check(setting)
    cells = [Cell(net, name, seed) for seed in args.seeds for name in data for net in args.nets]
    cores = 1 if args.device == "cuda" else len(os.sched_getaffinity(0))
    lanes = min(args.lanes or 2, cores)
    for lane in range(lanes):
        for name in data:
            setting.yolo(name, lane)
    race = Race(setting, cells, args.out, args.least_share, args.repeat)
    race.run(lanes)
    if args.latency:
        first = [cell for cell in cells if cell.seed == args.seeds[0]]
        race.results["latency"] = race.results.get("latency", {}) | latency(setting, first, args.seconds)
    race.save()
    print(tables(race.results))


def check(setting: Setting) -> None:
    """Raise a UserError if a data set, a split or the peer is not there, before hours are spent."""
    for name, folder in setting.data.items():
        for split in ("train", *setting.splits):
            if not len(load_dataset(folder, split)):
                raise UserError(f"The split '{split}' of {name} is empty.", where=str(folder))
    done = subprocess.run(
        [setting.peer, "-c", "import ultralytics"], env=setting.environment(), capture_output=True, text=True
    )
    if done.returncode:
        raise UserError(
            f"The peer can't be imported: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}",
            where=setting.peer,
            fix="python -m venv peer && peer/bin/pip install ultralytics==8.4.190, then --peer peer/bin/python",
        )


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
