"""JPEGs of four inks through `/v1/detect`: their colours are those that training's decoder sees."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx2 as httpx
import numpy as np
import pytest
import simplejpeg
from PIL import Image
from tests.serve.bundles import make_image, write_bundle
from tests.serve.running import Running, running

from eyas.decode import decode
from eyas.serve.engine.engine import LocalEngine
from eyas.serve.engine.settings import EngineSettings
from eyas.types import UInt8Array

INKS = np.array(Image.fromarray(make_image(200, 60)).convert("CMYK"))
MARKER = b"\xff\xee"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose scores are the means of red and blue."""
    bundle = write_bundle(tmp_path_factory.mktemp("colours") / "colours")
    with running(lambda: LocalEngine(EngineSettings(in_process=True, workers=1, threads=1, goal=20.0))) as started:
        started.call(started.server.engine.load, "colours", "1", bundle)
        yield started


def adobe(inks: UInt8Array) -> bytes:
    """Return a CMYK JPEG as Adobe's programs write it: complements, and a marker that tells."""
    file = io.BytesIO()
    Image.fromarray(inks, "CMYK").save(file, "JPEG", quality=98)
    return file.getvalue()


def plain(inks: UInt8Array) -> bytes:
    """Return a CMYK JPEG as it is without the marker: the inks themselves."""
    data = adobe(255 - inks)
    at = data.index(MARKER)
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def ycck(inks: UInt8Array) -> bytes:
    """Return a YCCK JPEG: complements, turned into brightness and colour, black apart."""
    data = bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(255 - inks), quality=98, colorspace="CMYK"))
    assert simplejpeg.decode_jpeg_header(data)[2] == "YCCK" and MARKER in data
    return data


@pytest.mark.parametrize("make", [adobe, plain, ycck])
def test_inks_become_the_right_colours(server: Running, make: object) -> None:
    assert callable(make)
    data = make(INKS)
    kind = {"content-type": "image/jpeg"}
    answer = httpx.post(f"{server.url}/v1/detect", content=data, headers=kind, timeout=60).raise_for_status().json()
    scores = {each["class"]: each["score"] * 255 for each in answer["detections"]}
    assert scores == {"red": pytest.approx(200, abs=3), "blue": pytest.approx(60, abs=3)}
    means = decode(data).reshape(-1, 3).mean(axis=0)  # what training sees
    assert (scores["red"], scores["blue"]) == pytest.approx((means[0], means[2]), abs=0.1)


def test_four_inks_cut_short_are_refused(server: Running) -> None:
    for data in (adobe(INKS), ycck(INKS)):
        kind = {"content-type": "image/jpeg"}
        answer = httpx.post(f"{server.url}/v1/detect", content=data[: len(data) - 40], headers=kind, timeout=60)
        assert (answer.status_code, answer.json()["kind"]) == (422, "unprocessable")
