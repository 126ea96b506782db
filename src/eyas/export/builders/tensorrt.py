"""From an ONNX file to an engine of TensorRT 10 or 11, or of TensorRT-RTX: one code path, types and Q/DQ in the graph.

The work is done by `eyas.export.builders.tensorrt_job` in a process of its own: the first logger that the library is
given is the only one it ever uses, and an engine builder that crashes must not take its caller along. TensorRT-RTX
builds without a GPU, and its graph is judged in the engine's place then; TensorRT proper needs the GPU that the engine
is for.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from eyas.child_process import Child, Ended, exit_words
from eyas.errors import UserError
from eyas.export.build import BuildPlan, BuiltFiles, Emulation
from eyas.export.builders.tensorrt_graph import fit_for_tensorrt
from eyas.export.options import EngineOptions, TensorRtOptions, TensorRtRtxOptions, builder_options
from eyas.export.quantize.executed import quantized_convolutions
from eyas.export.target import Range
from eyas.runtime.sessions.cache import cache_folder
from eyas.runtime.sessions.cuda import capability, runtime, why_not
from eyas.runtime.sessions.tensorrt import MODULES, missing_package
from eyas.types import InputSpec

ENTRY = "model.engine"
DTYPES: Mapping[str, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "FLOAT"}
# What TensorRT-RTX builds for when it is told nothing: Ampere and Ada, and Blackwell's and later cards.
RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0+")
LOG_LINES = 12  # of TensorRT's own log, in an error


@dataclass(frozen=True)
class ShapeProfile:
    """The shapes [N, H, W, 3] that an engine takes: the least, those it is tuned for, and the greatest."""

    least: tuple[int, int, int, int]
    best: tuple[int, int, int, int]
    greatest: tuple[int, int, int, int]


def profiles(spec: InputSpec, sizes: Range | None, batches: Range, options: EngineOptions) -> tuple[ShapeProfile, ...]:
    """Return the optimisation profiles of a build, the narrow one first."""
    low, high = batches
    own = (spec.height, spec.width)
    least, greatest = ((sizes[0],) * 2, (sizes[1],) * 2) if sizes else (own, own)
    best = min(max(options.best_batch or high, low), high)
    ranging = ShapeProfile((low, *least, 3), (best, *own, 3), (high, *greatest, 3))
    single = ShapeProfile((low, *own, 3), (low, *own, 3), (low, *own, 3))
    return (single, ranging) if options.latency_profile and single != ranging else (ranging,)


def check_machine(target: str) -> None:
    """Refuse a machine that can't build for the target, before anything expensive.

    Raises:
        UserError: the package is not installed, or TensorRT proper has no GPU to build for.
    """
    if find_spec(MODULES[target]) is None:
        raise missing_package(target)
    if target == "tensorrt":
        try:
            runtime()
        except UserError as error:
            raise UserError(
                f"TensorRT builds on the GPU that will run the engine: {error.problem.partition(', and')[0]}.",
                where="target",
                fix="compile on the machine with that GPU; --target tensorrt-rtx (GeForce, RTX) builds without one",
            ) from None


def build(graph: onnx.ModelProto, plan: BuildPlan, out_dir: Path) -> BuiltFiles:
    """Write model.engine into `out_dir`, for TensorRT or TensorRT-RTX.

    Args:
        graph: its types are the engine's; for "int8" it holds signed symmetric Q/DQ. Its convolutions must be of the
            precision asked for.
        plan: its options are fields of `eyas.export.options.TensorRtOptions`, or of `TensorRtRtxOptions`.
        out_dir: where the files go.

    Raises:
        UserError: the package or the GPU is missing, the graph can't be parsed or built (with TensorRT's own words),
            its convolutions are not of the precision asked for, or an option is unknown.
    """
    target = plan.settings.target
    check_machine(target)
    chosen = builder_options(target, plan.settings.options)
    assert isinstance(chosen, EngineOptions)
    capabilities = capabilities_of(chosen)
    blocked = why_not(capabilities)
    if blocked and chosen.refit:
        raise UserError(
            f"Refittable weights need a GPU while the engine is built. {blocked}.",
            where="refit",
            fix="leave the option out, or compile on a machine with such a GPU",
        )
    fitted = fit_for_tensorrt(graph)
    shapes = profiles(plan.input, plan.sizes, plan.settings.batch, chosen)
    job = {
        "module": MODULES[target],
        "engine": str((out_dir / ENTRY).resolve()),
        "profiles": [dataclasses.asdict(each) for each in shapes],
        "options": dataclasses.asdict(chosen),
        "timing_cache": timing_cache(chosen, capabilities),
        "inspect": not blocked,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "engine.onnx"
        path.write_bytes(fitted.SerializeToString())
        report = run_job({**job, "onnx": str(path)}, chosen.seconds)
    if "error" in report:
        raise _failure(report["error"], report["log"], target)
    check_precision(report["convolutions"], plan.settings.precision)
    check_quantized(report, fitted)
    inspected = [name for name in ("layers.json",) if (out_dir / name).is_file()]
    details = {key: value for key, value in report.items() if key != "log"}
    return BuiltFiles(
        ENTRY,
        (ENTRY, *inspected),
        {**details, "profiles": job["profiles"]},
        compute_capabilities=capabilities,
        emulation=Emulation(fitted, blocked) if blocked else None,
    )


def capabilities_of(options: EngineOptions) -> tuple[str, ...]:
    """Return the compute capabilities that an engine with these options runs on, as the manifest lists them."""
    if isinstance(options, TensorRtRtxOptions):
        return options.compute_capabilities or RTX_CAPABILITIES
    assert isinstance(options, TensorRtOptions)
    return ("8.0+",) if options.compatibility == "ampere_plus" else (capability(runtime()),)


def timing_cache(options: EngineOptions, capabilities: tuple[str, ...]) -> str | None:
    """Return the file that keeps what TensorRT measured of kernels; None for none. TensorRT-RTX measures nothing."""
    if not isinstance(options, TensorRtOptions) or options.timing_cache == "off":
        return None
    if options.timing_cache is not None:
        return str(Path(options.timing_cache).resolve())
    folder = cache_folder("tensorrt")
    return str(folder / f"{capabilities[0]}.timing_cache") if folder else None


def run_job(job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return the report of the job, done in a new process; what broke it is in "error", its last words in "log"."""
    with Child("eyas.export.builders.tensorrt_job") as child:
        child.send(job)
        try:
            report: dict[str, Any] = child.receive(seconds)
        except TimeoutError as error:
            return {"error": str(error), "log": []}
        except Ended as end:
            return {"error": f"its process ended with {exit_words(end.code)}", "log": end.words}
        except RuntimeError as error:
            return {"error": "its process failed", "log": str(error).splitlines()}
        return report


