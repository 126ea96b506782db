"""Plans as rows of numbers, which go to the device in one copy: a row a sample, the same width for every sample.

A row holds `SAMPLE` numbers of the sample and `PIECE` numbers of each of five pieces: four of the sample's own, of
which a sample without mosaic has one, and its partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from eyas.data.augment.affine import FITTED, Cut
from eyas.data.augment.colour import Colours, matrices
from eyas.data.augment.config import AugmentPolicy
from eyas.data.augment.plan import Piece, Plan
from eyas.data.device.catalog import Catalog, Stored
from eyas.data.device.layout import column_of

Float64Array = npt.NDArray[np.float64]

# Of a sample: where the quadrants meet; the area; whether it is flipped; its part in a mixup (1: there is none); the
# partner's ground; the colour matrix in whole numbers; the exponent; the shifts of hue, saturation and value.
MIDDLE, AREA, FLIP, WEIGHT = slice(0, 2), slice(2, 4), 4, 5
GROUND, MATRIX, EXPONENT, SHIFTS = slice(6, 8), slice(8, 20), 20, slice(21, 24)
SAMPLE: Final = 24
# Of a piece: the pixel of the store at which its part begins; the part's width and height; the window and the target
# (x0, y0, x1, y1; of the canvas); whether it is mirrored; the part's x and y as a * column + b * row + c of the canvas.
START, STRIDE, HEIGHT, WINDOW, TARGET, MIRRORED, INVERSE = 0, 1, 2, slice(3, 7), slice(7, 11), 11, slice(12, 18)
PIECE: Final = 18
OWN, PIECES = 4, 5
WIDTH: Final = SAMPLE + PIECES * PIECE

COLOUR_BITS = 10  # OpenCV's colour transform counts in 1/1024
_FAR = (1 << 20, 1 << 20)  # beyond every canvas
_NO_COLOURS = Colours(np.zeros(7), swap=False, exponent=None, shifts=(0, 0, 0))


def encode(plans: Sequence[Plan[Stored]], catalog: Catalog, policy: AugmentPolicy) -> Float64Array:
    """Return the plans as rows, float64 [n, WIDTH]."""
    rows = np.zeros((len(plans), WIDTH))
    pieces = rows[:, SAMPLE:].reshape(len(plans), PIECES, PIECE)
    places = [(row, slot) for row, plan in enumerate(plans) for slot in _slots(plan)]
    numbers, slots = np.array(places).T
    flat = [piece for plan in plans for piece in plan.all_pieces()]
    pieces[numbers, slots] = _pieces(flat, catalog, bool(policy.degrees or policy.shear))
    rows[:, : MATRIX.start] = [_sample(plan) for plan in plans]
    colours = [plan.colours or _NO_COLOURS for plan in plans]
    rows[:, MATRIX] = _fixed(matrices(policy, colours)).reshape(-1, 12)
    rows[:, EXPONENT] = [1.0 if one.exponent is None else one.exponent for one in colours]
    rows[:, SHIFTS] = [one.shifts for one in colours]
    return rows


def _slots(plan: Plan[Stored]) -> list[int]:
    return [*range(len(plan.pieces)), *([OWN] if plan.mix is not None else [])]


def _sample(plan: Plan[Stored]) -> tuple[float, ...]:
    # Of one piece alone, everything lies left of and above where quadrants would meet.
    middle = plan.pieces[0].rectangle[2:] if len(plan.pieces) == OWN else _FAR
    weight, ground = (1.0, None) if plan.mix is None else (plan.mix.weight, plan.mix.ground)
    return (*middle, *plan.area, float(plan.flip), weight, *(ground or _FAR))


def _pieces(pieces: Sequence[Piece[Stored]], catalog: Catalog, turned: bool) -> Float64Array:
    """Return the numbers of pieces, float64 [p, PIECE]."""
    rows = np.zeros((len(pieces), PIECE))
    rows[:, STRIDE : INVERSE.start] = [_place(piece) for piece in pieces]
    columns = [column_of(piece.cut.level, piece.mirrored) for piece in pieces]
    rows[:, START] = catalog.starts[[piece.source.number for piece in pieces], columns]
    assert (rows[:, START] >= 0).all(), "a size was requested that the store does not hold"
    if turned:
        rows[:, INVERSE] = _inverses(pieces)
    return rows


def _place(piece: Piece[Stored]) -> tuple[float, ...]:
    """Return a piece's numbers from STRIDE to MIRRORED."""
    source, one = piece.source, piece.cut
    left, top = piece.rectangle[:2]
    x0, y0, x1, y1 = one.target
    if one.level == FITTED:
        width, height = one.window[2:]
    else:
        width, height = source.width >> one.level, source.height >> one.level
    return (width, height, *one.window, x0 + left, y0 + top, x1 + left, y1 + top, float(piece.mirrored))


def _inverses(pieces: Sequence[Piece[Stored]]) -> Float64Array:
    """Return how canvas pixels map to part pixels, both counted from centres: float64 [p, 6], two rows (a, b, c)."""
    matrices = np.stack([_matrix(piece.cut) for piece in pieces])
    linear = matrices[:, :2, :2] * 2.0 ** np.array([piece.cut.level for piece in pieces])[:, None, None]
    corners = np.array([piece.rectangle[:2] for piece in pieces], np.float64)
    # Edge coordinates e and centres c are related by e = c + 0.5.
    shift = matrices[:, :2, 2] + linear.sum(axis=2) * 0.5 - 0.5 + corners
    inverse = np.linalg.inv(linear)
    offset = -(inverse @ shift[:, :, None])
    found: Float64Array = np.concatenate([inverse, offset], axis=2).reshape(-1, 6)
    return found


def _matrix(one: Cut) -> Float64Array:
    plain = [[one.scale[0], 0, one.shift[0]], [0, one.scale[1], one.shift[1]], [0, 0, 1]]
    return np.asarray(plain if one.matrix is None else one.matrix, np.float64)


def _fixed(matrix: npt.NDArray[np.float32]) -> Float64Array:
    """Return colour matrices, [n, 3, 4], in the whole numbers that OpenCV makes of them for 8-bit images."""
    scale = np.float32(1 << COLOUR_BITS)
    fixed = matrix * scale
    fixed[:, :, 3] = (matrix[:, :, 3] + np.float32(0.5)) * scale
    return np.asarray(np.rint(fixed), np.float64)
