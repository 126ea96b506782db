"""The machine as a network sees it: the processor with its instruction sets, usable cores, memory, NVIDIA GPUs."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

DRIVER_SECONDS = 30.0

# What a person calls the instruction set -> its name in /proc/cpuinfo. Only what speeds up a network is listed.
X86_SETS: Mapping[str, str] = MappingProxyType({
    "AVX2": "avx2", "AVX-512": "avx512f", "AVX-512 VNNI": "avx512_vnni", "AVX VNNI": "avx_vnni",
    "AVX-512 BF16": "avx512_bf16", "AVX-512 FP16": "avx512_fp16", "AMX": "amx_tile", "AMX INT8": "amx_int8",
    "AMX BF16": "amx_bf16", "AMX FP16": "amx_fp16",
})  # fmt: skip
ARM_SETS: Mapping[str, str] = MappingProxyType(
    {"NEON": "asimd", "FP16": "asimdhp", "dot product": "asimddp", "I8MM": "i8mm", "BF16": "bf16", "SVE": "sve"}
)

# Instructions that add four products of bytes in 32 bits.
WIDE_PRODUCTS = ("AVX-512 VNNI", "AVX VNNI", "AMX INT8")
X86 = ("x86_64", "AMD64", "i686")


@dataclass(frozen=True)
class Processor:
    """The CPU as this process sees it.

    Attributes:
        name: what it calls itself.
        architecture: for example "x86_64".
        cores: how many cores this process may use, a container's quota counted in.
        memory_gib: the machine's memory; None where it can't be read.
        instruction_sets: name -> whether it is here; empty where that can't be read.
    """

    name: str
    architecture: str
    cores: int
    memory_gib: float | None
    instruction_sets: Mapping[str, bool]


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU, as its driver describes it; `compute_capability` is, for example, "8.9"."""

    name: str
    compute_capability: str
    memory: str
    driver: str


def processor() -> Processor:
    """Return what can be read of the CPU; Linux tells most, macOS and Windows less."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, flags=re.M)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    memory = re.search(r"^MemTotal:\s*(\d+) kB", _read(Path("/proc/meminfo")), flags=re.M)
    return Processor(
        name=name,
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_gib=round(int(memory[1]) / 2**20, 1) if memory else None,
        instruction_sets=instruction_sets(text),
    )


def bytes_saturate(machine: Processor) -> bool:
    """Return whether engines add the products of bytes in 16 bits here, where two large ones may overflow.

    Products of unsigned bytes with weights of 7 bits can't.
    """
    return machine.architecture in X86 and not any(machine.instruction_sets.get(name) for name in WIDE_PRODUCTS)


def instruction_sets(cpuinfo: str) -> dict[str, bool]:
    """Return which of the sets that matter the text of /proc/cpuinfo lists; {} for a text that lists none."""
    listed = re.search(r"^(flags|Features)\s*:\s*(.+)$", cpuinfo, flags=re.M)
    if not listed:
        return {}
    flags = set(listed[2].split())
    return {name: flag in flags for name, flag in (X86_SETS if listed[1] == "flags" else ARM_SETS).items()}


def usable_cores() -> int:
    """Return how many cores this process may use: its affinity, and the quota of a Linux container."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no affinity
        cores = os.cpu_count() or 1
    quota, _, period = _read(Path("/sys/fs/cgroup/cpu.max")).partition(" ")
    return min(cores, max(1, int(quota) // int(period))) if quota.isdigit() else cores


def _read(path: Path) -> str:
    """Return the text of a small file of the system, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def gpus() -> tuple[Gpu, ...]:
    """Return the NVIDIA GPUs that `nvidia-smi`, which comes with the driver, tells of."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    query = [program, "--query-gpu=name,compute_cap,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    lines = [] if done.returncode else done.stdout.splitlines()
    rows = [[cell.strip() for cell in line.split(",")] for line in lines]
    return tuple(Gpu(*row) for row in rows if len(row) == 4)
