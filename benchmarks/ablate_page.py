"""Writes `ablation.md` of what the ablation measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablate_variants import BASELINE, VARIANTS

# 97.5 % points of Student's t with 1, 2, ... degrees of freedom.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
PAGE = Path(__file__).parent / "ablation.md"
START, END = "<!-- tables: written by `python -m benchmarks.ablate page` -->", "<!-- end of the tables -->"


def interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval; 0 of a single value."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, 0.0
    return mean, T[len(values) - 2] * statistics.stdev(values) / len(values) ** 0.5


def aps(rows: Mapping[str, Any], stage: str, data: str, name: str) -> dict[int, float]:
    """Return the AP (of 100) of each seed."""
    parts = {tuple(key.split(" | ")): row for key, row in rows.items()}
    return {
        int(seed): 100 * row["ap"]
        for (of, on, who, seed), row in ((key, row) for key, row in parts.items() if len(key) == 4)
        if (of, on, who) == (stage, data, name) and seed != "cost"
    }


def table(rows: Mapping[str, Any], stage: str, sets: list[str]) -> Iterator[str]:
    """Yield the lines of a stage's table, the best first."""
    default = {data: aps(rows, stage, data, BASELINE) for data in sets}
    found = []
    for name in VARIANTS:
        own = {data: aps(rows, stage, data, name) for data in sets}
        if not all(own.values()):
            continue
        cells, gains = [], []
        for data in sets:
            mean, half = interval(list(own[data].values()))
            shared = sorted(set(own[data]) & set(default[data]))
            gain, gain_half = interval([own[data][seed] - default[data][seed] for seed in shared])
            epochs = rows[f"{stage} | {data} | {name} | {shared[0]}"]["epochs"]
            few = len(own[data]) < 2
            cells.append(f"{mean:.1f}" + ("" if few else f" ± {half:.1f}"))
            cells.append("" if name == BASELINE else f"{gain:+.1f}" + ("" if few else f" ± {gain_half:.1f}"))
            cells.append(str(epochs))
            gains.append(gain)
        found.append((statistics.fmean(gains), name, cells))
    head = " | ".join(f"{data}: AP | against default | epochs" for data in sets)
    yield f"| variant | concerns | {head} | both |"
    yield "|---|---|" + "---:|" * (3 * len(sets) + 1)
    for gain, name, cells in sorted(found, reverse=True, key=lambda one: one[0]):
        both = "" if name == BASELINE else f"{gain:+.1f}"
        yield f"| {name} | {VARIANTS[name].group} | {' | '.join(cells)} | {both} |"


def write(rows: Mapping[str, Any], titles: Mapping[str, str]) -> None:
    """Put the tables of the stages that were run between the page's marks."""
    lines: list[str] = []
    for stage, title in titles.items():
        sets = sorted({key.split(" | ")[1] for key in rows if key.startswith(f"{stage} | ")})
        if sets:
            lines += [f"### {title}", "", *table(rows, stage, sets), ""]
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(START)], text[text.index(END) :]
    PAGE.write_text(before + START + "\n\n" + "\n".join(lines) + "\n" + after, encoding="utf-8")
