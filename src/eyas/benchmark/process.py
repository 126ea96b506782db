"""The parent's end of a measuring process; see `eyas.benchmark.worker`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eyas.benchmark.resource_usage import Round, Streamed
from eyas.benchmark.stage_timer import Cost
from eyas.child_process import Child, Ended
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
        environment = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)  # PyTorch's
        self._path = path
        self._child = Child("eyas.benchmark.worker", environment=environment)
        job = {"path": str(path), "threads": threads, "batch": batch, "device": device, "size": size}
        try:
            self.about = self._ask(do="open", **job, images=[str(one) for one in images])
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
        self._child.send(question)
        try:
            answer: dict[str, Any] = self._child.receive()
        except Ended as end:
            raise UserError(
                f"The process that measured {self._path} ended ({end}).",
                where=str(self._path),
                fix="check that 'eyas detect' works with it; it may have run out of memory",
            ) from None
        return answer

    def close(self) -> None:
        """End the process."""
        self._child.close(PATIENCE)

    def __enter__(self) -> Process:
        """Return the process itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self.close()
