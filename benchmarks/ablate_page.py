"""Writes `ablation.md` of what the ablation measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.ablate_variants import VARIANTS
from benchmarks.race_report import interval

PAGE = Path(__file__).parent / "ablation.md"
START, END = "<!-- tables: written by `python -m benchmarks.ablate page` -->", "<!-- end of the tables -->"


def aps(rows: Mapping[str, Any], stage: str, data: str, name: str) -> dict[int, float]:
    """Return the AP (of 100) of each seed."""
    start = f"{stage} | {data} | {name} | "
    of_variant = {key.removeprefix(start): row for key, row in rows.items() if key.startswith(start)}
    return {int(seed): 100 * row["ap"] for seed, row in of_variant.items() if seed != "cost"}


def table(rows: Mapping[str, Any], stage: str, sets: list[str], base: str) -> Iterator[str]:
    """Yield the lines of a table of the changes of a variant, the best first."""
    compared = {data: aps(rows, stage, data, base) for data in sets}
    found = []
    for name in (base, *(name for name, variant in VARIANTS.items() if variant.of == base)):
        own = {data: aps(rows, stage, data, name) for data in sets}
        if not all(own.values()):
            continue
        cells, gains = [], []
        for data in sets:
            shared = sorted(set(own[data]) & set(compared[data]))
            gain = interval([own[data][seed] - compared[data][seed] for seed in shared])
            epochs = str(rows[f"{stage} | {data} | {name} | {shared[0]}"]["epochs"])
            difference = f"{'+' if gain.mean >= 0 else ''}{gain}"
            cells += [str(interval(list(own[data].values()))), "" if name == base else difference, epochs]
            gains.append(gain.mean)
        found.append((statistics.fmean(gains), name, cells))
    head = " | ".join(f"{data}: AP | difference | epochs" for data in sets)
    yield f"| of {base} | concerns | {head} | mean difference |"
    yield "|---|---|" + "---:|" * (3 * len(sets) + 1)
    for gain, name, cells in sorted(found, reverse=True, key=lambda one: one[0]):
        both = "" if name == base else f"{gain:+.1f}"
        yield f"| {name} | {VARIANTS[name].group} | {' | '.join(cells)} | {both} |"


def write(rows: Mapping[str, Any], titles: Mapping[str, str]) -> None:
    """Put the tables of the stages that were run between the page's marks."""
    lines: list[str] = []
    for stage, title in titles.items():
        sets = sorted({key.split(" | ")[1] for key in rows if key.startswith(f"{stage} | ")})
        if sets:
            bases = dict.fromkeys(variant.of for variant in VARIANTS.values() if variant.of)
            tables = [list(table(rows, stage, sets, base)) for base in bases]
            lines += [f"### {title}", ""]
            for one in tables:
                lines += [*one, ""] if len(one) > 3 else []
    text = PAGE.read_text(encoding="utf-8")
    before, after = text[: text.index(START)], text[text.index(END) :]
    PAGE.write_text(before + START + "\n\n" + "\n".join(lines) + "\n" + after, encoding="utf-8")
