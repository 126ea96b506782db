"""Thousands of hostile files of every kind: each is refused or has the size that was read, in bounded memory."""

from __future__ import annotations

import contextlib
import io
import json
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from PIL import Image
from tests.hostile import seeds

from eyas import decode, decode_apart
from eyas.errors import UserError
from eyas.image_header import parse_header

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded and measured by Linux's means")
MAX_PIXELS = 1_000_000

SWEEP = """
import json, resource, sys
from tests.hostile import mutants, seeds
from eyas import decode, decode_apart
from eyas.errors import UserError

def peak(who=resource.RUSAGE_SELF):
    return resource.getrusage(who).ru_maxrss / 1024

num, random_seed, most = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))  # for the machine's sake, should a bound be missing
for data in seeds().values():
    decode.decode(data)
faults, tried, decoded, before = [], 0, 0, peak()
for name, seed in seeds().items():
    for what, data in mutants(seed, num, random_seed):
        tried += 1
        try:
            image = decode.decode(data, max_pixels=most)
            decoded += 1
            if image.shape[0] * image.shape[1] > most or image.shape[:2] != decode.image_size(data):
                faults.append(f"{name}, {what}: {image.shape}")
        except UserError as error:
            if "memory than there is" in str(error):
                faults.append(f"{name}, {what}: {error}")
        except Exception as error:
            faults.append(f"{name}, {what}: {error!r}")
        if peak() > before + 16:
            faults.append(f"{name}, {what}: {peak() - before:.0f} MB")
            before = peak()
decode_apart._end()
print(json.dumps([tried, decoded, faults, peak(resource.RUSAGE_CHILDREN)]))
"""


def test_the_seeds_are_whole_images() -> None:
    kinds = set()
    for name, data in seeds().items():
        header = parse_header(data)
        assert header is not None, name
        kinds.add(header.kind)
        assert decode.decode(data, where=name).shape[:2] == header.size
    assert len(kinds) == 9


