"""Kills training runs with SIGKILL at random moments, resumes them, and compares what they come to with whole runs.

    python benchmarks/kill_resume.py [--kinds eager padded graphed average minutes] [--kills 10] [--seed 0]

For each kind a run is made without a stop, in which is measured how long each step, the start and the end of each epoch
take. A second one is killed at moments drawn from a seed: while it starts, within a step, while a state is being saved,
and at an epoch's end (last step, evaluation, tables, weights); each time `eyas train --resume` goes on with it. A state
is saved after every step. Then weights (SHA-256), the columns of `steps.csv` and `metrics.csv` that are no times, the
contact sheets and the names of all files must be the same.

A run that was given minutes never does the same twice: the clock decides. So there the killed run's `plannings.csv` is
laid into a new folder and replayed without a stop; and all that stood in it at a kill must stand in it at the end.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from eyas.artifacts import layout
from eyas.data.shapes import make_shapes

TRAIN = (sys.executable, "-m", "eyas", "train")
OPTIONS = (
    "--recipe", "quick", "--size", "96", "--batch", "6", "--augment.mosaic", "0.5", "--augment.mixup", "0.3",
    "--data.workers", "1", "--trainer.sheets", "2", "--trainer.preflight", "false", "--trainer.save_minutes", "1e-9",
)  # fmt: skip
KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "eager": ("--trainer.step", "eager"),
        "padded": ("--trainer.step", "padded"),
        "graphed": ("--trainer.step", "graphed"),
        "average": ("--trainer.average_best", "2"),
        "minutes": (),
    }
)
MOMENTS = ("step", "epoch's end", "saving", "step", "start")  # in turn
BEGUN = (layout.CONFIG, layout.RECIPE, layout.ORIGIN, layout.IMAGES, layout.PLANNINGS)  # what a run begins with


@dataclass(frozen=True)
class Moment:
    """When a run is killed.

    Attributes:
        kind: one of `MOMENTS`.
        step: after the state of this step was saved.
        part: of the time from there to the next state; of the time that the start takes, where a run is resumed beyond.
    """

    kind: str
    step: int
    part: float


class Watched:
    """A training process, and the states that it saves.

    Args:
        folder: the run's folder.
        command: its command line.
    """

    def __init__(self, folder: Path, command: list[str]) -> None:
        self.state = folder / layout.CHECKPOINT
        self.step = saved_step(folder)
        self.begun = self.step
        self._stamp = self._look()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as this
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._log)

    def _look(self) -> int:
        return self.state.stat().st_mtime_ns if self.state.exists() else 0

    def running(self) -> bool:
        """Wait a little and return whether the process goes on; counts the states that it saves."""
        time.sleep(0.005)
        stamp = self._look()
        self.step += stamp != self._stamp  # one a step
        self._stamp = stamp
        return self.process.poll() is None

    def saving(self) -> bool:
        """Return whether a state is being written."""
        return any(self.state.parent.glob(".last.ckpt.*.tmp"))

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        if self.process.wait():
            self._log.seek(0)
            sys.exit(f"{' '.join(map(str, self.process.args))}\n{self._log.read().decode()}")  # type: ignore[arg-type]

    def kill(self) -> bool:
        """Kill it and return whether it was still running."""
        self.process.send_signal(signal.SIGKILL)
        return self.process.wait() == -signal.SIGKILL


def saved_step(folder: Path) -> int:
    """Return the step of a run's saved state, 0 if it has none."""
    path = folder / layout.CHECKPOINT
    return int(torch.load(path, weights_only=True, mmap=True)["global_step"]) if path.is_file() else 0


def command_of(folder: Path, options: list[str]) -> list[str]:
    """Return the command that begins the run, or goes on with it if it has begun."""
    if (folder / layout.RECIPE).is_file():
        return [*TRAIN, "--resume", str(folder)]
    shutil.rmtree(folder, ignore_errors=True)
    return [*TRAIN, "--out", str(folder), *options]


def run_whole(folder: Path, options: list[str]) -> list[float]:
    """Train without a stop and return the seconds that end with each state: of the start, then of each step."""
    watched, seconds, at, step = Watched(folder, command_of(folder, options)), [], time.monotonic(), 0
    while watched.running():
        if watched.step != step:
            step, now = watched.step, time.monotonic()
            seconds.append(now - at)
            at = now
    watched.end()
    return seconds


def draw_moments(seconds: list[float], an_epoch: int, kills: int, draw: random.Random) -> list[Moment]:
    """Return the moments of the kills, no two after the same step."""
    ends = [step for step in range(1, len(seconds)) if (step + 1) % an_epoch == 0]
    others = [step for step in range(1, len(seconds)) if step not in ends]
    draw.shuffle(ends)
    draw.shuffle(others)
    kinds = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    made = []
    for kind in kinds:
        steps = ends if kind == "epoch's end" else others
        if steps:
            made.append(Moment(kind, steps.pop(), draw.random()))
    return sorted(made, key=lambda moment: moment.step)


