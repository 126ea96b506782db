"""What is done to a sample, as numbers: which images go where, in which colours. Drawn before any pixel is touched.

Both ways to make batches follow the same plan: on the processor (`eyas.data.augment.augmenter`), and on a GPU that
holds the images (`eyas.data.device`). So a sample is the same function of seed, epoch and index on both.
"""

from __future__ import annotations

from typing import Generic, NamedTuple, Protocol, TypeVar

from eyas.data.augment.affine import Cut, Rectangle
from eyas.data.augment.colour import Colours


class Original(Protocol):
    """What a plan must know of an image."""

    @property
    def height(self) -> int:
        """Height of its pixels as they are in memory."""

    @property
    def width(self) -> int:
        """Width of its pixels as they are in memory."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image file."""


Image = TypeVar("Image", bound=Original)


class Piece(NamedTuple, Generic[Image]):
    """An image in its rectangle of the canvas.

    Attributes:
        source: the image.
        rectangle: in pixels of the canvas.
        cut: how it fills the rectangle.
        mirrored: left and right of the image are changed first.
    """

    source: Image
    rectangle: Rectangle
    cut: Cut
    mirrored: bool = False


class Mix(NamedTuple, Generic[Image]):
    """A partner that shines through.

    Attributes:
        piece: the partner on a canvas of its own.
        weight: the sample's part; the partner's is 1 - weight.
        ground: (height, width) of the part in the upper left of the partner's canvas that is padding where the partner
            is not; the rest is black. None: all is padding.
    """

    piece: Piece[Image]
    weight: float
    ground: tuple[int, int] | None = None


class Plan(NamedTuple, Generic[Image]):
    """A sample. In the frame it is put together, mixed, coloured, flipped; in the image coloured, flipped, mixed.

    Attributes:
        pieces: the images in their rectangles, which do not overlap: four of a mosaic, else one.
        area: (height, width) of the part in the canvas's upper left that colours, flip and mixup change.
        mix: the partner, if there is one.
        colours: their change, if there is one.
        flip: left and right are changed.
    """

    pieces: tuple[Piece[Image], ...]
    area: tuple[int, int]
    mix: Mix[Image] | None
    colours: Colours | None
    flip: bool

    def all_pieces(self) -> tuple[Piece[Image], ...]:
        """Return the pieces, the partner's last."""
        return self.pieces if self.mix is None else (*self.pieces, self.mix.piece)
