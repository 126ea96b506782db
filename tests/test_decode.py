"""Images of every kind become upright 8-bit RGB, and what is no whole image is refused with its name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from eyas import decode
from eyas.errors import UserError
from eyas.types import UInt8Array


def texture(height: int = 60, width: int = 80) -> UInt8Array:
    """Return a smooth colourful image, so that JPEG and chroma subsampling change little."""
    coarse = np.random.default_rng(0).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


IMAGE = Image.fromarray(texture())
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "BMP": {}, "TIFF": {}, "PPM": {}}
LOSSY = {"JPEG": {"quality": 95}, "AVIF": {"quality": 95}, "JPEG2000": {}}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_lossless_kinds_give_the_very_pixels(kind: str) -> None:
    data = encode(IMAGE, kind, **LOSSLESS[kind])
    assert np.array_equal(decode.decode(data), texture())


@pytest.mark.parametrize("kind", LOSSY)
def test_lossy_kinds_give_nearly_the_pixels(kind: str) -> None:
    image = decode.decode(encode(IMAGE, kind, **LOSSY[kind]))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - texture()).mean() < 3


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_grey_palette_and_bilevel(mode: str, kind: str) -> None:
    image = IMAGE.convert(mode)
    expected = np.asarray(image.convert("RGB"))
    got = decode.decode(encode(image, kind))
    assert got.shape == (60, 80, 3)
    assert np.array_equal(got, expected)


def test_grey_jpeg_has_three_equal_channels() -> None:
    image = decode.decode(encode(IMAGE.convert("L"), "JPEG"))
    assert image.shape == (60, 80, 3)
    assert np.array_equal(image[..., 0], image[..., 2])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_so_that_white_stays_white(channels: int) -> None:
    wide = np.zeros((4, 5, channels), np.uint16)
    wide[...] = np.array([0, 257, 32896, 65535, 65278], np.uint16)[None, :, None]
    if channels == 4:
        wide[..., 3] = 65535
    ok, data = cv2.imencode(".png", wide)
    assert ok
    image = decode.decode(data.tobytes())
    assert image[0, :, 0].tolist() == [0, 1, 128, 255, 254]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_blended_over_white(mode: str) -> None:
    image = IMAGE.convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 80).astype(np.uint8), (60, 1))))
    if mode == "LA":
        image = image.convert("LA")
    if mode == "P":
        image = IMAGE.quantize(8)
        data = encode(image, "PNG", transparency=3)
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    else:
        data = encode(image, "PNG")
    white = Image.new("RGBA", image.size, "white")
    expected = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    assert np.abs(decode.decode(data).astype(int) - expected).max() <= 1


def test_cmyk_and_ycck_jpeg() -> None:
    data = encode(IMAGE.convert("CMYK"), "JPEG", quality=98)
    assert np.abs(decode.decode(data).astype(int) - texture()).mean() < 3
    assert np.abs(decode.decode(data).astype(int) - np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))).max() <= 1
    inverted = 255 - np.asarray(IMAGE.convert("CMYK"))  # Adobe's way, which the encoder marks as such
    ycck = simplejpeg.encode_jpeg(np.ascontiguousarray(inverted), quality=98, colorspace="CMYK")
    assert simplejpeg.decode_jpeg_header(ycck)[2] == "YCCK"
    assert np.abs(decode.decode(ycck).astype(int) - texture()).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(IMAGE, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    got = decode.decode(data)
    assert got.shape == expected.shape
    assert got.flags.c_contiguous
    assert np.abs(got.astype(int) - expected).max() <= (0 if kind != "JPEG" else 8)
    assert decode.image_size(data) == got.shape[:2]
    (tmp_path / "x").write_bytes(data)
    assert decode.read_size(tmp_path / "x") == got.shape[:2]


def test_mad_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    assert decode.decode(encode(IMAGE, "JPEG", exif=exif)).shape == (60, 80, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM"])
def test_sizes_from_the_header(tmp_path: Path, kind: str) -> None:
    data = encode(IMAGE, kind)
    (tmp_path / "x").write_bytes(data)
    assert decode.read_size(tmp_path / "x") == (60, 80)
    assert decode.image_size(data) == (60, 80)
    if kind == "WEBP":
        assert decode.image_size(encode(IMAGE, kind, lossless=True)) == (60, 80)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_one_pixel(kind: str) -> None:
    image = Image.new("RGB", (1, 1), (200, 200, 200))
    got = decode.decode(encode(image, kind))
    assert got.shape == (1, 1, 3)
    assert np.abs(got.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM"])
@pytest.mark.parametrize("part", [0.02, 0.5, 0.97])
def test_truncated_is_refused(kind: str, part: float, capfd: pytest.CaptureFixture[str]) -> None:
    data = encode(IMAGE, kind)
    with pytest.raises(UserError, match="damaged") as error:
        decode.decode(data[: int(len(data) * part)], where="some/file.xyz")
    assert error.value.where == "some/file.xyz"
    assert error.value.fix
    assert capfd.readouterr().err == ""  # the decoders' own chatter is kept quiet


@pytest.mark.parametrize("data", [b"", b"hello, I am a text file\n" * 10, b"\xff\xd8", bytes(1000)])
def test_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rubbish.jpg"
    path.write_bytes(data)
    for read in (decode.read_image, decode.read_size):
        with pytest.raises(UserError) as error:
            read(path)
        assert error.value.where == str(path)
    with pytest.raises(UserError):
        decode.image_size(data)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        decode.read_image(tmp_path / "none.jpg")
    with pytest.raises(UserError, match="No such file"):
        decode.read_size(tmp_path / "none.jpg")


def test_damaged_scan_is_refused_but_harmless_oddities_pass() -> None:
    data = encode(IMAGE, "JPEG", quality=95)
    assert decode.decode(data + b"trailing rubbish").shape == (60, 80, 3)
    odd = data[:-2] + b"\x01\x02\x03" + data[-2:]  # "extraneous bytes before marker"
    assert np.array_equal(decode.decode(odd), decode.decode(data))
    with pytest.raises(UserError, match="damaged"):
        decode.decode(data[:700] + data[900:])


def test_huge_image_is_refused_before_decoding() -> None:
    # A PNG header of 20000 x 20000 with no pixels behind it: only a check before decoding can name its size.
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    with pytest.raises(UserError, match="20000 x 20000 = 400 million") as error:
        decode.decode(data, where="huge.png")
    assert "max_pixels=400000000" in error.value.fix


def test_cap_can_be_raised_and_lowered() -> None:
    data = encode(IMAGE, "PPM")
    with pytest.raises(UserError, match="80 x 60"):
        decode.decode(data, max_pixels=4799)
    assert decode.decode(data, max_pixels=4800).shape == (60, 80, 3)


def test_real_20000_square_jpeg_is_refused_quickly() -> None:
    data = simplejpeg.encode_jpeg(np.zeros((8, 8, 1), np.uint8), colorspace="GRAY")
    at = data.index(b"\xff\xc0")
    data = data[: at + 5] + struct.pack(">HH", 20000, 20000) + data[at + 9 :]
    with pytest.raises(UserError, match="400 million"):
        decode.decode(data)


def test_float_tiff_is_refused() -> None:
    with pytest.raises(UserError, match="float32"):
        decode.decode(encode(IMAGE.convert("F"), "TIFF"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("shrink", "factor"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8), (100, 8)])
def test_shrunk_images_are_the_image_made_smaller(kind: str, shrink: int, factor: int) -> None:
    data = encode(Image.fromarray(texture(121, 163)), kind)
    small = decode.decode(data, shrink=shrink)
    assert small.shape == (-(-121 // factor), -(-163 // factor), 3)
    whole = decode.decode(data)[: 121 // factor * factor, : 163 // factor * factor].astype(float)
    rows, columns = 121 // factor, 163 // factor
    means = whole.reshape(rows, factor, columns, factor, 3).mean(axis=(1, 3))
    assert np.abs(small[:rows, :columns] - means).mean() < 3
    assert decode.shrink_factor(shrink) == factor


def test_shrinking_minds_the_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encode(IMAGE, "JPEG", exif=exif)
    assert decode.decode(data, shrink=2).shape == (40, 30, 3)


def test_fast_decoding_is_nearly_the_same() -> None:
    data = encode(IMAGE, "JPEG", quality=92)
    assert np.abs(decode.decode(data, fast=True).astype(int) - decode.decode(data)).mean() < 3
