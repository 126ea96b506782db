"""The tables of the race, as Markdown: means over seeds with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

PAGE = Path(__file__).with_name("training.md")
BEGIN, END = "<!-- results: written by benchmarks.race page -->", "<!-- end of results -->"
NAMES = {"eyas": "Eyas N", "yolo11n": "YOLO11n", "yolo26n": "YOLO26n"}
# Student's t: 97.5 % of the distribution lie below it, for 1, 2, 3, ... degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
AGREE = 0.5  # points that the peer's own AP may differ from ours
Results = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """A mean over some values and half the width of its 95 % interval, None for fewer than two values."""

    mean: float
    half: float | None
    count: int

    @property
    def ends(self) -> tuple[float, float]:
        """Return the interval's ends."""
        half = self.half or 0.0
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        """Return it with one decimal."""
        return f"{self.mean:.1f}" + (f" ± {self.half:.1f}" if self.half is not None else "")


def interval(values: Sequence[float]) -> Interval:
    """Return the mean of the values, at least one, and its 95 % interval by Student's t."""
    count = len(values)
    if count < 2:
        return Interval(values[0], None, count)
    return Interval(mean(values), T95[min(count - 1, len(T95)) - 1] * stdev(values) / count**0.5, count)


def rows_of(results: Results, data: str) -> dict[str, list[dict[str, Any]]]:
    """Return the finished cells of a data set by their nets, seeds in order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for key, row in sorted(results["cells"].items()):
        net, name, _ = key.split("/")
        if name == data and row.get("scores"):
            found.setdefault(net, []).append(row)
    return dict(sorted(found.items(), key=lambda item: list(NAMES).index(item[0]) if item[0] in NAMES else len(NAMES)))


def tables(results: Results) -> str:
    """Return all that is known."""
    settings, about = results["settings"], results.get("machine", {})
    where = "one core each" if settings["device"] == "cpu" else "one after the other on the GPU"
    options = f"; `eyas train` with `{settings['eyas']}`" if settings["eyas"] else ""
    lines = [
        f"{about.get('name', 'An unknown machine')}, {about.get('cores', '?')} cores; {settings['size']} px, "
        f"{settings['minutes']:g} minutes, {where}{options}. AP of 100, mean ± 95 % interval over seeds."
    ]
    names = dict.fromkeys(key.split("/")[1] for key in results["cells"])
    for name in names:
        rows = rows_of(results, name)
        for split in dict.fromkeys(split for own in rows.values() for row in own for split in row["scores"]):
            lines += ["", f"### {name}, `{split}`", "", *table(rows, split), "", verdict(rows, split)]
    lines += latency_table(results)
    failed = [f"- {key}: {row['failed']}" for key, row in results["cells"].items() if "failed" in row]
    return "\n".join([*lines, *(["", "### Not measured", "", *failed] if failed else [])]) + "\n"


def table(rows: Mapping[str, Sequence[dict[str, Any]]], split: str) -> list[str]:
    """Return a row for each net."""
    lines = [
        "| net | seeds | AP | AP50 | own AP | epochs | wall s | processor s | least share of the core | load |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for net, all_cells in rows.items():
        cells = [row for row in all_cells if split in row["scores"]]
        if not cells:
            continue
        ap, ap50 = (interval([100 * row["scores"][split][name] for row in cells]) for name in ("AP", "AP50"))
        own = [100 * row["scores"][split]["own_AP"] for row in cells if "own_AP" in row["scores"][split]]
        middle = {name: mean(row[name] for row in cells) for name in ("epochs", "wall", "cpu", "load")}
        lines.append(
            f"| {NAMES.get(net, net)} | {len(cells)} | {ap} | {ap50} | {f'{mean(own):.1f}' if own else ''} "
            f"| {middle['epochs']:.0f} | {middle['wall']:.0f} | {middle['cpu']:.0f} "
            f"| {min(row['share'] for row in cells):.2f} | {middle['load']:.1f} |"
        )
    return lines


def verdict(rows: Mapping[str, Sequence[dict[str, Any]]], split: str) -> str:
    """Return how Eyas stands to the better of the others, and how far the peer's numbers are from ours."""
    found = {
        net: interval([100 * row["scores"][split]["AP"] for row in own if split in row["scores"]])
        for net, own in rows.items()
        if any(split in row["scores"] for row in own)
    }
    told = []
    others = {net: one for net, one in found.items() if net != "eyas"}
    if "eyas" in found and others:
        best = max(others, key=lambda net: others[net].mean)
        gap = found["eyas"].mean - others[best].mean
        known = all(one.half is not None for one in found.values())
        apart = found["eyas"].ends[0] > others[best].ends[1] or found["eyas"].ends[1] < others[best].ends[0]
        overlap = f"the intervals {'do not ' if apart else ''}overlap" if known else "one seed: no intervals"
        told.append(
            f"Eyas is **{abs(gap):.1f} AP {'ahead of' if gap >= 0 else 'behind'} {NAMES.get(best, best)}**, the better "
            f"of the others; {overlap}."
        )
    apart_by = [
        100 * abs(row["scores"][split]["AP"] - row["scores"][split]["own_AP"])
        for own in rows.values() for row in own if "own_AP" in row["scores"].get(split, {})
    ]  # fmt: skip
    if apart_by:
        good = "within" if max(apart_by) <= AGREE else "**not within**"
        told.append(f"The peer's own AP differs by {max(apart_by):.2f} at most ({good} {AGREE}).")
    return " ".join(told) or "Nothing to compare yet."


def latency_table(results: Results) -> list[str]:
    """Return the time an image takes in each compiled net."""
    found = results.get("latency", {})
    if not found:
        return []
    lines = ["", "### Time of an image, INT8, one core", "", "Median milliseconds; beside them the ratio to Eyas.", "",
             "| net | data | from JPEG to boxes | from decoded image to boxes | the engine alone | rounds |",
             "|---|---|---:|---:|---:|---:|"]  # fmt: skip
    for key, row in found.items():
        net, data, seed = key.split("/")
        if "failed" in row:
            lines.append(f"| {NAMES.get(net, net)} | {data} | not measured: {row['failed'].replace('|', '/')} | | | |")
            continue
        base = found.get(f"eyas/{data}/{seed}", {})
        cells = [
            f"{row[name]:.2f}" + (f" ({row[name] / base[name]:.2f})" if name in base else "")
            for name in ("jpeg_ms", "decoded_ms", "engine_ms")
        ]
        lines.append(f"| {NAMES.get(net, net)} | {data} | {' | '.join(cells)} | {row['rounds']} |")
    return lines


def page(results: Results) -> None:
    """Put the tables between the marks of training.md."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n{tables(results)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(PAGE)
