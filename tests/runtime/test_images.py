"""Images in every form that callers hold: the pixels are those of their files; what is none is told with its type."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.runtime.fakes import CLASSES, colour_detector, make_image, write_jpeg

from eyas.decode import decode, read_image
from eyas.errors import UserError
from eyas.runtime.detect import detect
from eyas.runtime.images import read_one
from eyas.types import Detections, UInt8Array

IMAGE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def png(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **options)
    return buffer.getvalue()


DATA = png(Image.fromarray(IMAGE))
CHW = torch.from_numpy(IMAGE).permute(2, 0, 1)


def in_zip() -> Any:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.png", DATA)
    return zipfile.ZipFile(archive).open("a.png")


def spooled() -> Any:
    """Return a file of which nobody knows yet whether it is one."""
    file = tempfile.SpooledTemporaryFile()  # noqa: SIM115
    file.write(DATA)
    file.seek(0)
    return file


FORMS: dict[str, Callable[[], Any]] = {
    "bytes": lambda: DATA,
    "bytearray": lambda: bytearray(DATA),
    "memoryview": lambda: memoryview(DATA),
    "BytesIO": lambda: io.BytesIO(DATA),
    "a buffered reader": lambda: io.BufferedReader(io.BytesIO(DATA)),  # type: ignore[arg-type]
    "a member of a zip": in_zip,
    "a spooled file": spooled,
    "an array": lambda: IMAGE,
    "a view of an array": lambda: np.ascontiguousarray(IMAGE[::-1])[::-1],
    "an array of Fortran's order": lambda: np.asfortranarray(IMAGE),
    "PIL": lambda: Image.fromarray(IMAGE),
    "PIL, not yet read": lambda: Image.open(io.BytesIO(DATA)),
    "tensor CHW": lambda: CHW,
    "tensor HWC": lambda: torch.from_numpy(IMAGE),
    "tensor of floats": lambda: CHW / 255,
    "tensor of doubles": lambda: CHW.double() / 255,
    "tensor with a gradient": lambda: (CHW / 255).requires_grad_(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_very_pixels(form: str) -> None:
    np.testing.assert_array_equal(read_one(FORMS[form]()), IMAGE)
    detector, _ = colour_detector()
    assert isinstance(detector(FORMS[form]()), Detections)
    assert len(detector([FORMS[form](), IMAGE])) == 2
    assert len(list(detector.stream(FORMS[form]()))) == 1


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "I;16", "PA"])
def test_pil_modes_are_what_their_files_are(mode: str) -> None:
    image = Image.fromarray(IMAGE)
    if mode in ("RGBA", "LA", "PA"):
        image.putalpha(Image.fromarray(IMAGE[..., 0]))
    image = Image.fromarray(IMAGE[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    given = read_one(image)
    if mode in ("CMYK", "YCbCr", "HSV", "PA"):  # PNG has no such modes
        white = Image.new("RGBA", image.size, "white")
        expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    else:
        expected = decode(png(image))
    assert np.abs(given.astype(int) - expected).max() <= (1 if mode == "PA" else 0)


def test_pil_palettes_with_a_transparent_colour() -> None:
    image = Image.open(io.BytesIO(png(Image.fromarray(IMAGE).quantize(8), transparency=3)))
    np.testing.assert_array_equal(read_one(image), decode(png(image, transparency=3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_pil_image_is_turned_as_its_file_is(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(IMAGE).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_one(Image.open(tmp_path / "a.png")), read_image(tmp_path / "a.png"))


@pytest.mark.parametrize("form", [list, tuple, deque, iter, lambda images: (one for one in images), np.stack])
def test_many_images_of_any_order_kept(form: Callable[[list[UInt8Array]], Any]) -> None:
    detector, session = colour_detector()
    images = [make_image(64, 96, (i, 5, i + 30, 40)) for i in range(5)]
    if form is np.stack:
        with pytest.raises(UserError, match=r"uint8 \[5, 64, 96, 3\]"):
            detector(form(images))
        return
    found = detector(form(images), batch=2)
    assert session.batches == [2, 2, 1]
    assert [round(float(one.boxes[0, 0])) for one in found] == [0, 1, 2, 3, 4]


def test_an_iterator_is_read_a_batch_at_a_time() -> None:
    detector, session = colour_detector()

    def endless() -> Iterator[UInt8Array]:
        for number in range(5):
            assert sum(session.batches) == number // 2 * 2
            yield make_image()

    assert len(detector(endless(), batch=2)) == 5


ONE_IS_BAD: dict[str, tuple[Any, str]] = {
    "None": (None, "NoneType"),
    "a number": (7, "int"),
    "a float": (0.5, "float"),
    "yes": (True, "bool"),
    "an object": (object(), "object"),
    "a dict": ({"image": IMAGE}, "dict"),
    "a set": ({"a.jpg"}, "set"),
    "a list in a list": ([IMAGE], "list"),
    "grey": (IMAGE[..., 0], r"uint8 \[40, 60\]"),
    "grey, three axes": (IMAGE[..., :1], r"uint8 \[40, 60, 1\]"),
    "RGBA": (np.zeros((4, 5, 4), np.uint8), r"uint8 \[4, 5, 4\]"),
    "floats": (IMAGE / 255, r"float64 \[40, 60, 3\]"),
    "words": (np.array(["a.jpg"]), r"<U5 \[1\]"),
    "no pixels": (np.zeros((0, 5, 3), np.uint8), r"uint8 \[0, 5, 3\]"),
    "tensor, batch": (CHW[None], r"uint8 \[1, 3, 40, 60\]"),
    "tensor, grey": (CHW[:1], r"uint8 \[1, 40, 60\]"),
    "tensor, either way": (torch.zeros(3, 8, 3), r"float32 \[3, 8, 3\]"),
    "tensor, normalised": (CHW.float() / 50 - 2, r"float32 \[3, 40, 60\]"),
    "tensor, 0 to 255": (CHW.float(), r"float32 \[3, 40, 60\]"),
    "tensor, not a number": (torch.full((3, 4, 5), float("nan")), r"float32 \[3, 4, 5\]"),
    "tensor, whole numbers": (CHW.long(), r"int64 \[3, 40, 60\]"),
    "tensor, without data": (torch.zeros(3, 4, 5, device="meta"), "without data"),
    "tensor, sparse": (torch.zeros(3, 4, 5).to_sparse(), "layout torch.sparse_coo"),
    "tensor, empty": (torch.zeros(3, 0, 5), r"float32 \[3, 0, 5\]"),
    "text file": (io.StringIO("an image"), "opened as text"),
    "file at its end": (io.BytesIO(b""), "no data left"),
    "file of rubbish": (io.BytesIO(b"hello"), "not a supported image"),
    "PIL, 32 bits": (Image.new("I", (4, 4)), "PIL mode I is unknown"),
    "PIL, floats": (Image.new("F", (4, 4)), "PIL mode F is unknown"),
    "PIL, truncated": (Image.open(io.BytesIO(DATA[:2000])), "PIL image can't be read"),
    "a path of bytes": (type("P", (), {"__fspath__": lambda _: b"a.jpg"})(), "path is given as bytes"),
}


@pytest.mark.parametrize("name", ONE_IS_BAD)
def test_what_is_no_image_is_told_with_its_type_and_place(name: str, tmp_path: Path) -> None:
    value, told = ONE_IS_BAD[name]
    detector, _ = colour_detector()
    with pytest.raises(UserError, match=told) as error:
        if isinstance(value, list):
            detector([value])
        else:
            detector(value)
    assert error.value.expected or error.value.fix or error.value.where or "read" in error.value.problem
    with contextlib.suppress(ValueError), pytest.raises(UserError) as error:
        if hasattr(value, "seek"):
            value.seek(0)
        detector([IMAGE, value])
    assert error.value.where == "images[1]"
    if name == "a number":  # a camera, where sources are meant
        return
    with pytest.raises(UserError):
        detect(detector, [IMAGE, value], out=tmp_path)
        raise UserError("only the other image was read")


def test_a_closed_file() -> None:
    file = io.BytesIO(DATA)
    file.close()
    with pytest.raises(UserError, match="can't be read"):
        read_one(file)


def test_too_many_pixels_in_any_form() -> None:
    for form in ("bytes", "BytesIO", "PIL"):
        with pytest.raises(UserError, match="million pixels"):
            read_one(FORMS[form](), max_pixels=100)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ("rde", "no class 'rde'.*red"),
        ([1], "given as 1,"),
        (1, "given as int"),
        ([True], "given as True"),
        ([None], "given as None"),
        ([["red"]], "given as"),
        (b"red", "given as bytes"),
        ({"red": 1}, "given as dict"),
        ([], "empty"),
        ([99], "given as 99"),
    ],
)
def test_wrong_classes_are_told(classes: Any, told: str) -> None:
    detector, _ = colour_detector()
    for call in (lambda: detector(IMAGE, classes=classes), lambda: detector.stream(IMAGE, classes=classes)):
        with pytest.raises(UserError, match=told) as error:
            call()
        assert error.value.where == "classes" and CLASSES[0] in error.value.expected
    if told == "given as 1,":
        assert error.value.fix == "classes=['blue']"


@pytest.mark.parametrize("classes", ["red", ["red"], ("red",), {"red"}, iter(["red"]), np.array(["red"])])
def test_classes_in_any_collection(classes: Any) -> None:
    detector, _ = colour_detector()
    assert len(detector(make_image(), classes=classes)) == 1


@pytest.mark.parametrize("name", ["confidence", "iou"])
@pytest.mark.parametrize("value", ["0.5", True, [0.5], float("nan"), -0.1, 1.5, 50, {}])
def test_wrong_thresholds_are_told(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=name):
        colour_detector()[0](IMAGE, **{name: value})


@pytest.mark.parametrize("value", [np.float32(0.5), 0, 1, np.int64(0)])
def test_numbers_of_any_type_are_thresholds(value: Any) -> None:
    assert isinstance(colour_detector()[0](make_image(), confidence=value), Detections)


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None, True])
def test_wrong_batches_are_told(batch: Any) -> None:
    detector, _ = colour_detector()
    for call in (lambda: detector([IMAGE], batch=batch), lambda: detector.stream([IMAGE], batch=batch)):
        with pytest.raises(UserError, match="batch"):
            call()


def test_results_of_held_images_are_written(tmp_path: Path) -> None:
    detector, _ = colour_detector()
    sources = [Image.fromarray(make_image()), write_jpeg(tmp_path / "a.jpg").read_bytes(), make_image()]
    report = detect(detector, sources, out=tmp_path / "out")
    assert [result.name for result in report.results] == ["image_000000.png", "image_000001.png", "array_000002.png"]
    assert report.counts == {"red": 3} and not report.problems
    assert all(result.written is not None and result.written.is_file() for result in report.results)


def test_neither_torch_nor_pil_is_imported() -> None:
    code = f"""
import io, sys
from eyas.runtime.images import read_one
read_one(io.BytesIO({DATA[:0] + png(Image.new("RGB", (3, 3)))!r}))
print("torch" in sys.modules, "PIL" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"], done.stderr
