"""Where what a request brought is read, when that takes longer than the event loop may be held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from eyas.serve.errors import ServeError

P = ParamSpec("P")
T = TypeVar("T")
AT_ONCE = (
    64 * 2**10
)  # bytes that are read at once: at most some 10 ms, and for honest ones much less than a thread takes
WAITING = 64


@dataclass
class Desk:
    """One thread that reads large bodies one after the other; a queue that grows too long is refused.

    Attributes:
        most: how many may wait.
    """

    most: int = WAITING
    _waiting: int = field(default=0, init=False)
    _thread: ThreadPoolExecutor = field(init=False)

    def __post_init__(self) -> None:
        """Have a thread, which starts with the first work."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="desk")

    async def read(self, size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the function returns, called beside the event loop where `size` bytes are too many for it.

        Raises:
            ServeError: too many wait already.
        """
        if size <= AT_ONCE:
            return function(*args, **kwargs)
        if self._waiting >= self.most:
            raise ServeError(
                "overloaded", f"{self.most} large requests are already waiting to be read.", retry_after=1.0
            )
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))
        finally:
            self._waiting -= 1
