"""The parent's end of a measuring process; see `eyas.benchmark.worker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from eyas.benchmark.resource_usage import Round, Streamed
from eyas.benchmark.stage_timer import Cost
from eyas.errors import UserError

PATIENCE = 20.0  # seconds that a process has to end by itself


class Process:
    """One model in a process of its own, measured on demand.

    Args:
        path: a run's or a bundle's folder.
        images: files to measure on.
        threads: CPU threads; None lets the engine choose.
        batch: how many images a call takes.
        device: as for `eyas.load`.
        size: as for `eyas.load`.

    Raises:
        UserError: the model can't be opened.
    """

    def __init__(
        self,
        path: Path,
        images: Sequence[Path],
        *,
        threads: int | None = None,
        batch: int = 1,
        device: str = "auto",
        size: int | None = None,
    ) -> None:
        # Waiting threads must not take the others' cores.
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)  # PyTorch's
        self._path = path
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eyas.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
            encoding="utf-8",
        )
        try:
            self.about = self._ask(
                do="open",
                path=str(path),
                threads=threads,
                batch=batch,
                device=device,
                size=size,
                images=[str(one) for one in images],
            )
        except BaseException:
            self.close()
            raise
        self.memory: int | None = None

    def round(self, seconds: float) -> Round:
        """Return the calls that fill `seconds`, one at least."""
        answer = self._ask(do="round", seconds=seconds)
        self.memory = answer["memory"]
        calls = tuple(tuple(call) for call in answer["calls"])
        return Round(calls, answer["images"], answer["found"], Cost(**answer["cost"]))

    def stream(self, frames: int) -> Streamed:
        """Return what streaming so many frames cost."""
        answer = self._ask(do="stream", frames=frames)
        return Streamed(answer["frames"], Cost(**answer["cost"]))

    def _ask(self, **question: Any) -> dict[str, Any]:
        """Return the answer to a question."""
        assert self._process.stdin is not None and self._process.stdout is not None
        line = ""
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not line:
            raise UserError(
                f"The process that measured {self._path} ended{self._last_words()}.",
                where=str(self._path),
                fix="check that 'eyas detect' works with it; it may have run out of memory",
            )
        answer: dict[str, Any] = json.loads(line)
        if answer.get("missing"):
            raise ModuleNotFoundError(answer["error"]["problem"], name=answer["missing"])
        if "error" in answer:
            raise UserError(**answer["error"])
        return answer

    def _last_words(self) -> str:
        """Return how the process ended and the last line that it wrote to its standard error."""
        code = self._process.wait(PATIENCE)
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return f" (code {code})" + (f": {lines[-1].rstrip('.')}" if lines else "")

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()

    def __enter__(self) -> Process:
        """Return the process itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self.close()
