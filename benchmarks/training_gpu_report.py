"""The tables of the GPU benchmark, as Markdown, of whatever it has found so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("training_gpu.md")
BEGIN, END = "<!-- results: written by training_gpu.py page -->", "<!-- end of results -->"
TARGETS = {"n": 5.0, "s": 1.0}  # Eyas's images a second over the peer's
OWN_TARGET = 0.85  # of the replayed step
TITLES = {"n": "N at 320 px, batch 64, beside YOLO11n", "s": "S at 640 px, batch 32, beside YOLO11s"}
Results = Mapping[str, Any]


def number(value: Any, digits: int = 0) -> str:
    """Return a number as text, "" for none."""
    return f"{value:,.{digits}f}" if isinstance(value, int | float) else ""


def report(results: Results) -> str:
    """Return the tables."""
    about = results.get("machine", {})
    lines = [
        f"Measured on: **{about.get('device', 'an unknown device')}**, {about.get('cores', '?')} CPU cores, Python "
        f"{about.get('python', '?')}, PyTorch {about.get('torch', '?')}, Lightning {about.get('lightning', '?')}; "
        f"images: {results.get('data', {}).get('set', '?')}.",
    ]
    if about.get("tiny"):
        lines += ["", "Everything was tiny: this shows that the code path works, and says nothing about speed."]
    for model, title in TITLES.items():
        lines += ["", f"### {title}", "", *speeds(results, model), "", *breakdown(results, model)]
    lines += ["", "### The same by every way", "", *equal(results)]
    missing = [(name, part.get("skipped") or part.get("failed")) for name, part in results.items()]
    told = [f"- {name}: {why}" for name, why in missing if why]
    return "\n".join([*lines, *(["", "### Not measured", "", *told] if told else [])]) + "\n"


def speeds(results: Results, model: str) -> list[str]:
    """Return the rows of the trainers, and the two ratios that have a target."""
    lines = [
        "| | images/s | within epochs | GPU busy, % | first step after, s |", "| --- | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    for name, part in results.items():
        if name.startswith(f"{model} ") and "images_per_second" in part:
            label = name.removeprefix(f"{model} ")
            if "version" in part:
                label += f" (ultralytics {part['version']}, amp {'on' if part['amp'] else 'off'})"
            if part.get("options"):
                label += f" ({part['options']})"
            cells = (part["images_per_second"], part.get("within_epochs"), part.get("gpu_busy_percent"))
            lines.append(f"| {label} | {' | '.join(map(number, cells))} | {number(part.get('start_seconds'), 1)} |")
    whole = results.get(f"{model} eyas train", {}).get("images_per_second")
    replayed = results.get(f"{model} steps", {}).get("graphed", {}).get("images_per_second")
    rivals = [part["images_per_second"] for name, part in results.items()
              if name.startswith(f"{model} peer") and "images_per_second" in part]  # fmt: skip
    verdicts = []
    if whole and replayed:
        verdicts.append(
            f"`eyas train` over its own replayed step: **{whole / replayed:.2f}** (target {OWN_TARGET:.2f})."
        )
    if whole and rivals:
        ratio, target = whole / max(rivals), TARGETS[model]
        verdicts.append(f"`eyas train` over the peer (its better row): **{ratio:.2f}** (target {target:.1f}).")
    return [*lines, "", " ".join(verdicts) or "No ratio: one of the two sides is missing."]


def breakdown(results: Results, model: str) -> list[str]:
    """Return the rows of the bare step, kind by kind."""
    lines = [
        "| the step alone, on the device | images/s | ms a step | ms to launch | ms of kernels | kernels | peak MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, step in {**results.get(f"{model} steps", {}), **results.get(f"{model} compiled", {})}.items():
        if not isinstance(step, dict):
            continue
        if "failed" in step:
            lines.append(f"| {kind}: {step['failed'].replace('|', '/')} | | | | | | |")
            continue
        ones = " | ".join(number(step.get(name), 1) for name in ("step_ms", "launch_ms", "kernels_ms"))
        counts = " | ".join(number(step.get(name)) for name in ("kernels", "peak_mib"))
        lines.append(f"| {kind} | {number(step['images_per_second'])} | {ones} | {counts} |")
    return lines


def equal(results: Results) -> list[str]:
    """Return what the checks of equality found."""
    lines: list[str] = []
    losses = results.get("losses", {})
    for precision, kinds in losses.items():
        for kind, found in kinds.items() if isinstance(kinds, dict) else ():
            if "largest_difference" in found:
                lines.append(
                    f"- {precision}: losses of the {kind} step over {losses['steps']} steps differ from the eager "
                    f"ones by {found['largest_difference']:.1e} at most, relatively."
                )
            elif "failed" in found:
                lines.append(f"- {precision}: no losses of the {kind} step: {found['failed']}")
    images = results.get("images", {})
    if "mean_difference" in images:
        lines.append(
            f"- Images of the GPU's cache: {images['mean_difference']:.2f} of 255 from the CPU's in the mean, "
            f"{100 * images['above_8']:.2f} % of the values more than 8, boxes {images['boxes']:.2g} pixels at most."
        )
    for kind, found in results.get("killed", {}).items():
        if isinstance(found, dict) and "same_weights" in found:
            same = "the same bits" if found["same_weights"] and found["same_losses"] else "**other bits**"
            lines.append(f"- {kind} step, killed near steps {found['killed_at']} and resumed: {same}.")
        elif isinstance(found, dict):
            lines.append(f"- {kind} step, killed and resumed: {found['failed']}")
    return lines or ["Nothing yet."]


def page(results: Results) -> None:
    """Put the tables between the marks of training_gpu.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n\n{report(results)}\n{END}{after}", encoding="utf-8")
    print(PAGE)
