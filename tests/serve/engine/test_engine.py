"""The engine: requests, options, batches, aliases, swaps, draining; on threads, which are quick to start."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tests.serve.bundles import jpeg, make_image, write_bundle

from eyas.artifacts.model_key import ModelKey
from eyas.serve.api import Answer, Engine, Options, Request
from eyas.serve.engine import model_manager
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.routing import Router, Split
from eyas.serve.engine.settings import EngineSettings
from eyas.serve.engine.worker_planning import Choice
from eyas.serve.errors import ServeError
from eyas.serve.workers.inprocess import ThreadWorker

SETTINGS = EngineSettings(in_process=True, workers=1, threads=1, goal=30.0)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(asyncio.wait_for(coroutine, 120))


def request(*images: Any, **fields: Any) -> Request:
    """Return a request for images."""
    return Request("r", fields.pop("model", ""), fields.pop("version", ""), images or (jpeg(),), **fields)


def scores(answer: Answer) -> list[list[float]]:
    """Return the scores of each image, with one decimal."""
    return [[round(float(score), 1) for score in each.scores] for each in answer.detections]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose scores are the means of red and blue."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "plain")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose scores are half of that."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "half", scale=0.5)


def test_answers_what_the_bundle_finds_in_files_and_arrays(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            assert await engine.load("shapes", bundle=bundle) == ModelKey("shapes", "1")
            answer = await engine.detect(request(jpeg(204), make_image(0, 102, 128, 128)))
            assert (answer.id, answer.model) == ("r", ModelKey("shapes", "1"))
            assert scores(answer) == [[0.8], [0.4]]
            first, second = answer.detections
            assert [name for _, _, name in first] == ["red"] and [name for _, _, name in second] == ["blue"]
            np.testing.assert_allclose(first.boxes, [[0, 0, 32, 32]])
            np.testing.assert_allclose(second.boxes, [[0, 0, 64, 64]])
            assert (second.height, second.width) == (128, 128)
            assert answer.timing.total >= answer.timing.inference > 0 and answer.timing.decode > 0

    run(check())


def test_options_hold_for_their_request_alone_in_a_shared_batch(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            image = jpeg(200, 100)
            asked = [
                Options(),
                Options(confidence=0.7),
                Options(classes=("blue",)),
                Options(max_detections=1),
                Options(annotate=True),
            ]
            answers = await asyncio.gather(*(engine.detect(request(image, options=each)) for each in asked))
            assert [scores(answer)[0] for answer in answers] == [[0.8, 0.4], [0.8], [0.4], [0.8], [0.8, 0.4]]
            assert [len(answer.annotated) for answer in answers] == [0, 0, 0, 0, 1]
            drawn = cv2.imdecode(np.frombuffer(answers[4].annotated[0], np.uint8), cv2.IMREAD_COLOR)
            assert drawn.shape == (64, 64, 3) and drawn[..., 1].max() > 30, "nothing is drawn"

    run(check())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (Options(classes=("blu",)), "did you mean 'blue'"),
        (Options(confidence=2.0), "confidence threshold is 2.0"),
        (Options(max_detections=0), "max_detections is 0"),
    ],
)
def test_an_option_that_cannot_be_had_is_refused(bundle: Path, options: Options, words: str) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            with pytest.raises(ServeError, match=words) as error:
                await engine.detect(request(options=options))
            assert error.value.kind == "invalid"

    run(check())


def test_a_broken_image_fails_alone(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            results = await asyncio.gather(
                *(engine.detect(request(data)) for data in (jpeg(), jpeg()[:300], jpeg())), return_exceptions=True
            )
            assert [type(each) for each in results] == [Answer, ServeError, Answer]
            with pytest.raises(ServeError, match="Image 2 of 3") as error:
                await engine.detect(request(jpeg(), b"no image", jpeg()))
            assert error.value.kind == "unprocessable"
            assert scores(await engine.detect(request())) == [[0.8]]

    run(check())


def test_versions_and_aliases(bundle: Path, half: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            engine.alias("shapes", "champion", "1")
            assert await engine.load("shapes", bundle=half) == ModelKey("shapes", "2")
            assert scores(await engine.detect(request())) == [[0.8]]
            assert scores(await engine.detect(request(version="2"))) == [[0.4]]
            engine.alias("shapes", "champion", "2")
            assert scores(await engine.detect(request())) == [[0.4]]
            assert scores(await engine.detect(request(model="shapes", version="@champion"))) == [[0.4]]
            assert [(each.key.version, each.aliases, each.default) for each in engine.models()] == [
                ("1", (), False),
                ("2", ("champion",), True),
            ]
            for model, version in (("shape", ""), ("shapes", "3"), ("shapes", "@canary")):
                with pytest.raises(ServeError) as error:
                    await engine.detect(request(model=model, version=version))
                assert error.value.kind == "not_found"
            with pytest.raises(ServeError, match="no version '3'"):
                engine.alias("shapes", "champion", "3")

    run(check())


def test_a_corrupt_bundle_keeps_what_served_before(bundle: Path, tmp_path: Path) -> None:
    async def check() -> None:
        broken = write_bundle(tmp_path / "broken")
        (broken / "model.onnx").write_bytes(b"x" * 100)
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            with pytest.raises(ServeError, match=r"model\.onnx was changed"):
                await engine.load("shapes", "2", broken)
            assert scores(await engine.detect(request())) == [[0.8]]
            with pytest.raises(ServeError, match="is failed"):
                engine.alias("shapes", "champion", "2")
            with pytest.raises(ServeError, match="no version '9'"):
                await engine.load("shapes", "9")
            assert {each.key.version: each.state for each in engine.models()} == {"1": "ready", "2": "failed"}

    run(check())


def test_alias_flips_under_load_fail_nothing(bundle: Path, half: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            await engine.load("shapes", bundle=half)
            answered: list[float] = []
            over = False

            async def client() -> None:
                while not over:
                    answered.append(scores(await engine.detect(request()))[0][0])

            clients = [asyncio.create_task(client()) for _ in range(4)]
            for flip in range(20):
                engine.alias("shapes", "champion", "12"[flip % 2])
                seen = len(answered)
                while len(answered) < seen + 4:
                    await asyncio.sleep(0.001)
            over = True
            await asyncio.gather(*clients)
            assert set(answered) == {0.8, 0.4}

    run(check())


def test_unloading_answers_what_was_accepted_and_loads_again_on_request(bundle: Path, half: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            await engine.load("shapes", bundle=half)
            accepted = [asyncio.create_task(engine.detect(request(version="2"))) for _ in range(20)]
            await asyncio.sleep(0)
            await engine.unload("shapes", "2")
            assert [scores(await each) for each in accepted] == [[[0.4]]] * 20
            assert [each.state for each in engine.models()] == ["ready", "unloaded"]
            with pytest.raises(ServeError, match="not loaded"):
                await engine.detect(request(version="2"))
            assert scores(await engine.detect(request())) == [[0.8]]
            await engine.load("shapes", "2")
            assert scores(await engine.detect(request(version="2"))) == [[0.4]]
            with pytest.raises(ServeError, match="no model 'x'"):
                await engine.unload("x")

    run(check())


def test_draining_answers_everything_and_refuses_the_rest(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            assert not engine.ready()
            await engine.load("shapes", bundle=bundle)
            assert engine.ready()
            accepted = [asyncio.create_task(engine.detect(request())) for _ in range(30)]
            await asyncio.sleep(0)
            await engine.drain()
            assert not engine.ready()
            assert all(each.done() for each in accepted)
            assert all(scores(each.result()) == [[0.8]] for each in accepted)
            with pytest.raises(ServeError) as error:
                await engine.detect(request())
            assert error.value.kind == "unavailable"

    run(check())


def test_closing_fails_what_was_not_answered(bundle: Path) -> None:
    async def check() -> None:
        engine = LocalEngine(SETTINGS)
        await engine.load("shapes", bundle=bundle)
        accepted = [asyncio.create_task(engine.detect(request())) for _ in range(30)]
        await asyncio.sleep(0)
        await engine.close()
        for each in accepted:
            try:
                await each
            except ServeError as error:
                assert error.kind == "unavailable"
        assert not engine.ready()

    run(check())


def test_cancelling_frees_the_places(bundle: Path) -> None:
    async def check() -> None:
        settings = dataclasses.replace(SETTINGS, max_waiting=8)
        async with LocalEngine(settings) as engine:
            await engine.load("shapes", bundle=bundle)
            waiting = [asyncio.create_task(engine.detect(request(*[jpeg()] * 4))) for _ in range(2)]
            await asyncio.sleep(0)
            with pytest.raises(ServeError) as error:
                await engine.detect(request(*[jpeg()] * 8))
            assert error.value.kind == "overloaded" and error.value.retry_after
            assert not engine.ready(), "an overloaded server does not ask for more"
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert len((await engine.detect(request(*[jpeg()] * 4))).detections) == 4

    run(check())


def test_nobody_waits_longer_than_he_said(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            with pytest.raises(ServeError) as error:
                await engine.detect(request(timeout=0.0))
            assert error.value.kind == "deadline"

    run(check())


def test_a_newer_frame_takes_the_place_of_one_that_waits(bundle: Path) -> None:
    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            frames = [
                asyncio.create_task(engine.detect(request(jpeg(red), lane="stream", stream="cam")))
                for red in (51, 102, 153, 204)
            ]
            results = await asyncio.gather(*frames, return_exceptions=True)
            kinds = [each.kind if isinstance(each, ServeError) else scores(each)[0] for each in results]  # type: ignore[arg-type]
            assert kinds == [[0.2], "cancelled", "cancelled", [0.8]]

    run(check())


def test_the_least_recently_used_model_makes_room_and_comes_back_on_request(
    bundle: Path, half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ThreadWorker, "memory", lambda self: 100)

    async def check() -> None:
        async with LocalEngine(dataclasses.replace(SETTINGS, memory_limit=250)) as engine:
            await engine.load("a", bundle=bundle)
            await engine.load("b", bundle=half)
            assert scores(await engine.detect(request(model="a"))) == [[0.8]]
            await engine.load("c", bundle=bundle)
            states = {each.key.name: (each.state, each.on_demand, each.memory) for each in engine.models()}
            assert states == {"a": ("ready", False, 100), "b": ("unloaded", True, 0), "c": ("ready", False, 100)}
            again = await asyncio.gather(*(engine.detect(request(model="b")) for _ in range(3)))
            assert [scores(each) for each in again] == [[[0.4]]] * 3, "it was loaded once, and all of them waited"
            assert {each.key.name: each.state for each in engine.models()} == {
                "a": "unloaded",
                "b": "ready",
                "c": "ready",
            }

    run(check())


def test_shadows_see_copies_that_nobody_waits_for(bundle: Path, half: Path) -> None:
    async def check() -> None:
        seen: list[tuple[str, float]] = []

        def shadow_seen(copy: Request, key: ModelKey, result: Answer | ServeError) -> None:
            assert isinstance(result, Answer)
            seen.append((key.version, scores(result)[0][0]))

        router = Router({"shapes": Split({"1": 1.0}, shadows=("2",))})
        async with LocalEngine(SETTINGS, router, shadow_seen) as engine:
            await engine.load("shapes", bundle=bundle)
            await engine.load("shapes", bundle=half)
            assert scores(await engine.detect(request(model="shapes"))) == [[0.8]]
            while not seen:
                await asyncio.sleep(0.001)
            assert seen == [("2", 0.4)]

    run(check())


def test_workers_follow_the_load_and_the_swollen_are_replaced(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_manager, "UPKEEP_SECONDS", 0.02)

    async def two(*_: object) -> Choice:
        return Choice(2, 1)

    monkeypatch.setattr(model_manager, "plan", two)
    monkeypatch.setattr(model_manager, "ProcessWorker", lambda name, spec, classes: ThreadWorker(name, spec))
    wanted, memory = [2], [0]
    monkeypatch.setattr(model_manager.Autoscaler, "decide", lambda self, now, signal: wanted[0])
    monkeypatch.setattr(ThreadWorker, "memory", lambda self: memory[0] if self.name.endswith("#1") else 0)

    async def running(engine: LocalEngine, num: int) -> None:
        while engine.stats()["shapes/1"].workers != num:
            await asyncio.sleep(0.005)

    async def check() -> None:
        async with LocalEngine(EngineSettings(goal=30.0, worker_memory=1000)) as engine:
            await engine.load("shapes", bundle=bundle)
            await running(engine, 2)
            wanted[0] = 1
            await running(engine, 1)
            answers = [asyncio.create_task(engine.detect(request())) for _ in range(10)]
            memory[0] = 801
            await asyncio.gather(*answers)
            memory[0] = 801
            while engine.models()[0].memory:  # the first worker alone holds some
                await asyncio.sleep(0.005)
            await running(engine, 1)
            assert scores(await engine.detect(request())) == [[0.8]]

    run(check())


def test_is_an_engine(bundle: Path) -> None:
    async def check() -> None:
        engine: Engine = LocalEngine(SETTINGS)
        assert engine.models() == ()
        with pytest.raises(ServeError, match="No model is loaded"):
            await engine.detect(request())
        await engine.close()

    run(check())


def test_a_part_of_the_goal_is_kept_for_what_the_scheduler_does_not_see(bundle: Path) -> None:
    async def serve() -> None:
        async with LocalEngine(dataclasses.replace(SETTINGS, goal=20.0)) as engine:
            await engine.load("shapes", bundle=bundle)
            assert engine._executor.scheduler._models["shapes/1"].slo == 17.0

    run(serve())