def strike(watched: Watched, moment: Moment, seconds: list[float]) -> str:
    """Kill a run at a moment and return of which kind it was at last; "" if the run had ended before."""
    if moment.kind == "start" or moment.step <= watched.begun:  # a state later than the one hoped for was saved
        time.sleep(moment.part * seconds[0])
        return "start" if watched.kill() else ""
    while watched.step < moment.step:
        if not watched.running():
            return ""
    if moment.kind == "saving":
        while not watched.saving():
            if not watched.running():
                return ""
        time.sleep(moment.part * 0.02)
    else:
        time.sleep(moment.part * seconds[moment.step])
    return moment.kind if watched.kill() else ""


def run_killed(
    folder: Path, options: list[str], moments: list[Moment], seconds: list[float]
) -> tuple[Counter[str], bool]:
    """Train, killed at each of the moments; return how often of each kind, and whether all plannings held."""
    kills: Counter[str] = Counter()
    plannings: list[str] = []
    for moment in moments:
        watched = Watched(folder, command_of(folder, options))
        if kind := strike(watched, moment, seconds):
            kills[kind] += 1
        else:
            watched.end()
            break
        plannings.append(text_of(folder / layout.PLANNINGS).rpartition("\n")[0])
        print(f"  killed: {kind:12} the state of step {saved_step(folder)} is there", flush=True)
    watched = Watched(folder, command_of(folder, options))
    watched.end()
    return kills, all(text_of(folder / layout.PLANNINGS).startswith(text) for text in plannings)


def text_of(path: Path) -> str:
    """Return a file's text, "" if there is none."""
    return path.read_text() if path.is_file() else ""


def rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table without the times."""
    with path.open(newline="") as file:
        return [{name: value for name, value in row.items() if "seconds" not in name} for row in csv.DictReader(file)]


def hashes(folder: Path, *patterns: str) -> dict[str, str]:
    """Return the SHA-256 of a run's files, by name."""
    found = (path for pattern in patterns for path in sorted(folder.glob(pattern)))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def names(folder: Path) -> set[str]:
    """Return the names of all files of a run."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def compare(one: Path, other: Path) -> dict[str, bool]:
    """Return which parts of two runs are the same."""
    return {
        "weights": hashes(one, "*.safetensors") == hashes(other, "*.safetensors"),
        "losses and AP": all(rows(one / name) == rows(other / name) for name in (layout.STEPS, layout.METRICS)),
        "sheets": hashes(one, f"{layout.SHEETS}/*") == hashes(other, f"{layout.SHEETS}/*"),
        "files": names(one) == names(other),
    }


def try_kind(kind: str, root: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Run a kind whole and killed, and return how they compare."""
    whole, killed = root / f"{kind}-whole", root / f"{kind}-killed"
    options = ["--data", str(args.data), *OPTIONS, *KINDS[kind]]
    options += ["--minutes", str(args.minutes)] if kind == "minutes" else ["--epochs", str(args.epochs)]
    seconds = run_whole(whole, options)
    an_epoch = max(1, int(rows(whole / layout.METRICS)[0]["step"]))
    if kind == "minutes":
        seconds = seconds[: int(0.7 * len(seconds))]  # the killed run may be slower, and then has fewer steps
    moments = draw_moments(seconds, an_epoch, args.kills, random.Random(f"{args.seed} {kind}"))
    kills, held = run_killed(killed, options, moments, seconds)
    if kind == "minutes":
        shutil.rmtree(whole)
        whole.mkdir()
        for name in BEGUN:
            shutil.copy(killed / name, whole / name)
        run_whole(whole, options)
        held = held and text_of(whole / layout.PLANNINGS) == text_of(killed / layout.PLANNINGS)
    same = {**compare(whole, killed), "plannings": held}
    return {"steps": int(rows(killed / layout.METRICS)[-1]["step"]), "kills": dict(kills), "same": same}


def main() -> None:
    """Try all kinds that run here, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = [kind for kind in KINDS if kind != "graphed" or torch.cuda.is_available()]
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=here)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=1.5, help="of the kind of run that is given a time")
    parser.add_argument("--data", type=Path, help="a data set; a small one of shapes is made if none is given")
    parser.add_argument("--work", type=Path, help="a folder that keeps the runs; a temporary one if none is given")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kill_resume.json"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = args.work or Path(temporary)
        if args.data is None:
            args.data = root / "shapes"
            make_shapes(args.data, train=48, val=12, size=128)
        for kind in args.kinds:
            print(kind, flush=True)
            results[kind] = try_kind(kind, root, args)
            print(f"  {json.dumps(results[kind])}", flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print("\n| kind | steps | killed | the same | differs |\n|---|---:|---|---|---|")
    for kind, result in results.items():
        kills = ", ".join(f"{count} x {name}" for name, count in sorted(result["kills"].items()))
        same, differs = (
            ", ".join(name for name, yes in result["same"].items() if yes is want) for want in (True, False)
        )
        print(f"| {kind} | {result['steps']} | {kills} | {same} | {differs or '-'} |")
    # A run that ended before it was killed shows nothing.
    sys.exit(any(not result["kills"] or not all(result["same"].values()) for result in results.values()))


if __name__ == "__main__":
    main()
