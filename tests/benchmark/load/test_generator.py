from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.benchmark.load.stub import answer, fine, stub_server

from eyas.benchmark.load.generator import TIMED_OUT, Played, RequestSample, closed_loop, open_loop
from eyas.benchmark.load.http import Target
from eyas.benchmark.load.sweep import SweepPlan, bench_serve, find_capacity
from eyas.errors import UserError


def test_the_open_loop_sends_on_however_slow_the_answers_are() -> None:
    """Answers come only when all requests are there: a generator that waits for one would wait for ever."""
    times = [0.001 * number for number in range(50)]
    numbers: list[int] = []
    everybody = asyncio.Event()

    async def ask(number: int, _seconds: float) -> int:
        numbers.append(number)
        if len(numbers) == len(times):
            everybody.set()
        await everybody.wait()
        return 200

    played = asyncio.run(open_loop(ask, times, 0.05))
    assert numbers == list(range(50))
    samples = sorted(played.samples, key=lambda sample: sample.intended)
    assert [sample.intended for sample in samples] == times
    assert all(sample.intended <= sample.sent <= sample.ended for sample in played.samples)
    assert samples[0].ended >= times[-1]  # the first one's waiting is counted in full


def test_what_the_generator_sends_late_counts_from_when_it_was_due() -> None:
    async def ask(number: int, _seconds: float) -> int:
        if number == 0:
            loop = asyncio.get_running_loop()
            begin = loop.time()
            while loop.time() < begin + 0.03:  # the generator's own machine stands still
                pass
        return 200

    played = asyncio.run(open_loop(ask, [0.0, 0.001], 0.01))
    late = max(played.samples, key=lambda sample: sample.intended)
    assert late.intended == 0.001
    assert late.sent - late.intended >= 0.02


def test_each_request_ends_once_with_its_status() -> None:
    async def ask(number: int, _seconds: float) -> int:
        if number % 3 == 2:
            raise TimeoutError
        return 200 if number % 3 else 429

    played = asyncio.run(open_loop(ask, [0.0] * 30, 0.01))
    assert Counter(sample.status for sample in played.samples) == {200: 10, 429: 10, TIMED_OUT: 10}
    assert Counter(sample.served for sample in played.samples) == {True: 10, False: 20}


def test_the_closed_loop_never_has_more_under_way_than_clients() -> None:
    under_way = 0
    most = []

    async def ask(_number: int, _seconds: float) -> int:
        nonlocal under_way
        under_way += 1
        most.append(under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return 200

    played = asyncio.run(closed_loop(ask, 3, 0.02))
    assert max(most) == 3
    assert len(played.samples) == len(most)
    assert all(sample.intended == sample.sent for sample in played.samples)


def test_capacity_is_where_more_clients_give_nothing_more() -> None:
    """A server that works on four at once, each a fixed time: more than four clients only wait."""

    async def play() -> tuple[float, int]:
        places = asyncio.Semaphore(4)

        async def ask(_number: int, _seconds: float) -> int:
            async with places:
                await asyncio.sleep(0.01)
            return 200

        return await find_capacity(ask, 0.15, 5.0)

    rate, clients = asyncio.run(play())
    assert clients >= 4
    assert 0 < rate <= 400.0


def test_refused_requests_are_no_capacity() -> None:
    async def ask(_number: int, _seconds: float) -> int:
        return 429

    assert asyncio.run(find_capacity(ask, 0.02, 1.0))[0] == 0.0


def test_a_server_is_measured_from_end_to_end() -> None:
    async def every_other(_body: bytes) -> bytes:
        return answer(200 if len(stubs[0].requests) % 2 else 429)

    stubs = []

    async def play() -> None:
        async with stub_server(every_other) as stub:
            stubs.append(stub)
            done: list[str] = []
            plan = SweepPlan(goal=5.0, loads=(0.5, 2.0), seconds=0.5, capacity=100.0, arrivals="bursts")
            report = await bench_serve(
                Target(stub.url, [b"x"]), plan, progress=lambda now, total, what: done.append(f"{now}/{total} {what}")
            )
            assert done == ["0/3 capacity", "1/3 50%", "2/3 200%"]
            assert (report.server, report.capacity, report.clients, report.goal) == (stub.url, 100.0, 0, 5000.0)
            assert [step.load for step in report.steps] == [0.5, 2.0]
            sent = sum(step.requests for step in report.steps)
            assert sent + 1 == len(stub.requests)  # one to see that somebody is there
            for step in report.steps:
                assert sum(step.codes.values()) == step.requests
                assert set(step.codes) <= {"200", "429"}
                assert step.goodput == pytest.approx(step.codes.get("200", 0) / step.requests)

    asyncio.run(play())


@pytest.mark.parametrize(("status", "word"), [(401, "key"), (404, "path"), (500, "500")])
def test_a_server_that_refuses_is_told_of_at_once(status: int, word: str) -> None:
    async def refuse(_body: bytes) -> bytes:
        return answer(status)

    async def play() -> None:
        async with stub_server(refuse) as stub:
            await bench_serve(Target(stub.url, [b"x"]), SweepPlan(seconds=0.1))

    with pytest.raises(UserError, match=word):
        asyncio.run(play())


def test_no_server_is_told_of() -> None:
    async def play() -> None:
        async with stub_server(fine) as stub:
            url = stub.url
        await bench_serve(Target(url, [b"x"]), SweepPlan(seconds=0.1))

    with pytest.raises(UserError, match="no server"):
        asyncio.run(play())


@pytest.mark.parametrize(
    "field", [{"goal": 0.0}, {"seconds": -1.0}, {"capacity": 0.0}, {"loads": ()}, {"loads": (0.0,)}]
)
def test_plans_that_mean_nothing_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(UserError):
        SweepPlan(**field)  # type: ignore[arg-type]


def test_a_sample_says_whether_it_was_served() -> None:
    assert Played([RequestSample(0, 0, 1, 204)], 1.0).samples[0].served
    assert not RequestSample(0, 0, 1, 302).served
