"""What a cell of the race runs: processes on one core, whose time, processor time and surroundings are kept."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.race_score import score

from eyas.artifacts import layout
from eyas.data.rewrite.convert import convert
from eyas.errors import UserError

HERE = Path(__file__).parent
EYAS = "eyas"  # the net that is ours; all others are names of the peer's models
SPARE = 600.0  # seconds that a process may take beyond twice its budget
SAMPLE = 5.0  # seconds between two looks at the load
_running: set[int] = set()  # groups of processes


@dataclass(frozen=True)
class Cell:
    """One training: a net, a data set by its name, a seed."""

    net: str
    data: str
    seed: int

    @property
    def key(self) -> str:
        """Return its name in the results."""
        return f"{self.net}/{self.data}/{self.seed}"

    def __str__(self) -> str:
        """Return its name for people."""
        return f"{self.net} on {self.data}, seed {self.seed}"


@dataclass(frozen=True)
class Setting:
    """What is the same for all cells.

    Attributes:
        data: the data sets by name, in any form that Eyas reads.
        peer: the Python of the peer's environment.
        minutes: each training's budget.
        size: the side of the networks' input.
        device: "cpu", where each lane has one core, or "cuda".
        eyas: further options of `eyas train`.
        splits: what is scored.
        work: where runs lie.
    """

    data: dict[str, Path]
    peer: str
    minutes: float
    size: int
    device: str
    eyas: str
    splits: tuple[str, ...]
    work: Path

    def fixed(self) -> dict[str, Any]:
        """Return what must not change while results are added."""
        return {"minutes": self.minutes, "size": self.size, "device": self.device, "eyas": self.eyas}

    def folder(self, cell: Cell) -> Path:
        """Return where a cell's run lies."""
        return self.work / cell.data / f"{cell.net}-{cell.seed}"

    def yolo(self, data: str, lane: int) -> Path:
        """Return the data set in the peer's form, written once: the same files, byte for byte, and the same splits.

        Each lane has its own, for the peer keeps a cache beside the labels.
        """
        folder = self.work / f"yolo-{lane}" / data
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            convert(self.data[data], folder, "yolo")
        return folder / "data.yaml"

    def environment(self) -> dict[str, str]:
        """Return the environment of all processes: one thread on a core, nothing fetched, nothing kept at home."""
        root = HERE.parent
        paths = [str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]
        own = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "YOLO_CONFIG_DIR": str(self.work / "peer-settings"),
            "YOLO_OFFLINE": "true",
            "YOLO_AUTOINSTALL": "false",
        }
        return {**os.environ, **own, **({"OMP_NUM_THREADS": "1"} if self.device == "cpu" else {})}


@dataclass(frozen=True)
class Usage:
    """What a process and its children took: seconds of the wall and of processors, the mean and greatest load."""

    wall: float
    cpu: float
    load: float
    most_load: float


def measured(command: Sequence[object], environment: dict[str, str], limit: float, log: Path) -> Usage:
    """Run a command to its end in the cores of this thread, and return what it took.

    Raises:
        UserError: it failed, or took longer than `limit` seconds; the log's last lines are told.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start, loads, status = time.monotonic(), [os.getloadavg()[0]], 0
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        _running.add(process.pid)
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)  # `wait` would not tell what it alone has used
                if pid:
                    break
                if time.monotonic() - start > limit:
                    raise UserError(f"It was not done after {limit:.0f} s: {shlex.join(map(str, command))}")
                time.sleep(0.1)
                if time.monotonic() - start > SAMPLE * len(loads):
                    loads.append(os.getloadavg()[0])
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            _running.discard(process.pid)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-6:]
        raise UserError(
            f"A process ended with code {process.returncode}: {' / '.join(line.strip() for line in last)}",
            where=str(log),
        )
    wall = time.monotonic() - start
    return Usage(wall, usage.ru_utime + usage.ru_stime, sum(loads) / len(loads), max(loads))


def end_all() -> None:
    """End the processes of all lanes: each leads a group of its own, which a Ctrl-C in the terminal does not reach."""
    for group in tuple(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def peer_command(setting: Setting, verb: str, cell: Cell, lane: int, *rest: object) -> list[object]:
    """Return the command line of the peer's script."""
    data, folder = setting.yolo(cell.data, lane).resolve(), setting.folder(cell).resolve()
    return [setting.peer, HERE / "race_peer.py", verb, data, folder, cell.net, setting.size, *rest]


def train(setting: Setting, cell: Cell, lane: int) -> dict[str, Any]:
    """Train a cell within its minutes, and return what it took and what was done."""
    folder = setting.folder(cell)
    if cell.net == EYAS:
        options: list[object] = [
            "--data", setting.data[cell.data], "--model", "n", "--size", setting.size, "--minutes", setting.minutes,
            "--out", folder, "--trainer.seed", cell.seed, "--trainer.accelerator", setting.device,
        ]  # fmt: skip
        command = [sys.executable, "-m", "eyas", "train", *options, *shlex.split(setting.eyas)]
    else:
        command = peer_command(setting, "train", cell, lane, setting.minutes, cell.seed, setting.device)
    limit = 2 * 60 * setting.minutes + SPARE
    usage = measured(command, setting.environment(), limit, folder.with_suffix(".log"))
    found: dict[str, Any] = {
        "wall": round(usage.wall, 1),
        "cpu": round(usage.cpu, 1),
        "share": round(usage.cpu / usage.wall, 3),
        "load": round(usage.load, 2),
        "most_load": round(usage.most_load, 2),
    }
    if cell.net != EYAS:
        return {**found, **json.loads((folder / "about.json").read_text(encoding="utf-8"))}
    with (folder / layout.METRICS).open(encoding="utf-8", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return {**found, "epochs": int(last["epoch"]), "steps": int(last["step"])}


def scored(setting: Setting, cell: Cell, lane: int, split: str) -> dict[str, Any]:
    """Return the COCO numbers of a trained cell on a split, and what the peer says of itself."""
    folder = setting.folder(cell)
    if cell.net == EYAS:
        rest = (folder, setting.data[cell.data], split, folder / f"{split}.detections.json", setting.device)
        command: list[object] = [sys.executable, "-m", "benchmarks.race_score", *rest]
        found = folder / f"{split}.detections.json"
    else:
        command = peer_command(setting, "detect", cell, lane, split, setting.device)
        found = folder / f"{split}.json"
    measured(command, setting.environment(), SPARE, folder.parent / f"{folder.name}-{split}.log")
    return score(found, setting.data[cell.data], split)
