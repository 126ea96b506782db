"""The time an image takes in each compiled net of the race: INT8 in OpenVINO, one process each, by turns on one core.

Eyas's net is compiled by `eyas compile` and measured as `eyas bench` measures; the peer's is exported, calibrated on
the same data set, and called by its own package (`race_peer.py time`). Both decode JPEG bytes that lie in memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Protocol

from benchmarks.race_runs import EYAS, SPARE, Cell, Setting, measured, peer_command

from eyas.benchmark.process import Process
from eyas.benchmark.resource_usage import STAGES
from eyas.data.formats import load_dataset
from eyas.errors import UserError

ROUND_SECONDS = 0.5
IMAGES = 32  # at most, of the first scored split
Call = tuple[float, float, float]  # milliseconds: decoding, decoded image to boxes, of which the engine


class Timed(Protocol):
    """A process that calls one net on demand."""

    def calls(self, seconds: float) -> list[Call]:
        """Return the calls that fill `seconds`."""


class Ours:
    """A bundle of Eyas, as `eyas bench` measures it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def calls(self, seconds: float) -> list[Call]:
        """Return the calls that fill `seconds`."""
        decode, engine = STAGES.index("decode"), STAGES.index("inference")
        done = self._process.round(seconds).calls
        return [(call[decode], sum(call) - call[decode], call[engine]) for call in done]


class Theirs:
    """The peer's export in a process of its environment.

    Args:
        command: of `race_peer.py time`.
        environment: of the process.
        log: where its messages go.
    """

    def __init__(self, command: Sequence[object], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as messages:
            self._process = subprocess.Popen(
                [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=messages,
                env=environment, encoding="utf-8",
            )  # fmt: skip

    def calls(self, seconds: float) -> list[Call]:
        """Return the calls that fill `seconds`."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise UserError("The peer's process ended.", where=str(self._log))
        return [(decode, rest, engine) for decode, rest, engine in json.loads(line)]

    def __enter__(self) -> Theirs:
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the process."""
        self._process.communicate()


def latency(setting: Setting, cells: Sequence[Cell], seconds: float) -> dict[str, Any]:
    """Return what each of these trained cells takes, by its name, or why it could not be measured.

    Args:
        setting: the race's.
        cells: trained ones; those of one data set are measured by turns.
        seconds: how long each is measured.
    """
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        names = dict.fromkeys(cell.data for cell in cells)
        return {
            k: v for name in names for k, v in of_one(setting, [c for c in cells if c.data == name], seconds).items()
        }
    finally:
        os.sched_setaffinity(0, cores)


def of_one(setting: Setting, cells: Sequence[Cell], seconds: float) -> dict[str, Any]:
    """Measure the cells of one data set."""
    found: dict[str, Any] = {}
    images = images_of(setting, cells[0].data)
    with ExitStack() as stack:
        timed: dict[str, Timed] = {}
        for cell in cells:
            try:
                timed[cell.key] = opened(setting, cell, images, stack)
                timed[cell.key].calls(ROUND_SECONDS)  # the first calls fill buffers
            except UserError as error:
                timed.pop(cell.key, None)
                found[cell.key] = {"failed": str(error)}
                print(f"latency of {cell}: {error}", flush=True)
        rounds = max(5, round(seconds / ROUND_SECONDS))
        calls: dict[str, list[Call]] = {key: [] for key in timed}
        for number in range(rounds):
            keys = list(timed)
            for key in keys[number % len(keys) :] + keys[: number % len(keys)]:  # nobody always comes first
                calls[key] += timed[key].calls(ROUND_SECONDS)
    for key, own in calls.items():
        found[key] = {
            "jpeg_ms": round(median(decode + rest for decode, rest, _ in own), 3),
            "decoded_ms": round(median(rest for _, rest, _ in own), 3),
            "engine_ms": round(median(engine for _, _, engine in own), 3),
            "calls": len(own),
            "rounds": rounds,
        }
    return found


def images_of(setting: Setting, data: str) -> list[Path]:
    """Return some images of the split that is scored, spread over it."""
    index = load_dataset(setting.data[data], setting.splits[0])
    return [index.path(i) for i in range(0, len(index), -(-len(index) // IMAGES))]


def opened(setting: Setting, cell: Cell, images: Sequence[Path], stack: ExitStack) -> Timed:
    """Compile a cell's net, unless it was, and return a process that calls it.

    Raises:
        UserError: it can't be compiled.
    """
    folder, environment = setting.folder(cell), setting.environment()
    log = folder.parent / f"{folder.name}-int8.log"
    if cell.net != EYAS:
        if not (folder / "int8.json").is_file():
            measured(peer_command(setting, "export", cell, 0), environment, SPARE, log)
        command = [*peer_command(setting, "time", cell, 0), *images]
        return stack.enter_context(Theirs(command, environment, folder.parent / f"{folder.name}-time.log"))
    bundle = folder / "bundle-int8"
    if not bundle.is_dir():
        # Its accuracy is told by compiling; a race of a minute must not fail for it.
        command = [
            sys.executable, "-m", "eyas", "compile", folder, "--target", "openvino-int8",
            "--max-drop", "100", "--out", bundle,
        ]  # fmt: skip
        measured(command, environment, SPARE, log)
    return Ours(stack.enter_context(Process(bundle, images, threads=1)))
