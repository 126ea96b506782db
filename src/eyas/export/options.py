"""What a target's builder may be told besides shapes and precision: typed, a dataclass a target.

No library is imported here: `eyas compile --help` lists these.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from eyas.errors import UserError, suggest

COMPATIBILITIES = ("none", "ampere_plus", "same_compute_capability")


def _about(default: Any, text: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class OnnxOptions:
    """ONNX Runtime compiles the file when it is opened: there is nothing to choose at build time."""


@dataclass(frozen=True)
class OpenVinoOptions:
    """Options of the target "openvino"."""

    device: str = _about("CPU", "device to query layer precisions on: CPU, GPU, NPU; default: CPU")


@dataclass(frozen=True)
class EngineOptions:
    """Options of TensorRT and of TensorRT-RTX."""

    optimization_level: int | None = _about(None, "0 (quick build) to 5 (fast engine); default: the library's choice")
    workspace_mb: int | None = _about(None, "largest workspace of a layer; default: all that is available")
    best_batch: int | None = _about(None, "batch to optimize the kernels for; default: the largest")
    latency_profile: bool = _about(
        False, "separate kernels for the smallest batch at the input's own size; default: false"
    )
    refit: bool = _about(False, "make the weights refittable, needs a GPU to build; default: false")
    weight_streaming: bool = _about(False, "let a GPU keep part of the weights in host memory; default: false")
    seconds: float = _about(3600.0, "time limit of a build; default: 3600")

    def __post_init__(self) -> None:
        """Refuse what no builder takes."""
        level = self.optimization_level
        if level is not None and not 0 <= level <= 5:
            raise UserError(f"optimization_level is {level}.", expected="0 to 5", where="optimization_level")
        for name, value in (("workspace_mb", self.workspace_mb), ("best_batch", self.best_batch)):
            if value is not None and value < 1:
                raise UserError(f"{name} is {value}.", expected="at least 1", where=name)
        if not self.seconds > 0:
            raise UserError(f"seconds is {self.seconds:g}.", expected="more than 0", where="seconds")


@dataclass(frozen=True)
class TensorRtOptions(EngineOptions):
    """Options of the target "tensorrt", which builds for the GPU of the machine it runs on."""

    timing_cache: str | None = _about(
        None, "file of measured kernel times, 'off' for none; default: in the user's cache folder"
    )
    compatibility: str = _about("none", "further GPUs: " + ", ".join(COMPATIBILITIES) + "; default: none")

    def __post_init__(self) -> None:
        """Refuse what no builder takes."""
        super().__post_init__()
        if self.compatibility not in COMPATIBILITIES:
            raise UserError(
                f"compatibility is '{self.compatibility}'{suggest(self.compatibility, COMPATIBILITIES)}.",
                expected="one of " + ", ".join(COMPATIBILITIES),
                where="compatibility",
            )


@dataclass(frozen=True)
class TensorRtRtxOptions(EngineOptions):
    """Options of the target "tensorrt-rtx", which builds for any GPU that it knows, with or without one here."""

    compute_capabilities: tuple[str, ...] = _about((), "GPUs to build for, such as 8.6,8.9,12.0; default: all from 8.0")

    def __post_init__(self) -> None:
        """Refuse what no builder takes."""
        super().__post_init__()
        for each in self.compute_capabilities:
            if not re.fullmatch(r"\d{1,2}\.\d", each):
                raise UserError(
                    f"'{each}' is not a compute capability.", expected='for example "8.9"', where="compute_capabilities"
                )
        if len(set(self.compute_capabilities)) < len(self.compute_capabilities):
            raise UserError("A compute capability is given twice.", where="compute_capabilities")


Options = OnnxOptions | OpenVinoOptions | TensorRtOptions | TensorRtRtxOptions

# Target -> its options.
OPTIONS: Mapping[str, type[Any]] = MappingProxyType(
    {
        "onnx": OnnxOptions,
        "openvino": OpenVinoOptions,
        "tensorrt": TensorRtOptions,
        "tensorrt-rtx": TensorRtRtxOptions,
    }
)


def builder_options(target: str, given: Mapping[str, Any]) -> Options:
    """Return the options of a target, checked.

    Args:
        target: a key of `OPTIONS`.
        given: name -> value, each of its field's type.

    Raises:
        UserError: the target has no such option, or a value is of another type or out of range.
    """
    kind = OPTIONS[target]
    hints = typing.get_type_hints(kind)
    for name, value in given.items():
        if name not in hints:
            raise UserError(
                f"The target '{target}' has no option '{name}'{suggest(name, hints)}.",
                where="option",
                expected="one of " + ", ".join(hints) if hints else "none: it has no options",
            )
        if not _fits(value, hints[name]):
            raise UserError(f"{name} is {value!r}.", where=name, expected=_kind_name(hints[name]))
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options: Options = kind(**fields)
    return options


def parse_options(target: str, texts: Sequence[str]) -> dict[str, Any]:
    """Return the options that were given as "name=value"; a list's values are parted by commas.

    Raises:
        UserError: a text is not of that form, an option comes twice or is unknown, or its value can't be read.
    """
    hints = typing.get_type_hints(OPTIONS[target])
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise UserError(f"The option is '{text}'.", where="option", expected="name=value")
        if name in found:
            raise UserError(f"The option '{name}' is given twice.", where="option")
        found[name] = _parsed(value, hints[name], name) if name in hints else value
    builder_options(target, found)
    return found


def describe_options() -> str:
    """Return the options of every target as lines for `--help`."""
    lines = []
    shared = {field.name for field in dataclasses.fields(EngineOptions)}
    groups: list[tuple[str, type[Any], set[str]]] = [("tensorrt and tensorrt-rtx", EngineOptions, set())]
    groups += [(name, kind, shared) for name, kind in OPTIONS.items()]
    for title, kind, known in groups:
        fields = [field for field in dataclasses.fields(kind) if field.name not in known]
        if fields:
            lines.append(f"{title}:")
            lines += [f"  {field.name:<21} {field.metadata['help']}" for field in fields]
    return "\n".join(lines)


def _inner(kind: Any) -> tuple[Any, bool]:
    if isinstance(kind, types.UnionType):
        inner = [each for each in typing.get_args(kind) if each is not type(None)]
        return inner[0], True
    return kind, False


def _is_list(kind: Any) -> bool:
    return typing.get_origin(kind) is tuple


def _kind_name(kind: Any) -> str:
    inner, _ = _inner(kind)
    if _is_list(inner):
        return "comma-separated values"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[inner]


def _fits(value: Any, kind: Any) -> bool:
    """Return whether the value is of the type."""
    inner, optional = _inner(kind)
    if value is None:
        return optional
    if _is_list(inner):
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    if inner is bool or isinstance(value, bool):
        return inner is bool and isinstance(value, bool)
    return isinstance(value, int | float) if inner is float else isinstance(value, inner)


def _parsed(text: str, kind: Any, name: str) -> Any:
    """Return the value that the text means.

    Raises:
        UserError: it means none of that type.
    """
    inner, _ = _inner(kind)
    if _is_list(inner):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if inner is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    elif inner is str:
        return text
    else:
        try:
            return inner(text)
        except ValueError:
            pass
    raise UserError(f"{name} is '{text}'.", where=name, expected=_kind_name(kind))
