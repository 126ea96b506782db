"""The targets: what each one can do, and where its builder is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import get_args

from eyas.artifacts.manifest import Precision, Target
from eyas.errors import UserError, row_of, suggest
from eyas.renamed import tell
from eyas.types import InputSpec

Range = tuple[int, int]


@dataclass(frozen=True)
class Sides:
    """A fixed input whose sides need not be equal, in pixels; as text "640x480", width first."""

    width: int
    height: int

    def __str__(self) -> str:
        """Return it as a person writes it."""
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class TargetInfo:
    """What is known of a target.

    Attributes:
        engine: the session that runs it.
        module: its builder `build(graph, plan, out_dir)`.
        package: what must be installed for building, and the extra that brings it.
        precisions: what it can be asked for.
        typed: whether half precision must be in the graph; else it is a hint to the engine.
    """

    engine: Target
    module: str
    package: tuple[str, str]
    precisions: tuple[Precision, ...]
    typed: bool


TARGETS: Mapping[str, TargetInfo] = MappingProxyType(
    {
        # ONNX Runtime's CPU kernels know no bfloat16; its float16 there is float32 with casts, made for GPUs.
        "onnx": TargetInfo(
            "onnxruntime", "eyas.export.builders.onnx", ("onnxruntime", "compile"), ("fp32", "fp16", "int8"), True
        ),
        "openvino": TargetInfo(
            "openvino",
            "eyas.export.builders.openvino",
            ("openvino", "openvino"),
            ("fp32", "fp16", "bf16", "int8"),
            False,
        ),
        "tensorrt": TargetInfo(
            "tensorrt",
            "eyas.export.builders.tensorrt",
            ("tensorrt", "tensorrt"),
            ("fp32", "fp16", "bf16", "int8"),
            True,
        ),
        "tensorrt-rtx": TargetInfo(
            "tensorrt-rtx",
            "eyas.export.builders.tensorrt",
            ("tensorrt_rtx", "tensorrt"),
            ("fp32", "fp16", "bf16", "int8"),
            True,
        ),
    }
)


PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def parse_target(text: str, precision: str | None = None) -> tuple[str, str]:
    """Return (runtime, precision) of a target as people write it: RUNTIME-PRECISION, as in "openvino-int8".

    Either part is "auto" where it is to be chosen by measuring: "openvino-auto", "auto-int8"; "auto" is both.

    Args:
        text: the target.
        precision: of a target that was given in two words, as in earlier releases; None if there was one word.

    Raises:
        UserError: there is no such target, or it can't do the precision.
    """
    if precision is not None or text in TARGETS:  # "tensorrt-rtx" is a runtime, not one in a precision
        runtime, last = text, precision or "fp32"
        if text not in TARGETS and text != "auto":
            raise UserError(
                f"Both the target '{text}' and the precision '{precision}' are given.",
                where="target",
                expected=f"the target alone, such as openvino-{last}",
            )
        tell(f"target {text}" + (f" with precision {precision}" if precision else ""), f"target {runtime}-{last}")
    elif text == "auto":
        runtime = last = "auto"
    else:
        runtime, _, last = text.rpartition("-")
    if runtime not in (*TARGETS, "auto") or last not in (*PRECISIONS, "auto"):
        names = [f"{name}-{each}" for name, row in TARGETS.items() for each in row.precisions]
        raise UserError(
            f"Unknown target '{text}'{suggest(text, (*names, 'auto'))}.",
            where="target",
            expected="RUNTIME-PRECISION: one of " + ", ".join(names) + "; auto, RUNTIME-auto or auto-PRECISION",
        )
    if "auto" not in (runtime, last):
        target_info(runtime, last)
    return runtime, last


def target_info(target: str, precision: str) -> TargetInfo:
    """Return the target's row.

    Raises:
        UserError: there is no such target, or it can't do the precision.
    """
    info = row_of(TARGETS, target, "Unknown target", "target")
    if precision not in info.precisions:
        raise UserError(
            f"The target '{target}' can't be built in '{precision}'{suggest(precision, info.precisions)}.",
            where="target",
            expected="one of " + ", ".join(f"{target}-{each}" for each in info.precisions),
        )
    return info


def input_of(spec: InputSpec, size: int | Sides | Range | None) -> tuple[InputSpec, Range | None]:
    """Return the input contract for a size, and the range of sizes, None for a fixed one.

    Of a range, the run's own size is the contract's where it lies inside, else the greatest.
    """
    if size is None:
        return spec, None
    if isinstance(size, int):
        return _sized(spec, Sides(size, size)), None
    if isinstance(size, Sides):
        return _sized(spec, size), None
    least, greatest = (_sized(spec, Sides(side, side)) for side in size)
    if least.height > greatest.height:
        raise UserError(f"The sizes {least.height} to {greatest.height} are not a range.", where="size")
    inside = least.height <= min(spec.height, spec.width) and max(spec.height, spec.width) <= greatest.height
    chosen = spec if inside else greatest
    return chosen, None if least.height == greatest.height else (least.height, greatest.height)


def _sized(spec: InputSpec, sides: Sides) -> InputSpec:
    """Return the contract for an input of that size; one that no network takes is refused by InputSpec."""
    return replace(spec, height=sides.height, width=sides.width)
