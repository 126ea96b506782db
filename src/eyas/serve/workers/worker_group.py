"""The workers of one model version: started, started again when they die, more or fewer as wanted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Awaitable, Callable

from eyas.serve.workers.base import Lost, Ready, Worker, WorkerFailed

LOG = logging.getLogger("eyas.serve")


FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds until a dead worker's successor starts; doubled with each death
CALM_SECONDS = 30.0  # a worker that lived this long died for the first time


class WorkerGroup:
    """Keeps as many workers as wanted running. Lives in one event loop.

    Args:
        name: the version's name, the beginning of the workers' names.
        make: returns a new worker, given its name.
        joined: called with each worker that is warm.
        lost: called with the name of each worker that is gone, and why, after which its batch will not be answered.
        release: waits until a worker that is to stop has nothing to do.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[str], Worker],
        joined: Callable[[Worker, Ready], None],
        lost: Callable[[str, Lost], None],
        release: Callable[[str], Awaitable[None]],
    ) -> None:
        self._name = name
        self._make = make
        self._joined = joined
        self._lost = lost
        self._release = release
        self._numbers = itertools.count(1)
        self._seats: list[asyncio.Task[None]] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._warm: dict[str, tuple[Worker, asyncio.Task[None], int]] = {}  # each, its seat, what it held when warm
        self._first: asyncio.Future[None] | None = None  # told when any worker is warm, or the first seat's failed
        self._grace: float | None = None  # set when everything stops

    @property
    def wanted(self) -> int:
        """How many workers are to run."""
        return len(self._seats)

    @property
    def running(self) -> int:
        """How many workers are warm."""
        return len(self._warm)

    def memory(self) -> int:
        """Return the bytes that the workers hold together."""
        return sum(worker.memory() for worker, _, _ in self._warm.values())

    def renew(self, more: int) -> None:
        """Replace the workers that hold `more` bytes beyond what they held when they were warm.

        Each finishes its batch first, and its successor starts meanwhile: nothing is lost.
        """
        for worker, seat, least in self._warm.values():
            if seat in self._seats and worker.memory() > least + more:
                self._seats.remove(seat)
                self._leave(seat)
                self._seats.append(asyncio.create_task(self._keep()))

    async def start(self, num: int) -> None:
        """Start `num` workers, and return when one of them is warm.

        Raises:
            WorkerFailed: the first can't be started; then none runs.
        """
        self._first = first = asyncio.get_running_loop().create_future()
        self._seats.append(asyncio.create_task(self._keep(first)))
        self.resize(num)
        try:
            await first
        except BaseException:
            await self.stop(0.0)
            raise

    def resize(self, num: int) -> None:
        """Have `num` workers from now on; one that is too many finishes its batch first."""
        while len(self._seats) < num:
            self._seats.append(asyncio.create_task(self._keep()))
        while len(self._seats) > num:
            self._leave(self._seats.pop())

    def _leave(self, seat: asyncio.Task[None]) -> None:
        seat.cancel()
        self._leaving.add(seat)
        seat.add_done_callback(self._leaving.discard)

    async def stop(self, grace: float) -> None:
        """Stop all workers; what they run may take `grace` seconds more."""
        self._grace = grace
        seats = [*self._seats, *self._leaving]
        self._seats.clear()
        for seat in seats:
            seat.cancel()
        await asyncio.gather(*seats, return_exceptions=True)

    async def _keep(self, first: asyncio.Future[None] | None = None) -> None:
        """Keep one worker running until cancelled.

        Args:
            first: told how the first start went, after which a failed start ends the seat.
        """
        deaths, loop = 0, asyncio.get_running_loop()
        while True:
            worker, began = self._make(f"{self._name}#{next(self._numbers)}"), loop.time()
            try:
                reason = await self._live(worker)
            except WorkerFailed as error:
                reason = str(error)
                if first is not None and not first.done():
                    first.set_exception(error)
                    return
            deaths = 1 if loop.time() - began > CALM_SECONDS else deaths + 1
            wait = min(FIRST_WAIT * 2.0 ** min(deaths - 1, 30), LONGEST_WAIT)
            LOG.warning("worker %s is gone, the next one starts in %.1f s: %s", worker.name, wait, reason)
            await asyncio.sleep(wait)

    async def _live(self, worker: Worker) -> str:
        """Start a worker, and return why it died when it does; cancelled, it lets the worker finish and stops it."""
        gone: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def lost(why: Lost) -> None:
            self._warm.pop(worker.name, None)
            self._lost(worker.name, why)
            if not gone.done():  # it is cancelled when the worker died while it was being stopped
                gone.set_result(why.reason)

        try:
            ready = await worker.start(lost)
            seat = asyncio.current_task()
            assert seat is not None
            self._warm[worker.name] = worker, seat, ready.memory
            self._joined(worker, ready)
            if self._first is not None and not self._first.done():
                self._first.set_result(None)
            return await gone
        finally:
            await self._dismiss(worker)

    async def _dismiss(self, worker: Worker) -> None:
        """Let a worker finish its batch, if it still lives, and stop it. Cancelled again, it waits for nothing."""
        if worker.name in self._warm:
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(self._release(worker.name), self._grace)
        if self._warm.pop(worker.name, None) is not None:
            self._lost(worker.name, Lost("It was stopped."))
        await worker.stop(self._grace or 0.0)
