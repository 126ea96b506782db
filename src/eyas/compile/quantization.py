"""How a network is quantized, apart from any engine: `quantization.json`, found by calibration or by training.

It speaks of the run's modules, not of a graph, so one and the same artefact is written into the dialect of every
engine, at any batch and size. Paths are those of the run's network as `eyas.compile.graph.load_net` gives it: every
BatchNorm and branch folded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eyas.errors import UserError
from eyas.files import read_json, write_json

QUANTIZATION = "quantization.json"
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
            raise UserError(f"The range {low:g} to {high:g} does not hold zero, or is not finite.", where="input")
        if not self.weights or not all(math.isfinite(step) and step > 0 for step in self.weights):
            raise UserError("A weight's step is not a positive number.", where="weights")
        if self.bits not in LARGEST:
            raise UserError(f"Weights of {self.bits} bits are not known.", expected="7 or 8", where="bits")

    def narrowed(self, bits: int) -> QuantizedConvolution:
        """Return it with weights of at most so many bits, over the same range."""
        if self.bits <= bits:
            return self
        factor = LARGEST[self.bits] / LARGEST[bits]
        return replace(self, weights=tuple(step * factor for step in self.weights), bits=bits)


@dataclass(frozen=True)
class Quantization:
    """What is quantized, and how.

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


def write_quantization(folder: Path, quantization: Quantization) -> Path:
    """Write `quantization.json` into a run's folder and return its path; the run's card must list it."""
    path = folder / QUANTIZATION
    fields = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "made": dict(quantization.made),
        "kept": list(quantization.kept),
        "convolutions": {name: asdict(one) for name, one in quantization.convolutions.items()},
        "activations": {name: list(limits) for name, limits in quantization.activations.items()},
    }
    write_json(path, fields)
    return path


def read_quantization(folder: Path) -> Quantization | None:
    """Return what `quantization.json` in the folder says, None where there is none.

    Raises:
        UserError: it is not one, or was written by a newer Eyas.
    """
    path = folder / QUANTIZATION
    if not path.is_file():
        return None
    fields = read_json(path)
    if not isinstance(fields, dict) or fields.get("format") != FORMAT:
        raise UserError(f"{QUANTIZATION} is not a quantization.", where=str(path), expected=f'"format": "{FORMAT}"')
    if fields.get("version") != FORMAT_VERSION:
        raise UserError(
            f"{QUANTIZATION} has format {fields.get('version')}, this Eyas reads {FORMAT_VERSION}.",
            where=str(path),
            fix="pip install --upgrade eyas",
        )
    try:
        return Quantization(
            convolutions={
                name: QuantizedConvolution(_limits(one["input"]), tuple(map(float, one["weights"])), int(one["bits"]))
                for name, one in fields["convolutions"].items()
            },
            activations={name: _limits(one) for name, one in fields["activations"].items()},
            kept=tuple(fields["kept"]),
            made=fields["made"],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{QUANTIZATION} is not valid: {type(error).__name__}: {error}.", where=str(path), fix="make it again"
        ) from None


def _limits(values: Any) -> Limits:
    """Return (low, high) of a list of two numbers."""
    low, high = values
    return float(low), float(high)
