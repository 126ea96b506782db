"""Between an ingress and Ray Serve: who has taken a request, and what a loss says of those that nobody has taken."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

import numpy as np
import pytest

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Request
from eyas.types import Detections

pytest.importorskip("ray.serve", reason="pip install 'eyas[cluster]'")
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from eyas.cluster import ingress as ingress
from eyas.cluster.engine import NotTakenError, ReplicaLostError

NOTHING = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), ("owl",), 8, 8)
T = TypeVar("T")


class Response:
    """What a deployment's handle gives for a call.

    Attributes:
        taken, answered: what the test decides.
        cancelled: whether the ingress took the request back.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.taken: asyncio.Future[None] = loop.create_future()
        self.answered: asyncio.Future[Answer] = loop.create_future()
        self.cancelled = False

    async def _to_object_ref(self) -> None:
        await self.taken

    def __await__(self) -> Generator[Any, None, Answer]:
        return self.answered.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Detector:
    """A deployment's handle, for one method and model as well."""

    def __init__(self) -> None:
        self.responses: list[Response] = []

    def options(self, **_options: Any) -> Detector:
        return self

    def remote(self, _request: Request) -> Response:
        self.responses.append(Response())
        return self.responses[-1]


def request(name: str) -> Request:
    """Return a request that names its version, as the engine has it."""
    return Request(name, "birds", "2", (b"image",))


def run(coroutine: Coroutine[None, None, T]) -> T:
    """Return what the coroutine returns, within a time that no test needs."""
    return asyncio.run(asyncio.wait_for(coroutine, 120))


async def asked(
    detector: Detector, *names: str, patience: float = 60.0
) -> tuple[list[Response], list[asyncio.Task[Any]]]:
    """Ask for each of the requests, and return when all have been asked for."""
    ask = ingress.asking(detector, patience)
    tasks = [asyncio.create_task(ask(request(name), "birds/2")) for name in names]  # type: ignore[arg-type]
    while len(detector.responses) < len(names):
        await asyncio.sleep(0)
    return detector.responses, tasks


def test_a_loss_takes_back_what_nobody_has_taken_and_leaves_the_others() -> None:
    async def main() -> None:
        (lost, silent, alive), tasks = await asked(Detector(), "lost", "silent", "alive")
        for each in (lost, alive):
            each.taken.set_result(None)
        await asyncio.sleep(0)
        lost.answered.set_exception(RayActorError())
        with pytest.raises(ReplicaLostError):
            await tasks[0]
        with pytest.raises(NotTakenError):
            await tasks[1]
        assert silent.cancelled and not alive.cancelled
        alive.answered.set_result(Answer("alive", ModelKey("birds", "2"), (NOTHING,)))
        assert (await tasks[2]).id == "alive"

    run(main())


def test_two_losses_at_once_take_back_once() -> None:
    async def main() -> None:
        responses, tasks = await asked(Detector(), "a", "b", "silent")
        for each in responses[:2]:
            each.taken.set_result(None)
        await asyncio.sleep(0)
        for each in responses[:2]:
            each.answered.set_exception(RayActorError())
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in found] == [ReplicaLostError, ReplicaLostError, NotTakenError]

    run(main())


def test_what_nobody_takes_is_taken_back_when_patience_ends() -> None:
    async def main() -> None:
        (silent, busy), tasks = await asked(Detector(), "silent", "busy", patience=0.5)
        busy.taken.set_result(None)
        with pytest.raises(NotTakenError):
            await tasks[0]
        assert silent.cancelled and not busy.cancelled and not tasks[1].done()
        tasks[1].cancel()

    run(main())


def test_what_ray_can_not_hand_over_was_not_taken() -> None:
    async def main() -> None:
        (response,), (task,) = await asked(Detector(), "a")
        response.taken.set_exception(RayServeException("no replica"))
        with pytest.raises(NotTakenError):
            await task

    run(main())


@pytest.mark.parametrize("taken", [False, True])
def test_a_request_that_is_given_up_is_cancelled_at_the_replica(taken: bool) -> None:
    async def main() -> None:
        (response,), (task,) = await asked(Detector(), "a")
        if taken:
            response.taken.set_result(None)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert response.cancelled

    run(main())
