"""Build one engine in this process: `python -m eyas.compile.tensorrt_job job.json report.json`.

Written against what TensorRT 10, 11 and TensorRT-RTX have in common. What only some of them have is tried, and its
absence is put down in the report; no version is parsed.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

# The bindings are compiled code without annotations, and one of two packages.
Bindings = Any


class BuildError(Exception):
    """The library said no; the log says why."""


def optional(step: Callable[[], object], name: str, missing: list[str]) -> None:
    """Do a step that not every version of the library knows; put down its name if this one does not."""
    try:
        step()
    except (AttributeError, NotImplementedError):
        missing.append(name)


def build(job: dict[str, Any], log: list[str]) -> dict[str, Any]:
    """Build the engine that the job describes and return the report.

    Raises:
        BuildError: the library refused the graph or could not build it.
    """
    trt: Bindings = import_module(job["module"])
    logger = make_logger(trt, log)
    builder = trt.Builder(logger)
    missing: list[str] = []
    network = builder.create_network(strongly_typed(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(job["onnx"]):
        errors = "; ".join(str(parser.get_error(i).desc()) for i in range(parser.num_errors))
        raise BuildError(f"it does not take the graph: {errors}")
    config = builder.create_builder_config()
    configure(trt, config, job["options"], missing)
    cache = timing_cache(config, job["options"]["timing_cache"], missing)
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *(tuple(shapes[key]) for key in ("least", "best", "greatest")))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"it does not take the profile {shapes}")
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError("no engine came out")
    engine = Path(job["engine"])
    engine.write_bytes(bytes(plan))
    if cache is not None:
        cache.write_bytes(bytes(config.get_timing_cache().serialize()))
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {
        "library": f"{job['module']} {trt.__version__}",
        "layers": dict(Counter(layer.type.name for layer in layers)),
        "convolutions": convolutions(layers, "CONVOLUTION"),
        "deconvolutions": convolutions(layers, "DECONVOLUTION"),
        "inputs": [describe(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [describe(network.get_output(i)) for i in range(network.num_outputs)],
        "engine_bytes": engine.stat().st_size,
        "compute_capabilities": job["options"]["compute_capabilities"],
        "not_in_this_version": missing,
        "inspected": inspect(trt, logger, engine),
    }


def make_logger(trt: Bindings, log: list[str]) -> Any:
    """Return a logger that keeps warnings and errors in `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.Severity.WARNING:
                log.append(f"[{severity.name}] {message}")

    return Logger()


def strongly_typed(trt: Bindings) -> int:
    """Return the creation flags of a network whose types are the graph's: the only kind that TensorRT 11 has."""
    try:
        return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    except AttributeError:  # where it is the only kind, the flag may go
        return 0


def configure(trt: Bindings, config: Any, options: dict[str, Any], missing: list[str]) -> None:
    """Put the options into the builder's configuration."""
    level, workspace = options["optimization_level"], options["workspace_mb"]
    if level is not None:
        optional(lambda: setattr(config, "builder_optimization_level", level), "optimization_level", missing)
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    if options["refit"]:
        optional(lambda: config.set_flag(trt.BuilderFlag.REFIT), "refit", missing)
    if options["weight_streaming"]:
        optional(lambda: config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING), "weight_streaming", missing)
    detailed = trt.ProfilingVerbosity.DETAILED  # so that the inspector has something to tell
    optional(lambda: setattr(config, "profiling_verbosity", detailed), "profiling_verbosity", missing)
    capabilities = options["compute_capabilities"]
    if capabilities:
        config.num_compute_capabilities = len(capabilities)
        known = trt.ComputeCapability.__members__
        for index, each in enumerate(capabilities):
            name = "SM" + each.replace(".", "")
            if name not in known:
                names = ", ".join(f"{key[2:-1]}.{key[-1]}" for key in known if key.startswith("SM"))
                raise BuildError(f"it does not build for compute capability {each}, only for {names}")
            config.set_compute_capability(known[name], index)


def timing_cache(config: Any, file: str | None, missing: list[str]) -> Path | None:
    """Hand the kept measurements of kernels to the builder; return the file to write them to, None if not wanted."""
    if file is None:
        return None
    path = Path(file)

    def set_cache() -> None:
        held = path.read_bytes() if path.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(held), ignore_mismatch=False)

    optional(set_cache, "timing_cache", missing)
    return None if "timing_cache" in missing else path


def convolutions(layers: list[Any], kind: str) -> dict[str, int]:
    """Return how many layers of the kind the parsed network has in each type, "INT8" for those between Q/DQ."""
    producer = {layer.get_output(i).name: layer for layer in layers for i in range(layer.num_outputs)}
    found: Counter[str] = Counter()
    for layer in layers:
        if layer.type.name == kind:
            before = producer.get(layer.get_input(0).name)
            integer = before is not None and before.type.name == "DEQUANTIZE"
            found["INT8" if integer else layer.get_output(0).dtype.name] += 1
    return dict(found)


def describe(tensor: Any) -> dict[str, Any]:
    """Return name, type and shape of an input or output (-1: it varies)."""
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": list(tensor.shape)}


def inspect(trt: Bindings, logger: Any, engine: Path) -> bool:
    """Write layers.json, what the engine really does, beside it; return whether a GPU was there to ask it."""
    try:
        opened = trt.Runtime(logger).deserialize_cuda_engine(engine.read_bytes())
    except RuntimeError:
        return False
    if opened is None:
        return False
    text = opened.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    (engine.parent / "layers.json").write_text(text, encoding="utf-8")
    return True


def main(ask: str, answer: str) -> None:
    """Do the job in the file `ask` and write the report into the file `answer`."""
    log: list[str] = []
    try:
        report = build(json.loads(Path(ask).read_text(encoding="utf-8")), log)
    except BuildError as error:
        report = {"error": str(error)}
    Path(answer).write_text(json.dumps({**report, "log": log}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
