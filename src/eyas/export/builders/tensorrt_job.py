"""Build one engine in this process, a child of `eyas.export.builders.tensorrt`.

Written against what TensorRT 10, 11 and TensorRT-RTX have in common. What only some of them have is tried, and its
absence is put down in the report; no version is parsed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from eyas.child_process import Parent
from eyas.files import write_bytes

# The bindings are compiled code without annotations, and one of two packages.
Bindings = Any


class BuildError(Exception):
    """The library said no; the log says why."""


def optional(step: Callable[[], object], name: str, missing: list[str]) -> None:
    """Do a step that not every version of the library knows; put down its name if this one does not."""
    try:
        step()
    except (AttributeError, NotImplementedError, KeyError):
        missing.append(name)


def asked(step: Callable[[], object], name: str) -> None:
    """Do a step that the user asked for.

    Raises:
        BuildError: this version of the library does not know it.
    """
    missing: list[str] = []
    optional(step, name, missing)
    if missing:
        raise BuildError(f"this version has no option '{name}'")


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
        raise BuildError(f"it rejects the graph: {errors}")
    config = builder.create_builder_config()
    configure(trt, config, job["options"], missing)
    cache = Path(job["timing_cache"]) if job["timing_cache"] else None
    reused = cache is not None and set_timing_cache(config, cache)
    for shapes in job["profiles"]:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *(tuple(shapes[key]) for key in ("least", "best", "greatest")))
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"it rejects the profile {shapes}")
    started = time.perf_counter()
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError("no engine was produced")
    engine = Path(job["engine"])
    engine.write_bytes(bytes(plan))
    if cache is not None:
        keep_timing_cache(config, cache)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {
        "library": f"{job['module']} {trt.__version__}",
        "layers": dict(Counter(layer.type.name for layer in layers)),
        "convolutions": convolutions(layers, "CONVOLUTION"),
        "deconvolutions": convolutions(layers, "DECONVOLUTION"),
        "inputs": [describe(network.get_input(i)) for i in range(network.num_inputs)],
        "outputs": [describe(network.get_output(i)) for i in range(network.num_outputs)],
        "engine_bytes": engine.stat().st_size,
        "build_seconds": round(time.perf_counter() - started, 2),
        "timing_cache_reused": reused,
        "not_in_this_version": missing,
        "inspected": job["inspect"] and inspect(trt, logger, engine),
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
        asked(lambda: setattr(config, "builder_optimization_level", level), "optimization_level")
    if workspace is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace << 20)
    if options["refit"]:
        asked(lambda: config.set_flag(trt.BuilderFlag.REFIT), "refit")
    if options["weight_streaming"]:
        asked(lambda: config.set_flag(trt.BuilderFlag.WEIGHT_STREAMING), "weight_streaming")
    detailed = trt.ProfilingVerbosity.DETAILED  # so that the inspector has something to tell
    optional(lambda: setattr(config, "profiling_verbosity", detailed), "profiling_verbosity", missing)
    wider = options.get("compatibility", "none").upper()
    if wider != "NONE":
        levels = trt.HardwareCompatibilityLevel.__members__
        asked(lambda: setattr(config, "hardware_compatibility_level", levels[wider]), "compatibility")
        if config.hardware_compatibility_level != levels[wider]:  # TensorRT-RTX takes it and does nothing
            raise BuildError("it can't build for further GPUs with the option 'compatibility'")
    set_compute_capabilities(trt, config, options.get("compute_capabilities", []))


def set_compute_capabilities(trt: Bindings, config: Any, capabilities: list[str]) -> None:
    """Say which GPUs the engine is for; TensorRT-RTX only, none leaves it its own choice.

    Raises:
        BuildError: it does not build for one of them.
    """
    if not capabilities:
        return
    config.num_compute_capabilities = len(capabilities)
    known = trt.ComputeCapability.__members__
    for index, each in enumerate(capabilities):
        name = "SM" + each.replace(".", "")
        if name not in known or not config.set_compute_capability(known[name], index):
            names = ", ".join(f"{key[2:-1]}.{key[-1]}" for key in known if key.startswith("SM"))
            raise BuildError(f"it can't build for compute capability {each}, only for {names}")


def set_timing_cache(config: Any, path: Path) -> bool:
    """Hand the kept measurements of kernels to the builder; return whether there were any that fit this GPU.

    Raises:
        BuildError: this version has no timing cache.
    """
    held = path.read_bytes() if path.is_file() else b""
    try:
        if held and config.set_timing_cache(config.create_timing_cache(held), False):
            return True
        config.set_timing_cache(config.create_timing_cache(b""), False)  # the builder fills it
    except AttributeError:
        raise BuildError("this version has no option 'timing_cache'") from None
    return False


def keep_timing_cache(config: Any, path: Path) -> None:
    """Write what the builder has measured of kernels; another build may read the file in the meantime."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, bytes(config.get_timing_cache().serialize()))


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


def report(job: dict[str, Any]) -> dict[str, Any]:
    """Do the job and return the report, with what the library logged."""
    log: list[str] = []
    try:
        return {**build(job, log), "log": log}
    except BuildError as error:
        return {"error": str(error), "log": log}


if __name__ == "__main__":
    Parent().answer(report)
