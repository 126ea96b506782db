"""Images in every form that a caller may hold: paths, addresses, bytes, files, arrays, PIL images, torch tensors.

PIL and torch are never imported here: who holds one of their objects has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, Union, runtime_checkable

import numpy as np

from eyas.decode import MAX_PIXELS, check_pixels, decode, read_image, upright
from eyas.errors import UserError
from eyas.opencv_images import to_rgb
from eyas.runtime.download import fetch_image, is_address
from eyas.runtime.preprocess import checked_image
from eyas.types import UInt8Array

if TYPE_CHECKING:
    import torch


@runtime_checkable
class File(Protocol):
    """Whatever bytes can be read from: an open file, a BytesIO, a member of an archive."""

    def read(self) -> bytes:
        """Return what is left of it."""
        ...


class PilImage(Protocol):
    """What is used of a `PIL.Image.Image`; the package itself may not be there."""

    @property
    def mode(self) -> str:
        """Return how its pixels are stored."""
        ...

    @property
    def height(self) -> int:
        """Return its height in pixels."""
        ...

    @property
    def width(self) -> int:
        """Return its width in pixels."""
        ...

    info: Any  # what its file said beside the pixels

    def convert(self, mode: str, /) -> Any:
        """Return it with its pixels stored otherwise."""
        ...

    def getexif(self) -> Any:
        """Return its EXIF tags."""
        ...


Image: TypeAlias = Union[  # with names in quotes, `|` fails when the module is run
    str, PathLike[str], bytes, bytearray, memoryview, File, UInt8Array, PilImage, "torch.Tensor"
]

_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})  # of PIL's modes
FORMS = (
    "a path, an http address, the bytes of an image file, an open file, a uint8 array [height, width, 3] in RGB, a "
    "PIL image or a torch tensor; or a list or iterator of these"
)


def is_image(value: object) -> TypeGuard[Image]:
    """Return whether the value is one image, not several, as far as its type says."""
    known = isinstance(value, str | PathLike | bytes | bytearray | memoryview | np.ndarray | File)
    return known or _is_of(value, "PIL.Image", "Image") or _is_of(value, "torch", "Tensor")


def is_many(value: object) -> TypeGuard[Iterable[Any]]:
    """Return whether the value gives one image after another in an order that it keeps."""
    return isinstance(value, Iterable) and not isinstance(value, Mapping | AbstractSet) and not is_image(value)


def not_an_image(value: object, where: str = "") -> UserError:
    """Return the error for what is no image."""
    kind = type(value).__name__
    fix = "detector(list(images)), in a defined order" if isinstance(value, AbstractSet) else ""
    if isinstance(value, Mapping):
        fix = "detector(list(images.values()))"
    return UserError(f"An image is given as {kind}.", expected=FORMS, where=where, fix=fix)


def read_one(value: Image, max_pixels: int = MAX_PIXELS, where: str = "") -> UInt8Array:
    """Return the image as uint8 [H, W, 3] RGB.

    Args:
        value: the image, in any of its forms.
        max_pixels: one with more pixels is refused before it is decoded.
        where: which of several it is, for the error.

    Raises:
        UserError: it can't be read, or is of another type or shape; says how to convert it.
    """
    try:
        return _read(value, max_pixels)
    except UserError as error:
        if error.where or not where:
            raise
        raise UserError(error.problem, expected=error.expected, where=where, fix=error.fix) from error.__cause__


def _read(value: Any, max_pixels: int) -> UInt8Array:
    """Return the image; see `read_one`."""
    if isinstance(value, bytes | bytearray | memoryview):
        return decode(bytes(value), max_pixels=max_pixels)
    if isinstance(value, np.ndarray):
        return checked_image(value)
    if _is_of(value, "torch", "Tensor"):
        return _from_tensor(value)
    if _is_of(value, "PIL.Image", "Image"):
        return _from_pil(value, max_pixels)
    if isinstance(value, str | PathLike):
        path = fspath(value)
        if isinstance(path, bytes):
            raise UserError("A path is given as bytes.", expected="a str or Path", fix="os.fsdecode(path)")
        if is_address(path):
            return decode(fetch_image(path), max_pixels=max_pixels, where=path)
        return read_image(path, max_pixels=max_pixels)
    if isinstance(value, File):
        return _from_file(value, max_pixels)
    raise not_an_image(value)


def _is_of(value: object, module: str, name: str) -> bool:
    imported = sys.modules.get(module)  # None, too, where somebody forbids its import
    kind = vars(imported).get(name) if imported is not None else None
    return isinstance(kind, type) and isinstance(value, kind)


def _from_file(file: File, max_pixels: int) -> UInt8Array:
    """Read what is left of an open file."""
    name = getattr(file, "name", "")
    where = name if isinstance(name, str) else ""
    try:
        data: object = file.read()
    except (OSError, ValueError, TypeError) as error:  # closed, write-only, or no such file at all
        raise UserError(f"The file can't be read: {error}.", where=where) from None
    if isinstance(data, str):
        raise UserError("The file was opened as text.", where=where, fix='open(path, "rb")')
    if not isinstance(data, bytes | bytearray | memoryview):
        raise UserError(f"The file returns {type(data).__name__} instead of bytes.", where=where)
    if not data:
        raise UserError("The file has no data left to read.", where=where, fix="file.seek(0) before passing it")
    return decode(bytes(data), max_pixels=max_pixels, where=where)


def _from_pil(image: PilImage, max_pixels: int) -> UInt8Array:
    """Return a PIL image's pixels as those of its file would be: upright, alpha over white, 16 bits scaled."""
    check_pixels(image.height, image.width, max_pixels, "")
    if image.mode in ("I", "F"):
        raise UserError(
            f"The value range of the PIL mode {image.mode} is unknown.",
            expected="8 or 16 bits per channel, unsigned",
            fix='image.point(lambda x: x * factor).convert("L"), with suitable contrast',
        )
    try:
        orientation = image.getexif().get(0x0112, 1)
        if image.mode.startswith("I;16"):
            pixels = to_rgb(np.asarray(image).astype(np.uint16))
        elif image.mode in _WITH_ALPHA or "transparency" in image.info:
            pixels = to_rgb(np.asarray(image.convert("RGBA"))[..., [2, 1, 0, 3]])
        else:
            pixels = np.array(image.convert("RGB"), np.uint8)
    except Exception as error:  # it may be read from its file only now, and its reader raise anything
        raise UserError(f"The PIL image can't be read: {error}.") from error
    return upright(pixels, orientation if orientation in range(1, 9) else 1)


