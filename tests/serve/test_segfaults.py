"""Workers that end with a segmentation fault under load: the server goes on, and says by what they died.

One kind of fault is sent from outside. The other is real: a file that the worker's Python runs at its start makes the
decoder read address 0 when it meets a certain image, as a faulty decoder of images would.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.test_faults import SETTINGS, children, open_files, request, run, until_running

from eyas.serve.api import Answer
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.errors import ServeError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
POISON = jpeg(13, 14, height=72)
FAULT = """
import ctypes
import eyas.serve.workers.pipeline as pipeline

whole = pipeline.decode

def decode(data, **options):
    if bytes(data) == bytes.fromhex("{poison}"):
        ctypes.string_at(0)
    return whole(data, **options)

pipeline.decode = decode
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose scores are the means of red and blue."""
    return write_bundle(tmp_path_factory.mktemp("segfaults") / "one")


class Load:
    """Clients that ask one after the other until told to end, and how their requests ended."""

    def __init__(self, engine: LocalEngine, clients: int = 6) -> None:
        self.ends, self.asked, self._over, self._engine = Counter[str](), 0, False, engine
        self._tasks = [asyncio.create_task(self._ask(number)) for number in range(clients)]

    async def _ask(self, number: int) -> None:
        while not self._over:
            self.asked += 1
            try:
                answer = await self._engine.detect(request(jpeg(100 + number)))
                assert round(float(answer.detections[0].scores[0]) * 255) == pytest.approx(100 + number, abs=2)
                self.ends["answered"] += 1
            except ServeError as error:
                self.ends[error.kind] += 1
                await asyncio.sleep(0.01)

    async def more(self, count: int) -> None:
        """Wait until so many more requests have been answered."""
        seen = self.ends["answered"]
        while self.ends["answered"] < seen + count:
            assert not any(task.done() for task in self._tasks)
            await asyncio.sleep(0.005)

    async def __aenter__(self) -> Load:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the clients end."""
        self._over = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT])
def test_a_fault_in_a_worker_costs_no_answer(
    bundle: Path, number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "eyas.serve")

    async def check() -> None:
        before = open_files()
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("m", bundle=bundle)
            await until_running(engine, 2)
            async with Load(engine) as load:
                for _ in range(2):
                    await load.more(20)
                    victim = children()[0]
                    os.kill(victim, number)
                    while victim in children():
                        await asyncio.sleep(0.005)
                    await load.more(20)  # while one worker is gone
                    await until_running(engine, 2)
            assert load.ends == {"answered": load.asked}, "the batch that was running was run again"
            assert len(engine.quarantine) == 0
        await asyncio.sleep(0)
        assert children() == [] and open_files() <= before
        assert caplog.text.count(f"The process ended with {number.name}") == 2

    run(check())


def test_an_image_that_crashes_the_decoder_fails_alone(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "eyas.serve")
    (tmp_path / "sitecustomize.py").write_text(FAULT.format(poison=POISON.hex()), "ascii")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))

    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("m", bundle=bundle)
            await until_running(engine, 2)
            async with Load(engine) as load:
                await load.more(20)
                with pytest.raises(ServeError, match="crashed on the image") as error:
                    await engine.detect(request(POISON))
                assert error.value.kind == "unprocessable"
                with pytest.raises(ServeError, match="not retried") as error:
                    await engine.detect(request(POISON))
                assert error.value.kind == "unprocessable"
                await until_running(engine, 2)
                await load.more(20)
                assert isinstance(await engine.detect(request()), Answer)
            assert load.ends == {"answered": load.asked}, "who shared a batch with it was run again"
            assert caplog.text.count("The process ended with") == 2
            assert caplog.text.count("The process ended with SIGSEGV") == 2

    run(check())
