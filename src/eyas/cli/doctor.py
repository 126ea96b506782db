"""`eyas doctor`: which runtimes and devices are here, what the processor can do, what to install for more."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from eyas.text import json_text, say

if TYPE_CHECKING:
    from eyas.runtime.doctor import Diagnosis, Runtime

HELP = "show the available runtimes and devices, and what to install for more"
EXAMPLES: tuple[str, ...] = ("eyas doctor", "eyas doctor --json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON only")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; return 1 if something that is installed can't be used, else 0."""
    from eyas.runtime.doctor import examine

    found = examine()
    if args.json:
        say(json_text(found.to_dict(), indent=2))
    else:
        show(found)
    return 0 if found.healthy else 1


def show(found: Diagnosis) -> None:
    """Print the machine, a row for each runtime, and the advice."""
    from rich.markup import escape

    from eyas.terminal import open_console, open_table

    console = open_console()
    cpu = found.processor
    here = [name for name, present in cpu.instruction_sets.items() if present]
    missing = [name for name, present in cpu.instruction_sets.items() if not present]
    machine = open_table()
    machine.add_row("eyas", f"{found.eyas} (Python {found.python}, {escape(found.system)})")
    about = f"{cpu.name}, {cpu.architecture}, {cpu.cores} usable cores, {cpu.memory_gib:g} GiB"
    machine.add_row("processor", escape(about))
    if cpu.instruction_sets:
        machine.add_row("instructions", ", ".join(here) or "none of note")
        machine.add_row("  not available", ", ".join(missing) or "none")
    for gpu in found.gpus or ():
        line = f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory}, driver {gpu.driver}"
        machine.add_row("GPU", escape(line))
    if not found.gpus:
        machine.add_row("GPU", "no NVIDIA GPU (no driver answered)")
    console.print(machine)
    console.print()
    table = open_table("runtime", "version", "runs on")
    for runtime in found.runtimes:
        table.add_row(runtime.name, runtime.version or "-", escape(_state(runtime)))
    console.print(table)
    if found.advice:
        console.print()
    for line in found.advice:
        console.print(f"* {line}", markup=False, soft_wrap=True)


def _state(runtime: Runtime) -> str:
    if runtime.version is None:
        return f"not installed: {runtime.install}"
    return f"broken: {runtime.problem}" if runtime.problem else ", ".join(runtime.devices)
