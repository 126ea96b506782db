"""From an ONNX file to an engine of TensorRT 10 or 11, or of TensorRT-RTX: one code path, types and Q/DQ in the graph.

The work is done by `eyas.compile.tensorrt_job` in a process of its own: the first logger that the library is given is
the only one it ever uses, and an engine builder that crashes must not take its caller along. TensorRT-RTX builds
without a GPU; TensorRT proper needs the GPU that the engine is for. What was built here was not run on a GPU.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from eyas.compile.built import BuiltFiles
from eyas.compile.tensorrt_graph import fit_for_tensorrt
from eyas.errors import UserError, missing_extra
from eyas.types import InputSpec, checked_fields

ENTRY = "model.engine"
MODULES: Mapping[str, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
DTYPES: Mapping[str, str] = {"fp32": "FLOAT", "fp16": "HALF", "bf16": "BF16", "int8": "FLOAT"}
LOG_LINES = 12  # of TensorRT's own log, in an error
Range = tuple[int, int]


@dataclass(frozen=True)
class Options:
    """What a build may be told besides its shapes.

    Attributes:
        optimization_level: 0 (quick build) to 5 (fast engine); None for the library's own choice.
        workspace_mb: most memory that a layer's scratch may take; None for all there is.
        compute_capabilities: GPUs to build for, as "8.9"; TensorRT-RTX only, () for its default (Ampere and newer).
        latency_profile: also a profile for the least batch at the input's own size, so that a single picture runs on
            kernels chosen for it alone (a larger engine).
        best_batch: the batch that the ranging profile is tuned for; None for the greatest.
        refit: keep the engine's weights exchangeable. Needs a GPU.
        weight_streaming: let a GPU keep a part of the weights in the host's memory.
        timing_cache: a file that keeps what was measured of kernels from build to build; TensorRT only.
        seconds: longest time that a build may take.
    """

    optimization_level: int | None = None
    workspace_mb: int | None = None
    compute_capabilities: tuple[str, ...] = ()
    latency_profile: bool = False
    best_batch: int | None = None
    refit: bool = False
    weight_streaming: bool = False
    timing_cache: str | None = None
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        """Refuse what no builder takes."""
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise UserError(
                f"optimization_level is {self.optimization_level}.", expected="0 to 5", where="optimization_level"
            )
        for each in self.compute_capabilities:
            if not re.fullmatch(r"\d{1,2}\.\d", each):
                raise UserError(
                    f"'{each}' is no compute capability.", expected='"8.9" for example', where="compute_capabilities"
                )


@dataclass(frozen=True)
class Profile:
    """The shapes [N, H, W, 3] that an engine takes: the least, those it is tuned for, and the greatest."""

    least: tuple[int, int, int, int]
    best: tuple[int, int, int, int]
    greatest: tuple[int, int, int, int]


def profiles(spec: InputSpec, sizes: Range | None, batches: Range, options: Options) -> tuple[Profile, ...]:
    """Return the optimisation profiles of a build, the narrow one first."""
    low, high = batches
    own = (spec.height, spec.width)
    least, greatest = ((sizes[0],) * 2, (sizes[1],) * 2) if sizes else (own, own)
    best = min(max(options.best_batch or high, low), high)
    ranging = Profile((low, *least, 3), (best, *own, 3), (high, *greatest, 3))
    single = Profile((low, *own, 3), (low, *own, 3), (low, *own, 3))
    return (single, ranging) if options.latency_profile and single != ranging else (ranging,)


def build(
    onnx_path: Path,
    out_dir: Path,
    *,
    precision: str,
    input: InputSpec,  # noqa: A002  # the builders' common signature
    sizes: Range | None,
    batches: Range,
    options: Mapping[str, Any],
    target: str = "tensorrt",
) -> BuiltFiles:
    """Write model.engine into `out_dir`, for TensorRT or (`target="tensorrt-rtx"`) TensorRT-RTX.

    Args:
        onnx_path: the graph; its types are the engine's, for "int8" it holds signed symmetric Q/DQ.
        out_dir: where the files go.
        precision: "fp32", "fp16", "bf16" or "int8": what the convolutions of the graph must be.
        input: the network's input, which the profiles are tuned for.
        sizes: least and greatest height and width, None for the input's own alone.
        batches: least and greatest number of pictures at once.
        options: fields of `Options`.
        target: "tensorrt" or "tensorrt-rtx".

    Raises:
        UserError: the package is not installed, the graph can't be parsed or built (with TensorRT's own words), its
            convolutions are not of the precision asked for, or an option is unknown.
    """
    if find_spec(MODULES[target]) is None:
        raise missing_extra(MODULES[target], "tensorrt")
    chosen = Options(**checked_fields(Options, options, "options"))
    if chosen.compute_capabilities and target != "tensorrt-rtx":
        raise UserError(
            "TensorRT builds for the GPU of the machine it runs on.",
            where="compute_capabilities",
            fix="leave the option out, or use --target tensorrt-rtx",
        )
    graph = out_dir / "graph.onnx"
    graph.write_bytes(fit_for_tensorrt(onnx.load(onnx_path)).SerializeToString())
    job = {
        "module": MODULES[target],
        "onnx": str(graph.resolve()),
        "engine": str((out_dir / ENTRY).resolve()),
        "profiles": [dataclasses.asdict(each) for each in profiles(input, sizes, batches, chosen)],
        "options": dataclasses.asdict(chosen),
    }
    report = run_job(job, chosen.seconds)
    graph.unlink()
    if "error" in report:
        raise _failure(report["error"], report["log"], target)
    check_precision(report["convolutions"], precision)
    inspected = [name for name in ("layers.json",) if (out_dir / name).is_file()]
    details = {key: value for key, value in report.items() if key != "log"}
    return BuiltFiles(ENTRY, (ENTRY, *inspected), {**details, "profiles": job["profiles"], "ran_on_gpu": False})


def run_job(job: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Return the report of the job, done in a new process; what broke it is in "error", its last words in "log"."""
    with tempfile.TemporaryDirectory() as folder:
        ask, answer = Path(folder) / "job.json", Path(folder) / "report.json"
        ask.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "eyas.compile.tensorrt_job", str(ask), str(answer)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            return {"error": f"it took longer than {seconds:g} s", "log": []}
        if answer.is_file():
            report: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
            return report
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return {"error": f"its process ended with {how}", "log": (done.stdout + done.stderr).splitlines()}


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
            f"{precision} was asked for, and the convolutions of the network are {dict(convolutions)}.",
            expected=f"{wanted} (types and Q/DQ are in the graph: there is no flag for them)",
            fix="export the graph in that precision",
        )


def _failure(problem: str, log: list[str], target: str) -> UserError:
    """Return the error of a build, with what TensorRT said last."""
    words = "\n    ".join(log[-LOG_LINES:])
    return UserError(
        f"{'TensorRT-RTX' if target == 'tensorrt-rtx' else 'TensorRT'} could not build the engine: {problem}."
        + (f"\n  its log:\n    {words}" if words else "")
    )
