"""Processes of the GPU benchmark: children with a time limit, whole trainers and how fast they go, how busy the GPU is.

The standard library alone, so that the benchmark starts on a machine before anything is installed.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
Row = tuple[int, int, float]  # step, epoch, seconds


class PartError(Exception):
    """A part of the benchmark could not be done; the message says why."""


@dataclass(frozen=True)
class Setting:
    """What is trained, on what.

    Attributes:
        model, size, batch: row of the zoo, side in pixels, images a step.
        peer: the peer's model of that class.
        data: the data set's folder.
        device: cuda or cpu.
        seconds: for how long a rate is measured.
        env: environment of Eyas's processes.
        peer_env: that of the peer's.
        peer_python: the peer's interpreter.
    """

    model: str
    size: int
    batch: int
    peer: str
    data: Path
    device: str
    seconds: float
    env: Mapping[str, str] = field(repr=False)
    peer_env: Mapping[str, str] = field(repr=False)
    peer_python: str = sys.executable

    @property
    def name(self) -> str:
        """Return its short name."""
        return f"{self.model} at {self.size} px, batch {self.batch}"


def child(script: str, *arguments: object) -> list[str]:
    """Return the command of a script that lies beside this one."""
    return [sys.executable, str(HERE / script), *map(str, arguments)]


def train_command(setting: Setting, folder: Path, options: Mapping[str, object]) -> list[str]:
    """Return `eyas train` with the setting's and more options, without what is not training."""
    fixed: dict[str, object] = {
        "--data": setting.data, "--model": setting.model, "--size": setting.size, "--batch": setting.batch,
        "--out": folder, "--trainer.accelerator": setting.device, "--trainer.preflight": "false",
        "--trainer.sheets": 0,
    }  # fmt: skip
    words = [str(word) for pair in {**fixed, **options}.items() for word in pair]
    return [sys.executable, "-m", "eyas", "train", *words]


