"""The processor as a network sees it: its name, its instruction sets, and what of the machine this process may use."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from eyas.machine.cores import usable_cores
from eyas.machine.memory import total_memory

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
        memory_gib: the machine's memory.
        instruction_sets: name -> whether it is here; empty where that can't be read.
    """

    name: str
    architecture: str
    cores: int
    memory_gib: float
    instruction_sets: Mapping[str, bool]


def processor() -> Processor:
    """Return what can be read of the CPU; Linux tells most, macOS and Windows less."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8", errors="replace") if info.is_file() else ""
    named = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", text, flags=re.M)
    name = named[1].strip() if named else platform.processor() or platform.machine()
    return Processor(
        name=name,
        architecture=platform.machine(),
        cores=usable_cores(),
        memory_gib=round(total_memory() / 2**30, 1),
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