@linux
@pytest.mark.parametrize("random_seed", [1, 2])
def test_a_sweep_of_hostile_headers(random_seed: int) -> None:
    command = [sys.executable, "-c", SWEEP, "24", str(random_seed), str(MAX_PIXELS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""  # the decoders' own chatter is kept quiet
    tried, decoded, faults, helper = json.loads(done.stdout)
    assert faults == []
    assert tried > 1500 and 100 < decoded < tried * 0.8  # the files are hostile, and not all plain rubbish
    assert helper < 100 + (decode_apart.BYTES + decode_apart.BYTES_A_PIXEL * MAX_PIXELS) / 2**20


# ------------------------------------------------------------------------------------------- made by hand, one a kind


def saved(kind: str, image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


SMALL = Image.new("RGB", (64, 48), (200, 10, 30))
HUGE = struct.pack(">II", 20000, 20000)


def box(name: bytes, body: bytes) -> bytes:
    """Return a box of an AVIF or JPEG 2000 file."""
    return struct.pack(">I", 8 + len(body)) + name + body


def after_first_box(data: bytes, inserted: bytes) -> bytes:
    """Return the file with something behind its first box, and the 'iloc' offsets not minded."""
    end = int.from_bytes(data[:4], "big")
    return data[:end] + inserted + data[end:]


def jpeg2000(stream: bytes = b"", header: bytes = b"", free: bytes = b"") -> bytes:
    """Return a small JPEG 2000 file with other sides in its code stream or header box, and a free box before them."""
    data = saved("JPEG2000", SMALL)
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data = data[:at] + (stream or data[at : at + 8]) + data[at + 8 :]
    at = data.index(b"ihdr") + 4
    data = data[:at] + (header or data[at : at + 8]) + data[at + 8 :]
    end = 12 + int.from_bytes(data[12:16], "big")  # behind the signature and the file type
    return data[:end] + (box(b"free", free) if free else b"") + data[end:]


def avif(size: bytes, image: Image.Image = SMALL) -> bytes:
    """Return an AVIF file with another size for its primary item."""
    data = saved("AVIF", image, speed=10)
    at = data.index(b"ispe") + 8
    return data[:at] + size + data[at + 8 :]


def tiff(*tags: tuple[int, int, int]) -> bytes:
    """Return a one-strip TIFF of 8 x 8 grey pixels with more entries, (tag, type, value), before its own."""
    own = [(256, 3, 8), (257, 3, 8), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1), (279, 4, 64)]
    rows = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in sorted([*own, *tags]))
    return b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", len(own) + len(tags)) + rows + bytes(4)


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def stream(width: int, height: int) -> bytes:
    return b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(40)


def extended(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def in_jpeg(inserted: bytes) -> bytes:
    """Return a JPEG with something before its first scan."""
    data = saved("JPEG", SMALL)
    at = data.index(b"\xff\xda")
    return data[:at] + inserted + data[at:]


FRAME = segment(0xC0, struct.pack(">BHHB", 8, 20000, 20000, 1) + b"\1\x11\0")
TWO_SIZES = {
    "webp, raw stream": b"RIFF" + struct.pack("<I", 52) + b"WEBP" + stream(16383, 16383),
    "webp, unknown chunk before a raw stream": webp((b"JUNK", bytes(4))) + stream(16383, 16383),
    "webp, canvas and image": webp(extended(64, 48), (b"VP8L", stream(16383, 16383))),
    "webp, two images": webp(extended(64, 48), (b"VP8L", stream(64, 48)), (b"VP8L", stream(16383, 16383))),
    "webp, image behind its end": webp(extended(64, 48)) + b"VP8L\x2d\0\0\0" + stream(16383, 16383),
    "webp, frame outside": webp(
        extended(64, 48, 2), (b"ANIM", bytes(6)),
        (b"ANMF", bytes(6) + 2 * (16382).to_bytes(3, "little") + bytes(4) + b"VP8L\x2d\0\0\0" + stream(16383, 16383)),
    ),
    "webp, frame's stream": webp(
        extended(64, 48, 2), (b"ANIM", bytes(6)), (b"ANMF", bytes(16) + b"VP8L\x2d\0\0\0" + stream(16383, 16383)),
    ),
    "jpeg2000, header box": jpeg2000(header=struct.pack(">II", 9, 9)),
    "jpeg2000, code stream": jpeg2000(stream=HUGE),
    "jpeg2000, both, a small one in a free box": jpeg2000(HUGE, HUGE, b"ihdr" + struct.pack(">II", 9, 9)),
    "avif, a small one in a free box": after_first_box(avif(HUGE), box(b"free", b"ispe" + bytes(7) + b"\x09" * 5)),
    "avif, huge frame under a small size": avif(struct.pack(">II", 64, 48), Image.new("RGB", (6000, 6000))),
    "tiff, width twice": tiff((256, 4, 20000)),
    "tiff, height twice": tiff((257, 4, 20000)),
    "tiff, rows of a strip twice": tiff((278, 4, 8), (278, 4, 20000)),
    "jpeg, two frames": in_jpeg(FRAME),
    "jpeg, segment of length 0": b"\xff\xd8\xff\xe0\0\0" + FRAME + saved("JPEG", SMALL)[2:],
    "pnm, comment ended by a carriage return": b"P5 #\r20000 20000 \n 8 8 255\n" + bytes(64),
    "pam, width twice": b"P7\nWIDTH 8\nWIDTH 20000\nHEIGHT 8\nDEPTH 1\nMAXVAL 255\nENDHDR\n" + bytes(64),
    "bmp, header of 20 bytes": b"BM" + struct.pack("<IHHIIii", 100, 0, 0, 54, 20, 8, 8) + bytes(64),
}  # fmt: skip


@pytest.mark.parametrize("name", TWO_SIZES)
def test_what_two_readers_disagree_on_is_refused(name: str) -> None:
    with pytest.raises(UserError):
        decode.decode(TWO_SIZES[name], max_pixels=100_000)


GOOD = {
    "jpeg2000, a size in a free box": (jpeg2000(free=b"ihdr" + HUGE), (48, 64)),
    "jpeg, a frame header in a comment": (in_jpeg(segment(0xFE, FRAME)), (48, 64)),
    "jpeg, a thumbnail": (in_jpeg(segment(0xED, saved("JPEG", SMALL.resize((16, 12))))), (48, 64)),
    "tiff, a tag of no weight twice": (tiff((305, 3, 1), (305, 3, 2)), (8, 8)),
    "pnm, comments": (b"P5 # 1 1\n#2 2\r\n8 8\n255\n" + bytes(64), (8, 8)),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_size_where_no_reader_looks_changes_nothing(name: str) -> None:
    data, size = GOOD[name]
    assert decode.decode(data, max_pixels=10_000).shape[:2] == size == decode.image_size(data)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*extra: bytes, rows: int = 48, pixels: bytes = b"") -> bytes:
    """Return a PNG of 64 x 48 with chunks between the header and the pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 48, 8, 2, 0, 0, 0))
    packed = pixels or zlib.compress(bytes((1 + 3 * 64) * rows))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


PROFILE = chunk(b"iCCP", b"sRGB\0\0" + zlib.compress(b"no profile" * 20))
TEXT = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(7_900_000), 9))

MEASURE = """
import resource, sys
from eyas import decode
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
decode.read_image(sys.argv[1])
before = peak()
print(decode.read_image(sys.argv[2]).shape, peak() - before)
"""


@linux
def test_texts_and_profiles_of_a_png_are_not_unpacked(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("png")
    (folder / "small.png").write_bytes(png())
    (folder / "bomb.png").write_bytes(png(PROFILE, *[TEXT] * 50))  # 400 MB
    command = [sys.executable, "-c", MEASURE, str(folder / "small.png"), str(folder / "bomb.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.startswith("(48, 64, 3) ") and float(done.stdout.split()[-1]) < 50


CHATTER: dict[str, Callable[[], bytes]] = {
    "a known bad profile": lambda: png(PROFILE),
    "wrong bits": lambda: png(chunk(b"sBIT", bytes(9))),
    "wrong transparency": lambda: png(chunk(b"tRNS", bytes(9))),
    "wrong palette": lambda: png(chunk(b"PLTE", bytes(10))),
    "too many rows": lambda: png(rows=60),
    "too few rows": lambda: png(rows=20),
    "damaged pixels": lambda: png(pixels=b"\x78\x9c" + bytes(50)),
    "unknown critical chunk": lambda: png(chunk(b"ABCD", b"x")),
    "broken jpeg": lambda: saved("JPEG", SMALL)[:-40] + bytes(30) + b"\xff\xd9",
    "broken tiff": lambda: tiff((50000, 77, 5), (259, 3, 7)),
    "broken jpeg2000": lambda: saved("JPEG2000", SMALL)[:-60],
    "broken avif": lambda: saved("AVIF", SMALL)[:-30] + bytes(30),
    "broken webp": lambda: saved("WEBP", SMALL)[:-30] + bytes(30),
}


@pytest.mark.parametrize("name", CHATTER)
def test_no_library_writes_to_the_terminal(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(UserError):
        assert decode.decode(CHATTER[name]()).ndim == 3
    assert capfd.readouterr() == ("", "")


FRAMES = [Image.new("RGB", (64, 48), colour) for colour in ("black", "blue")]


def test_chunks_that_change_pixels_are_kept() -> None:
    palette = SMALL.quantize(4)
    kept = decode.decode(saved("PNG", palette, transparency=0))
    assert kept[0, 0].tolist() == [255, 255, 255]  # the one colour there is, made transparent
    animation = saved("PNG", SMALL, save_all=True, append_images=FRAMES, default_image=True)
    assert decode.decode(animation)[0, 0].tolist() == [0, 0, 0]  # the first frame, not the image in its place


def progressive(width: int, height: int, more: int) -> bytes:
    """Return a progressive JPEG whose last scan comes `more` times more."""
    data = saved("JPEG", Image.new("L", (width, height)), progressive=True)
    at = data.rindex(b"\xff\xda")
    return data[:at] + data[at:-2] * (more + 1) + data[-2:]


@pytest.mark.parametrize(("side", "more"), [(16, 200), (10_000, 30)])
def test_a_jpeg_of_many_scans_is_refused_by_its_header(side: int, more: int) -> None:
    with pytest.raises(UserError, match="scans"):
        decode.decode(progressive(side, side, more))


def test_ordinary_progressive_jpegs_pass() -> None:
    assert decode.decode(progressive(64, 48, 0)).shape == (48, 64, 3)
