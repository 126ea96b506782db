"""A compiled file's own inputs and outputs held against its manifest, before anything is run, and what a run gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from eyas.artifacts.manifest import Manifest
from eyas.errors import UserError
from eyas.runtime.sessions.base import INPUT, OUTPUTS
from eyas.types import FloatArray

Shape = Sequence[int | None]  # None where a side is known only when the graph runs
Tensors = Mapping[str, tuple[str, Shape]]  # name -> type ("uint8", "float32"), shape

_BOXES, _SCORES = OUTPUTS
_FLOATS = ("float32", "float16", "bfloat16")


def check_graph(inputs: Tensors, outputs: Tensors, manifest: Manifest, path: Path) -> None:
    """Refuse a compiled file that takes or gives something else than its manifest says.

    Args:
        inputs, outputs: what the file says of itself.
        manifest: the bundle's.
        path: the file, for the error.

    Raises:
        UserError: a tensor is missing or one too many, or is of another type or shape.
    """
    spec, classes = manifest.input, len(manifest.classes)
    sides = (spec.height, spec.width) if manifest.sizes is None else (None, None)
    _compare("takes", inputs, {INPUT: (("uint8",), (None, *sides, 3))}, path)
    _compare("gives", outputs, {_BOXES: (_FLOATS, (None, None, 4)), _SCORES: (_FLOATS, (None, None, classes))}, path)
    batch, rows = inputs[INPUT][1][0], [outputs[name][1][1] for name in OUTPUTS]
    if batch is not None and (batch, batch) != manifest.batch:
        raise _differs(f"takes {batch} images at once", "{} to {}".format(*manifest.batch), path)
    for side in inputs[INPUT][1][1:3]:
        if manifest.sizes is not None and side is not None:
            raise _differs(f"takes only images of {side} pixels", "{} to {}".format(*manifest.sizes), path)
    known = [each for each in rows if each is not None]
    if len(set(known)) > 1 or any(each > manifest.candidates for each in known):
        raise _differs(f"returns {' and '.join(map(str, known))} candidates", f"at most {manifest.candidates}", path)


def _compare(verb: str, found: Tensors, wanted: Mapping[str, tuple[tuple[str, ...], Shape]], path: Path) -> None:
    """Raise a UserError unless the tensors have these names, types and shapes."""
    if set(found) != set(wanted):
        raise _differs(f"{verb} the tensors {_named(found)}", " and ".join(wanted), path)
    for name, (dtypes, shape) in wanted.items():
        dtype, own = found[name]
        fits = len(own) == len(shape) and all(
            side is None or other is None or side == other for side, other in zip(own, shape, strict=True)
        )
        if dtype not in dtypes or not fits:
            raise _differs(f"{verb} {name} as {dtype} {_told(own)}", f"{dtypes[0]} {_told(shape)}", path)


def _named(found: Tensors) -> str:
    names = ", ".join(ascii(name[:40])[1:-1] for name in list(found)[:8]) or "without a name"
    return names + (", ..." if len(found) > 8 else "")


def _told(shape: Shape) -> str:
    return f"[{', '.join('?' if side is None else str(side) for side in shape)}]"


def _differs(problem: str, expected: str, path: Path) -> UserError:
    """Return the error for a file that is not what its manifest says."""
    return UserError(
        f"{path.name} {problem}, which does not match the bundle's manifest.",
        expected=expected,
        where=str(path),
        fix="compile the run again",
    )


def check_results(boxes: FloatArray, scores: FloatArray, num: int, classes: int) -> None:
    """Refuse what an engine gave for `num` images if its shape is another one: labels would name wrong classes.

    Raises:
        UserError: boxes are not [N, K, 4], or scores not [N, K, C].
    """
    rows = boxes.shape[1] if boxes.ndim == 3 else None
    if boxes.shape != (num, rows, 4) or scores.shape != (num, rows, classes):
        raise UserError(
            f"The network returned boxes {list(boxes.shape)} and scores {list(scores.shape)} for {num} image(s).",
            expected=f"[{num}, K, 4] and [{num}, K, {classes}]: a score for each of the {classes} classes",
            fix="compile the run again",
        )


def does_not_run(engine: str, error: Exception) -> UserError:
    """Return the error for a graph that fails on images of the size that it is said to take."""
    words = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"{engine} can't run the network: {words[-1][:500]}", fix="compile the run again")
