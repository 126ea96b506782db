"""Goodput and latency by offered load as an image; several servers share one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np

from eyas.benchmark.chart import tick_step
from eyas.benchmark.load.report import LoadReport, Step
from eyas.draw import Colour, cut_text, put_text, text_width
from eyas.types import UInt8Array

# Everything is drawn at twice the size and halved at the end, which smooths OpenCV's plain letters.
FINE = 2
WIDTH, HEIGHT, LEFT, GAP, TOP, BOTTOM = (FINE * n for n in (1180, 520, 70, 80, 100, 60))
TEXT, SMALL = FINE * 15, FINE * 12
DARK, GREY, PALE, RED = (40, 44, 52), (120, 126, 136), (226, 229, 234), (200, 60, 60)
COLOURS: tuple[Colour, ...] = ((40, 110, 210), (235, 140, 40), (60, 160, 110), (160, 80, 190), (120, 100, 80))
Point = tuple[float, float]


class Panel:
    """A coordinate system.

    Args:
        canvas: what is drawn on.
        left, right: its edges in pixels.
        most: greatest value on the horizontal axis.
        low, high: ends of the vertical axis.
        log: whether the vertical axis is logarithmic.
    """

    def __init__(
        self, canvas: UInt8Array, left: int, right: int, most: float, low: float, high: float, log: bool = False
    ) -> None:
        self.canvas, self.left, self.right = canvas, left, right
        self.most, self.low, self.high, self.log = most, low, high, log
        self.bottom = HEIGHT - BOTTOM

    def place(self, x: float, y: float) -> tuple[int, int]:
        """Return the pixel of a point; what lies beyond an edge is drawn at it."""
        low, high, at = self.low, self.high, min(max(y, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low)
        return self.left + round(x / self.most * (self.right - self.left)), round(
            self.bottom - share * (self.bottom - TOP)
        )

    def line(self, points: Sequence[Point], colour: Colour, *, thick: int = 2, dots: bool = True) -> None:
        """Draw a line through points."""
        pixels = [self.place(x, y) for x, y in points]
        for a, b in pairwise(pixels):
            cv2.line(self.canvas, a, b, colour, FINE * thick, cv2.LINE_AA)
        for pixel in pixels if dots else ():
            cv2.circle(self.canvas, pixel, FINE * 4, colour, -1, cv2.LINE_AA)

    def axes(self, ticks: Sequence[float], title: str, below: str) -> None:
        """Draw the grid, the numbers and the titles."""
        for tick in ticks:
            y = self.place(0, tick)[1]
            cv2.line(self.canvas, (self.left, y), (self.right, y), PALE, FINE)
            label = f"{tick:g}"
            put_text(self.canvas, label, self.left - FINE * 8 - text_width(label, SMALL), y + FINE * 4, SMALL, GREY)
        step = tick_step(self.most)
        for number in range(int(self.most / step + 1e-9) + 1):
            x, label = self.place(number * step, self.low)[0], f"{number * step:g}"
            cv2.line(self.canvas, (x, TOP), (x, self.bottom), PALE, FINE)
            put_text(self.canvas, label, x - text_width(label, SMALL) // 2, self.bottom + FINE * 18, SMALL, GREY)
        put_text(self.canvas, title, self.left, TOP - FINE * 12, TEXT, DARK)
        put_text(self.canvas, below, self.left, self.bottom + FINE * 42, SMALL, GREY)


def draw_load(reports: Sequence[LoadReport]) -> UInt8Array:
    """Return the chart, uint8 [H, W, 3], RGB: answers in time on the left, latencies on the right.

    Args:
        reports: one for each server, at least one; the first one's goal and capacity are marked.
    """
    canvas = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    first, steps = reports[0], [step for report in reports for step in report.steps]
    most = 1.04 * max(step.offered for step in steps) or 1.0
    middle = (WIDTH + LEFT) // 2
    _header(canvas, reports)
    rate = 1.1 * max(step.good for step in steps) or 1.0
    left = Panel(canvas, LEFT, middle - GAP // 2, most, 0.0, rate)
    unit = tick_step(rate)
    below = "offered load, requests per second"
    ticks = [unit * number for number in range(int(rate / unit) + 1)]
    left.axes(ticks, f"answers per second within {first.goal:g} ms", below)
    left.line([(0, 0), (min(most, rate), min(most, rate))], GREY, thick=1, dots=False)
    top = 2 * max([step.p999 for step in steps if not math.isnan(step.p999)] + [2 * first.goal])
    low = min([step.p50 for step in steps if step.p50 > 0] + [first.goal]) / 2
    right = Panel(canvas, middle + GAP // 2, WIDTH - FINE * 24, most, low, top, log=True)
    right.axes(decades(low, top), "milliseconds: p99 (thick), p50 and p99.9 (thin)", below)
    right.line([(0, first.goal), (most, first.goal)], RED, thick=1, dots=False)
    for report, colour in zip(reports, COLOURS, strict=False):
        left.line([(step.offered, step.good) for step in report.steps], colour)
        known = [step for step in report.steps if not math.isnan(step.p99)]
        for thick, pick in ((2, _p99), (1, _p50), (1, _p999)):
            right.line([(step.offered, pick(step)) for step in known], colour, thick=thick, dots=thick > 1)
    return np.asarray(cv2.resize(canvas, None, fx=1 / FINE, fy=1 / FINE, interpolation=cv2.INTER_AREA), np.uint8)


def decades(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times the powers of ten between two positive numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]


def _header(canvas: UInt8Array, reports: Sequence[LoadReport]) -> None:
    """Write what was measured where, and which colour is which server."""
    first = reports[0]
    words = f"{first.machine.name}, {first.machine.cores} cores; {first.images}; {first.arrivals}; Eyas {first.eyas}"
    put_text(canvas, cut_text(words, TEXT, WIDTH - FINE * 40), FINE * 16, FINE * 26, TEXT, DARK)
    x = FINE * 16
    for report, colour in zip(reports, COLOURS, strict=False):
        name = cut_text(f"{report.server}: capacity {report.capacity:.0f}/s", SMALL, FINE * 420)
        cv2.rectangle(canvas, (x, FINE * 41), (x + FINE * 12, FINE * 53), colour, -1)
        put_text(canvas, name, x + FINE * 18, FINE * 52, SMALL, DARK)
        x += FINE * 42 + text_width(name, SMALL)
    put_text(canvas, "grey: all on time; red: the goal", x, FINE * 52, SMALL, GREY)


def _p50(step: Step) -> float:
    return step.p50


def _p99(step: Step) -> float:
    return step.p99


def _p999(step: Step) -> float:
    return step.p999
