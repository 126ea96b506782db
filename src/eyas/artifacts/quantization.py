"""How a network is quantized, apart from any engine: `quantization.json`, found by calibration or by training.

It speaks of the run's modules, not of a graph, so one and the same artefact is written into the dialect of every
engine, at any batch and size. Paths are those of the run's network as `eyas.export.graph.load_net` gives it: every
BatchNorm and branch folded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.artifacts.card import CARD, Card
from eyas.artifacts.layout import QUANTIZATION
from eyas.checks import check_text, shown
from eyas.errors import UserError
from eyas.files import read_json, write_json
from eyas.types import checked_fields

MAX_BYTES = 256 * 2**20
FORMAT = "eyas-quantization"
FORMAT_VERSION = 1
# Bits of a weight -> the largest integer. 64 instead of 63: two products of it with 255 just fit into 16 bits.
LARGEST: Mapping[int, int] = MappingProxyType({8: 127, 7: 64})
Limits = tuple[float, float]


@dataclass(frozen=True)
class QuantizedConvolution:
    """The numbers of a convolution in INT8.

    Attributes:
        input: (low, high) of what it takes; zero lies within. All that take one tensor have the same.
        weights: the step of each output channel's weights, which are symmetric around zero.
        bits: of a weight, 7 or 8.
    """

    input: Limits
    weights: tuple[float, ...]
    bits: int = 8

    def __post_init__(self) -> None:
        """Refuse numbers that are none."""
        low, high = self.input
        if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high):
            raise UserError(f"The range {low:g} to {high:g} does not contain zero or is not finite.", where="input")
        if not self.weights or not all(math.isfinite(step) and step > 0 for step in self.weights):
            raise UserError("A weight scale is not a positive number.", where="weights")
        if isinstance(self.bits, bool) or not isinstance(self.bits, int) or self.bits not in LARGEST:
            raise UserError(f"Weights of {shown(self.bits)} bits are not supported.", expected="7 or 8", where="bits")

    def narrowed(self, bits: int) -> QuantizedConvolution:
        """Return it with weights of at most so many bits, over the same range."""
        if self.bits <= bits:
            return self
        factor = LARGEST[self.bits] / LARGEST[bits]
        return replace(self, weights=tuple(step * factor for step in self.weights), bits=bits)


@dataclass(frozen=True)
class Quantization:
    """The quantized modules and their parameters.

    Attributes:
        convolutions: path of the module -> its numbers.
        activations: "MODULE/OPERATOR" -> (low, high) of what this operator gives, for tensors that no convolution
            takes: some engines want sums and products in INT8 as well.
        kept: paths of the convolutions that stay in float.
        made: how it was found, free-form JSON.
    """

    convolutions: Mapping[str, QuantizedConvolution]
    activations: Mapping[str, Limits] = field(default_factory=dict)
    kept: tuple[str, ...] = ()
    made: Mapping[str, Any] = field(default_factory=dict)

    def narrowed(self, bits: int) -> Quantization:
        """Return it with weights of at most so many bits, over the same ranges."""
        return replace(self, convolutions={name: one.narrowed(bits) for name, one in self.convolutions.items()})

    @classmethod
    def read(cls, folder: Path) -> Quantization | None:
        """Return the content of `quantization.json` in the folder, None if there is none.

        Raises:
            UserError: it is not one, or was written by a newer Eyas.
        """
        path = folder / QUANTIZATION
        if not path.is_file():
            return None
        fields = read_json(path, max_bytes=MAX_BYTES, strict=True)
        if not isinstance(fields, dict) or fields.pop("format", None) != FORMAT:
            raise UserError(
                f"{QUANTIZATION} is not a quantization file.", where=str(path), expected=f'"format": "{FORMAT}"'
            )
        version = fields.pop("version", None)
        if version != FORMAT_VERSION:
            raise UserError(
                f"{QUANTIZATION} has format {shown(version)}; this Eyas reads {FORMAT_VERSION}.",
                where=str(path),
                fix="pip install --upgrade eyas",
            )
        fields = checked_fields(cls, fields, str(path))
        try:
            return cls(
                convolutions={name: _convolution(one) for name, one in fields["convolutions"].items()},
                activations={name: _limits(one) for name, one in fields["activations"].items()},
                kept=tuple(check_text("A module's path", name, str(path)) for name in _list(fields["kept"])),
                made=dict(fields["made"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{QUANTIZATION} is not valid: {type(error).__name__}: {error}.", where=str(path), fix="create it again"
            ) from None

    def write(self, folder: Path) -> Path:
        """Write `quantization.json` into a run's folder and return its path; the run's card must list it.

        `Card.extend` has it listed. Compiling refuses one that is not: nobody knows who made it.
        """
        path = folder / QUANTIZATION
        fields = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "made": dict(self.made),
            "kept": list(self.kept),
            "convolutions": {name: asdict(one) for name, one in self.convolutions.items()},
            "activations": {name: list(limits) for name, limits in self.activations.items()},
        }
        write_json(path, fields)
        return path


def check_listed(run: Path) -> None:
    """Raise a UserError if a run carries a quantization that its card, where there is one, does not list."""
    if (run / CARD).is_file() and (run / QUANTIZATION).is_file() and QUANTIZATION not in Card.read(run).files:
        raise UserError(
            f"{QUANTIZATION} is not listed in the run's card: it was added by hand.",
            where=str(run),
            fix="remove it, or write a new card that lists it",
        )


def _convolution(fields: object) -> QuantizedConvolution:
    values = checked_fields(QuantizedConvolution, fields, "convolutions")
    return QuantizedConvolution(
        _limits(values["input"]), tuple(map(_number, _list(values["weights"]))), values.get("bits", 8)
    )


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"{shown(value)} is not a list")
    return value


def _number(value: object) -> float:
    """Return a value that is a number; whether it makes sense is the artefact's own to say."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{shown(value)} is not a number")
    return float(value)


def _limits(values: object) -> Limits:
    low, high = map(_number, _list(values))
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"{low:g} to {high:g} is not a range")
    return low, high
