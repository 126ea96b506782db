"""The benchmark as an image: a bar for each contender, as long as its median call, in the colours of the stages."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from eyas.benchmark.report import BenchReport, BenchRow
from eyas.benchmark.resource_usage import STAGES
from eyas.draw import Colour, cut_text, put_text, text_width, write_png
from eyas.errors import UserError
from eyas.types import UInt8Array

# Everything is drawn at twice the size and halved at the end, which smooths OpenCV's plain letters.
FINE = 2
WIDTH, ROW, LEFT, RIGHT, TOP, BOTTOM = (FINE * n for n in (1100, 66, 270, 250, 78, 56))
TEXT, SMALL = FINE * 15, FINE * 12
DARK, GREY, PALE = (40, 44, 52), (120, 126, 136), (226, 229, 234)
COLOURS: tuple[Colour, ...] = ((246, 178, 60), (86, 190, 150), (70, 130, 220), (214, 96, 120))


def draw_report(report: BenchReport) -> UInt8Array:
    """Return the chart, uint8 [H, W, 3], RGB: bars are medians, the thin lines reach the 90 % and 99 % percentiles."""
    canvas = np.full((TOP + ROW * len(report.rows) + BOTTOM, WIDTH, 3), 255, np.uint8)
    # A busy machine's worst calls take ten times as long; they must not squeeze the rest.
    most = min(max(row.p99 for row in report.rows), 2 * max(sum(row.stages) for row in report.rows))
    step = tick_step(most)
    end = step * math.ceil(most / step)
    scale = (WIDTH - LEFT - RIGHT) / end
    _axis(canvas, step, end, scale)
    _header(canvas, report)
    for number, row in enumerate(report.rows):
        _bar(canvas, row, TOP + number * ROW, scale)
    return np.asarray(cv2.resize(canvas, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA), np.uint8)


def save_chart(chart: UInt8Array, path: str | Path) -> None:
    """Write a chart, uint8 [H, W, 3] RGB, as a PNG file.

    Raises:
        UserError: the file's name does not end in .png.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"The chart can't be written as {path.name}.", expected="a name ending in .png", where="png")
    write_png(chart, path)


def tick_step(most: float, ticks: int = 6) -> float:
    """Return the distance of the axis' ticks: 1, 2 or 5 times a power of ten, about `ticks` of them up to `most`."""
    raw = max(most, 1e-6) / ticks
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))


def _header(canvas: UInt8Array, report: BenchReport) -> None:
    """Write what was measured where, and which colour is which stage."""
    words = f"{report.machine.name}, {report.machine.cores} cores; {report.images}; Eyas {report.eyas}"
    put_text(canvas, cut_text(words, TEXT, WIDTH - FINE * 40), FINE * 16, FINE * 26, TEXT, DARK)
    x = FINE * 16
    for name, colour in zip(STAGES, COLOURS, strict=True):
        cv2.rectangle(canvas, (x, FINE * 41), (x + FINE * 12, FINE * 53), colour, -1)
        put_text(canvas, name, x + FINE * 18, FINE * 52, SMALL, DARK)
        x += FINE * 42 + text_width(name, SMALL)
    put_text(canvas, "median; whiskers: 90 % and 99 % of the calls", x, FINE * 52, SMALL, GREY)


def _axis(canvas: UInt8Array, step: float, end: float, scale: float) -> None:
    """Draw the grid and its numbers."""
    bottom = canvas.shape[0] - BOTTOM
    for number in range(round(end / step) + 1):
        x = LEFT + round(number * step * scale)
        cv2.line(canvas, (x, TOP - FINE * 8), (x, bottom), PALE, FINE)
        label = f"{number * step:g}"
        put_text(canvas, label, x - text_width(label, SMALL) // 2, bottom + FINE * 18, SMALL, GREY)
    put_text(
        canvas, "milliseconds per call, from the file's bytes to the detections", LEFT, bottom + FINE * 40, SMALL, GREY
    )


def _bar(canvas: UInt8Array, row: BenchRow, top: int, scale: float) -> None:
    """Draw one contender: name and setting, the stages in a row, percentiles, numbers."""
    middle, half = top + ROW // 2, FINE * 12
    put_text(canvas, cut_text(row.name, TEXT, LEFT - FINE * 32), FINE * 16, middle - FINE * 3, TEXT, DARK)
    put_text(canvas, cut_text(setting(row), SMALL, LEFT - FINE * 32), FINE * 16, middle + FINE * 14, SMALL, GREY)
    x = float(LEFT)
    for stage, colour in zip(row.stages, COLOURS, strict=True):
        cv2.rectangle(canvas, (round(x), middle - half), (round(x + stage * scale), middle + half), colour, -1)
        x += stage * scale
    far = round(x)
    for value, reach in ((row.p90, half), (row.p99, half // 2)):
        at = min(LEFT + round(value * scale), WIDTH - RIGHT)
        cv2.line(canvas, (round(x), middle), (at, middle), DARK, FINE)
        if at < WIDTH - RIGHT:  # what lies beyond has no end
            cv2.line(canvas, (at, middle - reach), (at, middle + reach), DARK, FINE)
        far = max(far, at)
    left = far + FINE * 10  # behind the longest line, where nothing is drawn
    put_text(canvas, f"{row.p50:.3g} ms, {row.per_second:.3g} images/s", left, middle - FINE * 12, SMALL, DARK)
    put_text(canvas, remark(row), left, middle + FINE * 4, SMALL, GREY)
    put_text(canvas, " / ".join(f"{share:.1%}" for share in row.shares), left, middle + FINE * 20, SMALL, GREY)


def setting(row: BenchRow) -> str:
    """Return how the contender was run, one line."""
    threads = "threads: auto" if row.threads is None else f"{row.threads} thread{'s' * (row.threads != 1)}"
    width, height = row.opened.input
    return f"{row.opened.engine.split(' ')[0]}, {threads}, batch {row.batch}, {width}x{height}"


def remark(row: BenchRow) -> str:
    """Return memory and streaming, one line."""
    memory = "" if row.memory is None else f"{row.memory / 2**20:.0f} MiB"
    stream = "" if row.stream_per_second is None else f"stream {row.stream_per_second:.3g}/s"
    return ", ".join(part for part in (memory, stream) if part)
