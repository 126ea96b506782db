"""A batch from bytes to detections: good and hostile images side by side."""

from __future__ import annotations

import io
import struct
import time
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from tests.runtime.fakes import ColourSession
from tests.serve.bundles import CLASSES, SIZE, jpeg, make_image, write_bundle

from eyas.runtime.detector import Detector
from eyas.runtime.loading import load
from eyas.serve.errors import Refused
from eyas.serve.limits import Limits
from eyas.serve.workers.base import ImageResult, Task
from eyas.serve.workers.pipeline import BatchFailed, Pipeline
from eyas.types import FloatArray, InputSpec, Thresholds, UInt8Array

LOW = Thresholds(confidence=0.05)
LIMITS = Limits(pixels=1_000_000, side=4000)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A pipeline on the bundle of means."""
    return Pipeline(load(write_bundle(tmp_path_factory.mktemp("pipeline") / "b"), threads=1, spin=False), limits=LIMITS)


def png(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """Return a PNG whose header says that size, with no more than one row of pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the image as a file of that kind."""
    file = io.BytesIO()
    image.save(file, kind, **options)  # type: ignore[arg-type]
    return file.getvalue()


def image(mode: str = "RGB", size: tuple[int, int] = (32, 32)) -> Image.Image:
    """Return a reddish image of any mode."""
    return Image.fromarray(make_image(220, 30, size[1], size[0])).convert(mode)


def deep() -> bytes:
    """Return a PNG of 16 bits."""
    return bytes(cv2.imencode(".png", make_image(220, 30)[..., ::-1].astype(np.uint16) * 257)[1])


TURNED = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
GOOD = {
    "cmyk": lambda: encoded(image("CMYK"), "JPEG"),
    "grey": lambda: encoded(image("L"), "JPEG"),
    "progressive": lambda: encoded(image(), "JPEG", progressive=True),
    "palette": lambda: encoded(image("P"), "PNG"),
    "alpha": lambda: encoded(image("RGBA"), "PNG"),
    "16 bits": deep,
    "webp": lambda: encoded(image(), "WEBP"),
    "animated webp": lambda: encoded(image(), "WEBP", save_all=True, append_images=[image("L").convert("RGB")]),
    "animated png": lambda: encoded(image(), "PNG", save_all=True, append_images=[image("L").convert("RGB")]),
    "turned": lambda: encoded(image(), "JPEG", exif=TURNED),
    "one pixel": lambda: encoded(image(size=(1, 1)), "PNG"),
    "jpeg and zip": lambda: jpeg() + b"PK\x05\x06" + bytes(18),
    "colour profile": lambda: encoded(image(), "JPEG", icc_profile=b"\0" * 3000),
}  # fmt: skip
BAD = {
    "empty": (b"", "unprocessable"),
    "text": (b"hello, this is no image", "unprocessable"),
    "truncated": (jpeg()[:400], "unprocessable"),
    "damaged": (jpeg()[:-300] + bytes(300), "unprocessable"),
    "only a header": (b"\xff\xd8\xff", "unprocessable"),
    "bomb": (png(12000, 12000), "too_large"),
    "long": (png(5000, 1), "too_large"),
    "huge": (png(2**31 - 1, 2**31 - 1), "too_large"),
    "no pixels": (png(0, 0), "unprocessable"),
    "missing rows": (png(64, 64), "unprocessable"),
    "gif": (encoded(image("P"), "GIF"), "unsupported"),
    "tiff": (encoded(image(), "TIFF"), "unsupported"),
    "bmp": (b"BM" + bytes(12) + struct.pack("<Iii", 40, 100_000, 100_000) + bytes(28), "unsupported"),
    "heic called jpeg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unprocessable"),
    "many scans": (encoded(image(), "JPEG", progressive=True)[:-2] + b"\xff\xda" * 101 + b"\xff\xd9", "unprocessable"),
    "a stream of 268 million pixels where a chunk should be": (
        b"RIFF\x34\0\0\0WEBP\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(43),
        "unprocessable",
    ),
    "a canvas and an image of two sizes": (
        b"RIFF\x5e\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\x1f\0\0\x1f\0\0"
        b"VP8L\x2c\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(39),
        "unprocessable",
    ),
    "many markers": (b"\xff\xd8" + b"\xff\xe0\0\x02" * 500_000, "unprocessable"),
    "padding": (b"\xff\xd8" + bytes(8_000_000), "unprocessable"),
    "empty chunks": (png(32, 32)[:33] + b"\0\0\0\0teSTAAAA" * 500_000, "unprocessable"),
}


@pytest.mark.parametrize("name", GOOD)
def test_unusual_images_are_answered(pipeline: Pipeline, name: str) -> None:
    ran = pipeline.run([Task(GOOD[name](), LOW)])
    found = ran.results[0]
    assert isinstance(found, ImageResult), found
    assert len(found.detections) >= 1


@pytest.mark.parametrize("name", BAD)
def test_hostile_images_are_refused_alone(pipeline: Pipeline, name: str) -> None:
    data, kind = BAD[name]
    before, result, after = pipeline.run([Task(jpeg(), LOW), Task(data, LOW), Task(jpeg(100), LOW)]).results
    assert isinstance(result, Refused) and result.kind == kind, result
    assert isinstance(before, ImageResult) and isinstance(after, ImageResult)
    assert before.detections.scores[0] == pytest.approx(200 / 255, abs=0.02)
    assert after.detections.scores[0] == pytest.approx(100 / 255, abs=0.02)


def test_each_image_has_its_own_thresholds(pipeline: Pipeline) -> None:
    both = jpeg(200, 150)
    tasks = [
        Task(both, LOW),
        Task(both, Thresholds(confidence=0.7)),
        Task(both, LOW, only=(1,)),
        Task(both, LOW, (), True),
    ]
    results = [each for each in pipeline.run(tasks).results if isinstance(each, ImageResult)]
    assert [each.detections.labels.tolist() for each in results] == [[0, 1], [0], [1], []]
    assert [bool(each.annotated) for each in results] == [False, False, False, True]


def test_arrays_have_the_same_limits(pipeline: Pipeline) -> None:
    large = np.zeros((1001, 1000, 3), np.uint8)
    results = pipeline.run([Task(large, LOW), Task(make_image(), LOW)]).results
    assert isinstance(results[0], Refused) and results[0].kind == "too_large" and isinstance(results[1], ImageResult)


def test_warming_up_measures_each_size(pipeline: Pipeline) -> None:
    latencies = pipeline.warm_up(6)
    assert [size for size, _ in latencies] == [1, 2, 4, 6] and all(seconds > 0 for _, seconds in latencies)


class SmallSession(ColourSession):
    """Has memory for two images; fails otherwise with nothing but words."""

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return boxes and scores of at most two images."""
        if len(images) > 2:
            raise RuntimeError("CUDA failure 2: out of memory")
        return super().run(images)


