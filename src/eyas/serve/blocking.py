"""Calls that may take minutes, as to a server that does not answer, beside the event loop and beside its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
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

    threading.Thread(target=call, name="aside", daemon=True).start()
    return await answer
