"""What this machine can run: its processor and GPUs, the runtimes that are installed, and what to install for more.

Each runtime is asked in a process of its own: a broken installation, or a driver that crashes, is told as such.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from eyas.child_process import Child, Ended, Parent, exit_words
from eyas.errors import UserError
from eyas.machine.gpus import Gpu, gpus
from eyas.machine.processor import Processor, processor
from eyas.runtime.openvino_core import openvino_core

PROBE_SECONDS = 60.0


@dataclass(frozen=True)
class Runtime:
    """An engine that can run a model.

    Attributes:
        name: the engine.
        version: of the installed package; None where it is not installed.
        devices: what it can run on here.
        problem: why it can't be used although it is installed; "" when it can.
        install: the command that brings it.
    """

    name: str
    version: str | None
    devices: tuple[str, ...]
    problem: str
    install: str


@dataclass(frozen=True)
class Diagnosis:
    """All that `eyas doctor` tells."""

    eyas: str
    python: str
    system: str
    processor: Processor
    gpus: tuple[Gpu, ...]
    runtimes: tuple[Runtime, ...]
    advice: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Return whether everything that is installed can be used."""
        return not any(runtime.problem for runtime in self.runtimes)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return json.loads(json.dumps(dataclasses.asdict(self), default=dict))  # type: ignore[no-any-return]


def _onnxruntime() -> list[str]:
    names: list[str] = import_module("onnxruntime").get_available_providers()
    return [name.removesuffix("ExecutionProvider") for name in names if name != "AzureExecutionProvider"]


def _openvino() -> list[str]:
    """Return OpenVINO's devices, each with what it computes in."""
    import_module("openvino")
    core = openvino_core()
    return [
        f"{name}: {core.get_property(name, 'FULL_DEVICE_NAME')} "
        f"({', '.join(sorted(core.get_property(name, 'OPTIMIZATION_CAPABILITIES')))})"
        for name in core.available_devices
    ]


def _tensorrt() -> list[str]:
    """Import TensorRT; its devices are the GPUs that the driver names."""
    import_module("tensorrt")
    return []


def _tensorrt_rtx() -> list[str]:
    import_module("tensorrt_rtx")
    return ["builds engines for GPUs of compute capability 7.5 to 12.x, also on this machine"]


def _torch() -> list[str]:
    """Return what it is for: torch is asked for its version only, since importing it takes seconds."""
    return ["for training, evaluating and compiling, and for runs that are not compiled"]


@dataclass(frozen=True)
class _Known:
    """A runtime that we know: its distributions (any of them brings it), how it is asked, and what brings it."""

    packages: tuple[str, ...]
    ask: Callable[[], list[str]]
    install: str


KNOWN: Mapping[str, _Known] = MappingProxyType({
    "ONNX Runtime": _Known(("onnxruntime", "onnxruntime-gpu"), _onnxruntime, "pip install eyas"),
    "OpenVINO": _Known(("openvino",), _openvino, 'pip install "eyas[openvino]"'),
    "TensorRT": _Known(("tensorrt", "tensorrt-cu12", "tensorrt-cu13"), _tensorrt, "pip install tensorrt cuda-bindings"),
    "TensorRT-RTX": _Known(("tensorrt-rtx-cu13", "tensorrt-rtx-cu12"), _tensorrt_rtx, 'pip install "eyas[tensorrt]"'),
    "PyTorch": _Known(("torch",), _torch, 'pip install "eyas[train]"'),
})  # fmt: skip


def examine() -> Diagnosis:
    """Look at the processor, the GPUs and every runtime; takes a second or two."""
    cpu, found = processor(), gpus()
    runtimes = tuple(runtime(name) for name in KNOWN)
    return Diagnosis(
        eyas=version("eyas"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        processor=cpu,
        gpus=found,
        runtimes=runtimes,
        advice=advise(cpu, found, runtimes),
    )


def runtime(name: str) -> Runtime:
    """Return what is known of a runtime of `KNOWN`, which is asked in a process of its own."""
    known = KNOWN[name]
    installed = next((found for package in known.packages if (found := _version(package))), None)
    if installed is None:
        return Runtime(name, None, (), "", known.install)
    devices, problem = probe(name)
    return Runtime(name, installed, devices, problem, known.install)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def probe(name: str, seconds: float = PROBE_SECONDS) -> tuple[tuple[str, ...], str]:
    """Ask a runtime of `KNOWN` in a process of its own; return (what it can run on, why it can't be used or "")."""
    with Child("eyas.runtime.doctor") as child:
        child.send(name)
        try:
            return tuple(child.receive(seconds)), ""
        except TimeoutError:
            return (), f"it did not respond within {seconds:g} s"
        except Ended as end:
            return (), f"it crashed the process ({exit_words(end.code)})"
        except ModuleNotFoundError as error:
            return (), f"ModuleNotFoundError: {error}"
        except (UserError, RuntimeError) as error:
            return (), str(error).strip().splitlines()[-1]


def advise(cpu: Processor, found: tuple[Gpu, ...], runtimes: tuple[Runtime, ...]) -> tuple[str, ...]:
    """Return what is worth doing on this machine, a sentence each.

    Args:
        cpu: the processor.
        found: the GPUs.
        runtimes: every runtime of `KNOWN`, in its order.
    """
    usable = {each.name for each in runtimes if each.version and not each.problem}
    install = {each.name: each.install for each in runtimes}
    advice = [f"{each.name} is broken ({each.problem}): reinstall it" for each in runtimes if each.problem]
    if "OpenVINO" not in usable:
        advice.append(f"for the fastest inference on x86 CPUs, Intel GPUs and NPUs: {install['OpenVINO']}")
    if found and not usable & {"TensorRT", "TensorRT-RTX"}:
        advice.append(
            f"for the GPU: {install['TensorRT-RTX']} (GeForce, RTX), {install['TensorRT']} (data-centre cards; on "
            "Jetson it comes with JetPack)"
        )
    if "PyTorch" not in usable:
        advice.append(f"to train, evaluate and compile: {install['PyTorch']}")
    return (*advice, *_precisions(cpu))


def _precisions(cpu: Processor) -> list[str]:
    """Return which precision is worth trying on the CPU: what its multipliers take."""
    sets = cpu.instruction_sets
    if not sets:
        return []
    if sets.get("AMX INT8") or sets.get("AMX BF16"):
        return ["this CPU has matrix units (AMX): openvino-int8 and openvino-bf16 are much faster than fp32"]
    if any(sets.get(name) for name in ("AVX-512 VNNI", "AVX VNNI", "dot product", "I8MM")):
        return [
            "this CPU has int8 dot-product instructions: try the target openvino-int8; bf16 is faster only if it is "
            "listed above"
        ]
    if sets.get("AVX2"):
        return ["this CPU has neither VNNI nor AMX: int8 is at most twice as fast as fp32, bf16 no faster"]
    return []


if __name__ == "__main__":
    Parent().answer(lambda name: KNOWN[name].ask())