def _from_tensor(tensor: torch.Tensor) -> UInt8Array:
    """Return a tensor's pixels: uint8 or 0..1, RGB, [3, H, W] or [H, W, 3], whichever has the 3."""
    shape = list(tensor.shape)
    given = f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
    if len(shape) == 4:
        raise _bad_tensor(given, "pass a batch as a list of images: detector(list(batch))")
    if len(shape) != 3 or 3 not in (shape[0], shape[2]):
        raise _bad_tensor(given, "grey: tensor.expand(3, -1, -1); with alpha: tensor[:3]")
    if shape[0] == shape[2]:
        raise _bad_tensor(given, "the layout is ambiguous: pass a uint8 array, which is always [height, width, 3]")
    if tensor.is_meta:
        raise _bad_tensor(f"{given} without data, on the device 'meta'", "")
    if str(tensor.layout) != "torch.strided":
        raise _bad_tensor(f"{given} with the layout {tensor.layout}", "tensor.to_dense()")
    array = tensor.detach().cpu()
    if tensor.is_floating_point():
        values = array.float().numpy()
        if not (values.size and float(values.min()) >= 0.0 and float(values.max()) <= 1.0):  # NaN fails too
            raise _bad_tensor(given, "its values are not from 0 to 1: undo the normalization, or pass uint8")
        pixels = np.rint(values * 255).astype(np.uint8)
    elif given.startswith("uint8"):
        pixels = array.numpy()
    else:
        raise _bad_tensor(given, "tensor.to(torch.uint8), if its values are from 0 to 255")
    return checked_image(np.ascontiguousarray(pixels.transpose(1, 2, 0) if shape[0] == 3 else pixels))


def _bad_tensor(given: str, fix: str) -> UserError:
    expected = "a torch tensor [3, height, width] or [height, width, 3], RGB, uint8 or float from 0 to 1"
    return UserError(f"An image is given as a tensor {given}.", expected=expected, fix=fix)


def batches(images: Iterable[Any], size: int, read: Callable[[Any, str], UInt8Array]) -> Iterator[list[UInt8Array]]:
    """Yield the images `size` at a time, read only when they are asked for.

    Args:
        images: whatever `read` takes.
        size: how many at once, the last time fewer.
        read: gives an image's pixels, from the image and its place for the error.
    """
    group: list[UInt8Array] = []
    for number, image in enumerate(images):
        group.append(read(image, f"images[{number}]"))
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