def check_precision(convolutions: Mapping[str, int], precision: str) -> None:
    """Refuse a network whose convolutions are not what was asked for.

    Args:
        convolutions: "INT8" for those between Q/DQ, else the name of their type -> how many.
        precision: what was asked for. INT8 may leave some in float: the predictions.

    Raises:
        UserError: they are of another type.
    """
    wanted = "INT8" if precision == "int8" else DTYPES[precision]
    others = {kind: num for kind, num in convolutions.items() if kind != wanted}
    if not convolutions.get(wanted) or (others and precision != "int8"):
        raise UserError(
            f"{precision} was requested, but the network's convolutions are {dict(convolutions)}.",
            expected=f"{wanted} (types and Q/DQ are in the graph: there is no flag for them)",
            fix="export the graph in that precision",
        )


def check_quantized(report: Mapping[str, Any], graph: onnx.ModelProto) -> None:
    """Refuse a network that did not take every convolution between Q/DQ of its graph as INT8.

    Raises:
        UserError: some are in float.
    """
    wanted = len(quantized_convolutions(graph))
    found = sum(report[kind].get("INT8", 0) for kind in ("convolutions", "deconvolutions"))
    if found != wanted:
        raise UserError(
            f"The graph has {wanted} quantized convolutions, but the network has {found} in INT8.",
            expected="the same number",
            fix="choose another precision; no bundle was written",
        )


def _failure(problem: str, log: list[str], target: str) -> UserError:
    words = "\n    ".join(log[-LOG_LINES:])
    return UserError(
        f"{'TensorRT-RTX' if target == 'tensorrt-rtx' else 'TensorRT'} could not build the engine: {problem}."
        + (f"\n  its log:\n    {words}" if words else "")
    )
