"""Work beside the event loop: calls that may take minutes, and bodies that take longer to read than may be waited."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from eyas.serve.errors import ServeError

P = ParamSpec("P")
T = TypeVar("T")
# Bytes that are read at once: at most some 10 ms, and for honest ones much less than a thread takes.
AT_ONCE = 64 * 2**10
WAITING = 64  # large bodies that may wait for the thread


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the function returns, called on a thread of its own.

    A program that ends waits for the threads of `asyncio.to_thread`, whatever they do; it does not wait for this one.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def tell(outcome: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(lambda: None if answer.done() else outcome())

    def call() -> None:
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            tell(partial(answer.set_exception, error))
        else:
            tell(partial(answer.set_result, result))

    threading.Thread(target=call, name="in_thread", daemon=True).start()
    return await answer


class Desk:
    """One thread that reads large bodies one after the other; a queue that grows too long is refused."""

    def __init__(self) -> None:
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="desk")

    async def read(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, called beside the event loop where `size` bytes are too many for it.

        Raises:
            ServeError: too many wait already.
        """
        if size <= AT_ONCE:
            return function(*args, **kwargs)
        if self._waiting >= WAITING:
            raise ServeError("overloaded", f"{WAITING} large requests wait to be read.", retry_after=1.0)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        finally:
            self._waiting -= 1
