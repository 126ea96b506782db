"""Partial requests on the engine: a result for each image, whatever became of the others."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.serve.bundles import jpeg, write_bundle
from tests.serve.engine.test_engine import SETTINGS, request, run, scores

from eyas.serve.engine.engine import LocalEngine
from eyas.serve.errors import Refused, ServeError


def test_a_partial_request_has_a_result_for_each_image(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "plain")

    async def check() -> None:
        async with LocalEngine(SETTINGS) as engine:
            await engine.load("shapes", bundle=bundle)
            killer, known = jpeg(3, height=40), {3: Refused("invalid", "not valid base64")}
            for _ in range(2):
                engine.quarantine.died(asyncio.get_running_loop().time(), [killer])
            images = (jpeg(204), jpeg()[:300], killer, b"", jpeg(102))
            answer = await engine.detect(request(*images, partial=True, refused=known))
            assert scores(answer) == [[0.8], [0.4]]
            assert {number: each.kind for number, each in answer.refused.items()} == {
                1: "unprocessable",
                2: "unprocessable",
                3: "invalid",
            }
            assert "made workers fail" in answer.refused[2].message
            order = [each.kind if isinstance(each, Refused) else len(each) for each in answer.images()]
            assert order == [1, "unprocessable", "unprocessable", "invalid", 1]
            with pytest.raises(ServeError, match="None of the 2") as error:
                await engine.detect(request(killer, b"", partial=True, refused={1: Refused("invalid", "")}))
            assert error.value.kind == "unprocessable"

    run(check())
