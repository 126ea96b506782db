"""A worker on a thread of this process: for embedding a server and for tests. It contains no crash and no leak."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from eyas.serve.workers.base import Broken, Done, Lost, Outcome, Ready, Task, WorkerFailed, WorkerSpec, too_slow
from eyas.serve.workers.pipeline import BatchFailed, open_pipeline

Job = tuple[Sequence[Task], Done]


class ThreadWorker:
    """Runs batches on a thread; see `Worker`. A batch that hangs can't be killed here, only given up.

    Args:
        name: its name.
        spec: what it serves.
    """

    def __init__(self, name: str, spec: WorkerSpec) -> None:
        self.name = name
        self._spec = spec
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[Ready] = self._loop.create_future()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._lost: Callable[[Lost], None] | None = None
        self._limit: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def start(self, lost: Callable[[Lost], None]) -> Ready:
        """Open the bundle on the thread and warm up; see `Worker.start`."""
        self._thread.start()
        try:
            ready = await asyncio.wait_for(asyncio.shield(self._ready), self._spec.start_seconds)
        except TimeoutError:
            self._jobs.put(None)
            raise WorkerFailed(f"It was not ready within {self._spec.start_seconds:g} s.") from None
        self._lost = lost
        return ready

    def submit(self, tasks: Sequence[Task], done: Done) -> None:
        """Run a batch on the thread; see `Worker.submit`."""
        self._idle.clear()
        self._limit = self._loop.call_later(self._spec.batch_seconds, self._give_up)
        self._jobs.put((tasks, done))

    def _give_up(self) -> None:
        """Count the worker as lost: its batch takes too long."""
        lost, self._lost = self._lost, None
        self._jobs.put(None)  # should the batch ever end, the thread ends too
        self._idle.set()
        if lost is not None:
            lost(too_slow(self._spec.batch_seconds))

    def memory(self) -> int:
        """Return 0: what one thread holds is not known."""
        return 0

    async def stop(self, grace: float) -> None:
        """End the thread after what it runs; see `Worker.stop`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace)
        self._lost = None
        if self._limit is not None:
            self._limit.cancel()
        self._jobs.put(None)

    def _finish(self, done: Done, outcome: Outcome) -> None:
        if self._limit is not None:
            self._limit.cancel()
        self._idle.set()
        if self._lost is not None:  # else it was given up, or stopped
            done(outcome)

    def _started(self, result: Ready | WorkerFailed) -> None:
        if self._ready.done():
            return
        if isinstance(result, Ready):
            self._ready.set_result(result)
        else:
            self._ready.set_exception(result)

    def _work(self) -> None:
        """Open, then run what comes, until None comes; on the thread."""
        try:
            pipeline, engine, latencies = open_pipeline(self._spec)
        except WorkerFailed as error:
            self._call(self._started, error)
            return
        self._call(self._started, Ready(engine, tuple(latencies), 0))
        while (job := self._jobs.get()) is not None:
            tasks, done = job
            outcome: Outcome
            try:
                outcome = pipeline.run(tasks)
            except BatchFailed as error:
                outcome = Broken(str(error))
            self._call(self._finish, done, outcome)
        pipeline.close()

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *arguments)
