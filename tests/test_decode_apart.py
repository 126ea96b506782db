"""The process that decodes beside this one: bounded, started again when it ends, and the pixels are the same."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from eyas import decode, decode_apart
from eyas.errors import UserError
from eyas.opencv_images import decode_by_opencv
from eyas.opencv_limits import MAX_PIXELS, VARIABLE

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory and time are bounded by Linux's means")
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 70, 3), dtype=np.uint8))
KINDS = ("TIFF", "GIF", "AVIF", "JPEG2000")


def saved(kind: str, image: Image.Image = IMAGE) -> bytes:
    """Return the image as Pillow writes it."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """Leave no process that was started under other bounds."""
    yield
    decode_apart._end()


@pytest.mark.parametrize("kind", KINDS)
def test_the_pixels_are_those_of_opencv_here(kind: str) -> None:
    data = saved(kind)
    here = decode_by_opencv(data)
    assert here is not None
    assert np.array_equal(decode.decode(data), here)


def test_an_image_above_opencvs_own_limit_is_decoded_where_that_is_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "opencv_limit", lambda: 100)
    assert np.array_equal(decode.decode(saved("PNG")), np.asarray(IMAGE))
    assert decode_apart._helper is not None
    assert decode_apart._current(MAX_PIXELS + 1).limit == MAX_PIXELS + 1


def test_threads_take_turns() -> None:
    made = [Image.new("RGB", (40 + i, 30), (i, 0, 0)) for i in range(12)]
    with ThreadPoolExecutor(4) as threads:
        images = list(threads.map(decode.decode, [saved("TIFF", each) for each in made]))
    assert all(np.array_equal(image, np.asarray(each)) for image, each in zip(images, made, strict=True))


def test_a_process_that_was_killed_is_replaced() -> None:
    data = saved("TIFF")
    decode.decode(data)
    assert decode_apart._helper is not None
    decode_apart._helper.process.kill()
    decode_apart._helper.process.wait()
    assert decode.decode(data).shape == (90, 70, 3)


@linux
def test_an_image_that_takes_too_much_memory_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved("TIFF", Image.new("RGB", (4000, 4000)))
    monkeypatch.setattr(decode_apart, "BYTES_A_PIXEL", 1)
    monkeypatch.setattr(decode_apart, "BYTES", 8 << 20)
    with pytest.raises(UserError, match=r"more than .* MB of memory") as error:
        decode.decode(data, where="some.tif")
    assert error.value.where == "some.tif"
    monkeypatch.undo()
    assert decode.decode(saved("TIFF")).shape == (90, 70, 3)


def endless_gif(codes: int) -> bytes:
    """Return a GIF that tells its decoder so many times to start its table anew, which takes it long."""
    bits = (np.full((codes, 1), 256) >> np.arange(9) & 1).astype(np.uint8)
    body = np.packbits(bits.reshape(-1), bitorder="little").tobytes()
    blocks = b"".join(bytes([len(part)]) + part for part in (body[i : i + 255] for i in range(0, len(body), 255)))
    head = b"GIF89a" + struct.pack("<HHBBB", 64, 48, 0xF7, 0, 0) + bytes(768)
    return head + b"," + struct.pack("<HHHHB", 0, 0, 64, 48, 0) + b"\x08" + blocks + b"\0;"


@linux
def test_an_image_that_takes_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_apart, "SECONDS", 0)
    with pytest.raises(UserError, match="takes too long"):
        decode.decode(endless_gif(1_500_000))
    assert decode.decode(saved("TIFF")).shape == (90, 70, 3)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_its_own() -> None:
    code = """
import os, sys
from eyas import decode, decode_apart
data = sys.stdin.buffer.read()
decode.decode(data)
first = decode_apart._helper.process.pid
child = os.fork()
if child == 0:
    decode.decode(data)
    os._exit(0 if decode_apart._helper.process.pid != first else 1)
print(os.waitpid(child, 0)[1], decode.decode(data).shape, decode_apart._helper.process.pid == first)
"""
    done = subprocess.run([sys.executable, "-c", code], input=saved("TIFF"), capture_output=True, timeout=60)
    assert done.stdout.decode() == "0 (90, 70, 3) True\n", done.stderr


LIMITED = """
import sys
{first}
import eyas
import cv2, numpy as np
from eyas.opencv_limits import opencv_limit
data = cv2.imencode(".pbm", np.zeros((8, 8), np.uint8))[1].tobytes().replace(b"8 8", b"14000 14000", 1)
try:
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
except cv2.error as error:
    print("CV_IO_MAX_IMAGE_PIXELS" in str(error))
print(opencv_limit())
"""


@pytest.mark.parametrize(
    ("first", "environment", "expected"),
    [
        ("", {}, ["True", str(MAX_PIXELS)]),
        ("", {VARIABLE: "100000000"}, ["True", "100000000"]),  # what the user has set stays
        ("import cv2", {}, [str(1 << 30)]),  # too late: the headers alone bound what is decoded
    ],
)
def test_opencv_itself_is_bounded(first: str, environment: dict[str, str], expected: list[str]) -> None:
    clean = {name: value for name, value in os.environ.items() if name != VARIABLE}
    command = [sys.executable, "-c", LIMITED.format(first=first)]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == expected, done.stderr[-2000:]
