"""An image of a dataset's numbers: classes, box sizes, where boxes lie, and how many an image has."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from eyas.chart_text import chart_fonts, chart_text
from eyas.data.index import DatasetIndex
from eyas.files import write_bytes

_MOST_CLASSES = 30
_CELLS = 32  # of the map of box centres, each way
_COLOURS = ("#2f6fde", "#f28e2b", "#59a14f", "#b07aa1", "#e15759")


def write_chart(splits: Mapping[str, DatasetIndex], train_size: int, path: Path) -> None:
    """Write the chart as a PNG file.

    Args:
        splits: the dataset.
        train_size: the network's input size in pixels, for box sizes.
        path: the file.
    """
    figure = Figure(figsize=(13, 9), layout="constrained")
    (classes, sizes), (places, counts) = figure.subplots(2, 2)
    _draw_classes(classes, splits)
    _draw_sizes(sizes, splits, train_size)
    _draw_places(places, splits)
    _draw_counts(counts, splits)
    handles, names = classes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())


def _draw_classes(axes: Axes, splits: Mapping[str, DatasetIndex]) -> None:
    """Draw the share of each class in each split as bars, most frequent on top."""
    first = next(iter(splits.values()))
    totals = sum(np.bincount(index.labels, minlength=len(index.classes)) for index in splits.values())
    order = np.argsort(-np.asarray(totals), kind="stable")[:_MOST_CLASSES]
    thickness = 0.8 / len(splits)
    for number, (name, index) in enumerate(splits.items()):
        share = np.bincount(index.labels, minlength=len(index.classes))[order] / max(len(index.labels), 1)
        height = np.arange(len(order)) + (number - (len(splits) - 1) / 2) * thickness
        axes.barh(height, share * 100, thickness, label=name, color=_colour(number))
    axes.set_yticks(
        range(len(order)),
        [chart_text(first.classes[i]) for i in order],
        fontfamily=chart_fonts(),
        fontsize=10 if len(order) < 20 else 7,
    )
    axes.invert_yaxis()
    rest = len(first.classes) - len(order)
    axes.set_title("Boxes per class" + (f" ({rest} rarer classes left out)" if rest else ""))
    axes.set_xlabel("% of the split's boxes")


def _draw_sizes(axes: Axes, splits: Mapping[str, DatasetIndex], train_size: int) -> None:
    """Draw how large boxes are at the training size, on a logarithmic scale, with COCO's limits."""
    edges = np.geomspace(2, 1.2 * train_size, 40)
    for number, (name, index) in enumerate(splits.items()):
        longest = np.maximum(index.sizes.max(axis=1, initial=1), 1)[index.image_of_row()]
        shape = np.maximum(index.boxes[:, 2:] - index.boxes[:, :2], 0)
        sides = np.sqrt(shape.prod(axis=1)) * train_size / longest
        _step(axes, np.clip(sides, edges[0], edges[-1]), edges, name, number)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])  # room for the names of the limits
    for limit, name in ((32, "small | medium"), (96, "medium | large")):
        axes.axvline(limit, color="#999999", linestyle=":")
        axes.annotate(name, (limit, 0.99), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right",
                      fontsize=8, color="#666666")  # fmt: skip
    axes.set_xscale("log")
    axes.set_xticks([4, 8, 16, 32, 64, 128, 256, 512])
    axes.set_xlim(edges[0], edges[-1])
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(lambda *_: "")
    axes.set_title(f"Box sizes at {train_size} px")
    axes.set_xlabel("square root of the box area, pixels")
    axes.set_ylabel("% of the split's boxes")


def _draw_places(axes: Axes, splits: Mapping[str, DatasetIndex]) -> None:
    """Draw where the boxes' centres lie in their images, all splits together."""
    table = np.zeros((_CELLS, _CELLS))
    for index in splits.values():
        size = index.sizes[index.image_of_row()][:, ::-1]
        known = (size > 0).all(axis=1)
        centre = (index.boxes[known, :2] + index.boxes[known, 2:]) / 2 / size[known]
        table += np.histogram2d(centre[:, 1], centre[:, 0], bins=_CELLS, range=[[0, 1], [0, 1]])[0]
    shown = axes.imshow(table, extent=(0, 1, 1, 0), cmap="viridis", interpolation="nearest")
    axes.figure.colorbar(shown, ax=axes, label="boxes")
    axes.set_title("Positions of box centres")
    axes.set_xlabel("horizontal position")
    axes.set_ylabel("vertical position")


def _draw_counts(axes: Axes, splits: Mapping[str, DatasetIndex]) -> None:
    """Draw how many boxes an image has."""
    most = max(int(np.diff(index.offsets).max(initial=0)) for index in splits.values())
    edges = np.arange(-0.5, most + 1.5) if most <= 50 else np.linspace(-0.5, most + 0.5, 50)
    for number, (name, index) in enumerate(splits.items()):
        _step(axes, np.diff(index.offsets), edges, name, number)
    axes.set_title("Boxes per image")
    axes.set_xlabel("boxes")
    axes.set_ylabel("% of the split's images")


def _step(axes: Axes, values: npt.NDArray[np.number], edges: npt.NDArray[np.floating], name: str, number: int) -> None:
    share = np.histogram(values, edges)[0] * 100 / max(len(values), 1)
    axes.stairs(share, edges, label=name, color=_colour(number), linewidth=1.6)
    axes.stairs(share, edges, color=_colour(number), fill=True, alpha=0.12)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]