class DeadSession(ColourSession):
    """Never runs."""

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Raise."""
        raise RuntimeError("the device is gone")


def test_a_batch_that_does_not_fit_is_run_in_halves() -> None:
    session = SmallSession()
    small = Pipeline(Detector(session, CLASSES, InputSpec(SIZE, SIZE, margin=0)))
    ran = small.run([Task(make_image(), LOW)] * 5)
    assert session.batches == [2, 1, 2] and all(isinstance(each, ImageResult) for each in ran.results)


def test_a_network_that_does_not_run_is_told() -> None:
    dead = Pipeline(Detector(DeadSession(), CLASSES, InputSpec(SIZE, SIZE)))
    with pytest.raises(BatchFailed, match="the device is gone"):
        dead.run([Task(make_image(), LOW)])


def test_the_times_of_a_batch_add_up_to_no_more_than_it_took(pipeline: Pipeline) -> None:
    start = time.perf_counter()
    ran = pipeline.run([Task(jpeg(200, 30, 900, 900), LOW)] * 8)
    took = time.perf_counter() - start
    parts = [(one.decode, one.preprocess, one.postprocess) for one in ran.results if isinstance(one, ImageResult)]
    assert len(parts) == 8 and min(decode for decode, _, _ in parts) > 0
    assert sum(map(sum, parts)) + ran.inference <= took
