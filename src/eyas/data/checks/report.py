"""Printing a dataset check for a person to read."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from eyas.data.checks.findings import CheckReport, Finding
from eyas.terminal import open_table
from eyas.text import printable

_MOST_CLASSES = 40
_EXAMPLES = 3
_BAR = 16  # characters of the longest bar


def print_numbers(report: CheckReport, console: Console) -> None:
    """Print the splits, the classes and the box sizes."""
    console.print(f"[bold]{escape(str(report.root))}[/]: {report.format}, {len(report.classes)} classes")
    console.print(_split_table(report))
    for name, numbers in report.splits.items():
        if numbers.left_out and (name == "train" or "train" not in report.splits):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in numbers.left_out.items())
            console.print(
                f"At {report.train_size} px, training on '{escape(name)}' uses {numbers.trained:,} of "
                f"{numbers.boxes:,} boxes; left out: {escape(reasons)}."
            )
    console.print(_class_table(report))
    console.print(_size_table(report))


def print_report(report: CheckReport, console: Console) -> None:
    """Print the numbers, then the findings, errors first."""
    print_numbers(report, console)
    for finding in report.findings:
        _print_finding(finding, console)
    errors = sum(1 for finding in report.findings if finding.level == "error")
    warnings = len(report.findings) - errors
    if errors:
        console.print(f"[bold red]{_count(errors, 'kind')} of errors[/], {_count(warnings, 'kind')} of warnings")
    elif warnings:
        console.print(f"[bold yellow]No errors[/], {_count(warnings, 'kind')} of warnings")
    else:
        console.print("[bold green]No faults found.[/]")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _table(title: str, first: str, *columns: str) -> Table:
    """Return an empty table; all columns but the first hold numbers."""
    return open_table(first, *(f">{column}" for column in columns), title=title, lines=True)


def _split_table(report: CheckReport) -> Table:
    """Return images and boxes of each split."""
    table = _table("Splits", "split", "images", "no boxes", "boxes", "mean", "most", "crowds", "longest side")
    for name, numbers in report.splits.items():
        low, middle, high = numbers.image_sizes
        table.add_row(
            escape(name),
            f"{numbers.images:,}",
            f"{numbers.background:,}",
            f"{numbers.boxes:,}",
            f"{numbers.boxes / max(numbers.images, 1):.1f}",
            str(numbers.most_boxes),
            f"{numbers.crowds:,}",
            f"{middle} px" if low == high else f"{low}..{middle}..{high} px",
        )
    return table


def _class_table(report: CheckReport) -> Table:
    """Return boxes and images of each class in each split, most frequent first."""
    table = _table("Classes: boxes / images with at least one", "class", *map(escape, report.splits))
    table.add_column("", no_wrap=True)  # the bar: what is cut first where the terminal is narrow
    first = next(iter(report.splits.values()))
    order = sorted(report.classes, key=lambda name: -first.class_boxes[name])
    most = max([1, *first.class_boxes.values()])
    half = _MOST_CLASSES // 2
    shown = order if len(order) <= _MOST_CLASSES else [*order[:half], "", *order[-half:]]
    for name in shown:
        if not name:
            table.add_row(f"... {len(order) - _MOST_CLASSES} more ...")
            continue
        cells = [
            f"{numbers.class_boxes[name]:,} / {numbers.class_images[name]:,}" for numbers in report.splits.values()
        ]
        table.add_row(escape(name), *cells, f"[cyan]{'█' * round(_BAR * first.class_boxes[name] / most)}[/]")
    return table


def _size_table(report: CheckReport) -> Table:
    """Return how many boxes are small, medium and large, as they are and at the training size."""
    title = f"Box sizes (COCO limits: 32 and 96 px; at {report.train_size} px after resizing)"
    table = _table(title, "split", "scale", "small", "medium", "large", "side 5%", "half", "95%", "< 4 px")
    for name, numbers in report.splits.items():
        total = max(numbers.boxes, 1)
        table.add_row(escape(name), "original", *(f"{count / total:.0%}" for count in numbers.sizes))
        low, _, middle, _, high = numbers.side_percentiles
        shares = (f"{count / total:.0%}" for count in numbers.train_sizes)
        sides = (f"{value:.0f} px" for value in (low, middle, high))
        table.add_row("", f"{report.train_size} px", *shares, *sides, f"{numbers.tiny:,}")
    return table


def _print_finding(finding: Finding, console: Console) -> None:
    """Print one finding with its first examples."""
    colour = "red" if finding.level == "error" else "yellow"
    console.print(
        f"[bold {colour}]{finding.level}[/] [bold]{finding.kind}[/] in {escape(finding.split)}: "
        f"{finding.count:,}. {escape(finding.meaning)}",
        highlight=False,
    )
    for example in finding.examples[:_EXAMPLES]:
        console.print(f"    {escape(printable(example, one_line=True))}", highlight=False)
    if finding.count > _EXAMPLES:
        console.print(f"    ... and {finding.count - _EXAMPLES:,} more", style="dim")