@contextlib.contextmanager
def started(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a group of its own, its output in `log`; the group is killed at the end."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process's group, and wait for the process."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def tail(log: Path, characters: int = 600) -> str:
    """Return the end of a log in one line."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return " | ".join(line.strip() for line in text[-characters:].splitlines() if line.strip()) or "it said nothing"


def finish(command: Sequence[str], env: Mapping[str, str], seconds: float, log: Path) -> str:
    """Run a process to its end and return what it wrote.

    Raises:
        PartError: it failed, or took longer.
    """
    with started(command, env, log) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise PartError(f"no end after {seconds:.0f} s: {tail(log)}") from None
    if code:
        raise PartError(f"exit code {code}: {tail(log)}")
    return log.read_text(encoding="utf-8", errors="replace")


def json_lines(text: str) -> list[dict[str, Any]]:
    """Return the lines of a child's output that are JSON objects."""
    found = []
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            value = json.loads(line) if line.startswith("{") else None
            found += [value] if isinstance(value, dict) else []
    return found


def read_steps(path: Path) -> list[Row]:
    """Return the whole rows of a `steps.csv`."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    rows = csv.DictReader(text[: text.rfind("\n") + 1].splitlines())
    return [(int(row["step"]), int(row["epoch"]), float(row["seconds"])) for row in rows]


def steady(rows: Sequence[Row]) -> list[Row]:
    """Return the rows after the first epoch or, where that is long, after a hundred steps."""
    return [row for row in rows if row[1] >= 1 or row[0] >= 100]


class Gpu:
    """How busy the GPU is, by nvidia-smi, several times a second while it is entered."""

    def __init__(self, period_ms: int = 200) -> None:
        self.samples: list[tuple[float, float, float]] = []  # time.monotonic(), per cent, MiB
        self._period = period_ms

    def __enter__(self) -> Gpu:
        """Start to watch, where there is an nvidia-smi."""
        query = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        try:
            self._process = subprocess.Popen(
                [*query, "-i", "0", "-lms", str(self._period)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                text=True,
            )  # fmt: skip
        except FileNotFoundError:
            self._process = None
            return self
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        """Keep each line."""
        assert self._process is not None and self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(ValueError):
                busy, used = map(float, line.split(","))
                self.samples.append((time.monotonic(), busy, used))

    def between(self, start: float, end: float) -> dict[str, float]:
        """Return the mean per cent and the most MiB between two times; {} where nothing was seen."""
        seen = [(busy, used) for when, busy, used in self.samples if start <= when <= end]
        if not seen:
            return {}
        return {"gpu_busy_percent": statistics.fmean(b for b, _ in seen), "gpu_mib": max(used for _, used in seen)}


def rate(command: Sequence[str], env: Mapping[str, str], steps: Path, setting: Setting, limit: float) -> dict[str, Any]:
    """Run a trainer until it went steadily for `setting.seconds`, kill it, and return how fast it went.

    Args:
        command: the trainer; it writes rows of step, epoch and seconds.
        env: its environment.
        steps: where it writes them.
        setting: what it trains.
        limit: seconds until it must have done so; what it came to until then counts, if that is something.

    Returns:
        images_per_second over all that a trainer does between steps, evaluation left out; within_epochs without the
        epochs' ends; start_seconds until the first step; how busy the GPU was.

    Raises:
        PartError: it ended, or did not come to a steady rate.
    """
    begin, first_step, steady_at, rows = time.monotonic(), 0.0, 0.0, list[Row]()
    log = steps.parent.with_suffix(".log")
    with Gpu() as gpu, started(command, env, log) as process:
        while time.monotonic() - begin < limit:
            time.sleep(0.1)
            rows = read_steps(steps)
            now = time.monotonic()
            first_step = first_step or (now if rows else 0.0)
            window = steady(rows)
            steady_at = steady_at or (now if window else 0.0)
            if len(window) > 1 and window[-1][2] - window[0][2] >= setting.seconds:
                break
            if process.poll() is not None:
                raise PartError(f"ended with code {process.returncode}: {tail(log)}")
    window = steady(rows)
    if len(window) < 2:
        window = rows[1:]
    if len(window) < 2 or window[-1][2] <= window[0][2]:
        raise PartError(f"only {rows[-1][0] if rows else 0} steps in {limit:.0f} s: {tail(log)}")
    (start, epoch, began), (end, last, ended) = window[0], window[-1]
    pairs = [(b[0] - a[0], b[2] - a[2]) for a, b in itertools.pairwise(window) if a[1] == b[1]]
    within = [steps / seconds for steps, seconds in pairs if seconds > 0]
    return {
        "images_per_second": setting.batch * (end - start) / (ended - began),
        "within_epochs": setting.batch * statistics.median(within) if within else None,
        "steps": end - start, "epochs": last - epoch, "seconds": ended - began, "start_seconds": first_step - begin,
        **gpu.between(steady_at or first_step, time.monotonic()),
    }  # fmt: skip


def eyas_rate(setting: Setting, options: Mapping[str, object], limit: float) -> dict[str, Any]:
    """Return how fast `eyas train` goes with these options."""
    with tempfile.TemporaryDirectory(prefix="eyas-") as name:
        folder = Path(name) / "run"
        long = {"--trainer.epochs": 100_000, "--trainer.val_every": 100_000, "--trainer.save_minutes": 600}
        command = train_command(setting, folder, {**long, **options})
        return rate(command, setting.env, folder / "steps.csv", setting, limit)


def peer_rate(setting: Setting, yolo: Path, cache: str, limit: float) -> dict[str, Any]:
    """Return how fast the peer trains its model on the same images, in an environment of its own."""
    with tempfile.TemporaryDirectory(prefix="peer-") as name:
        folder = Path(name) / "run"
        folder.mkdir()
        options = (yolo, folder, setting.peer, setting.size, setting.batch, setting.device, cache)
        command = [setting.peer_python, str(HERE / "training_gpu_peer.py"), *map(str, options)]
        env = {**setting.peer_env, "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": name}
        found = rate(command, env, folder / "steps.csv", setting, limit)
        return {**found, **json.loads((folder / "about.json").read_text(encoding="utf-8"))}
