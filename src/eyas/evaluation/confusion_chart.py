"""The image of a confusion matrix, readable from one class up to eighty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps

from eyas.chart_text import chart_fonts, chart_text
from eyas.evaluation.charts import new_figure, save

MAX_CLASSES = 80  # beyond it cells become too small to read; the classes with the most errors are shown


def plot_confusion(matrix: npt.NDArray[np.int64], classes: tuple[str, ...], confidence: float, path: Path) -> None:
    """Draw the matrix, each row in per cent of its sum.

    Args:
        matrix: int64 [C + 1, C + 1], rows the truth, columns the prediction, the last of each the background.
        classes: the C names.
        confidence: the threshold that was used, for the title.
        path: the PNG to write.
    """
    shown = shown_rows(matrix)
    counts = matrix[np.ix_(shown, shown)]
    sums = matrix[shown].sum(axis=1)
    share = counts / np.maximum(sums, 1)[:, None]
    names = [*classes, "background"]
    labels = [chart_text(names[i], 22) for i in shown]
    size = len(shown)
    inches = float(np.clip(0.62 * size, 3.0, 7.0)) if size <= 16 else 7.0 + 0.19 * (size - 16)
    font = float(np.clip(9.0 - 0.03 * (size - 16), 7.5, 9.0))
    heading = 11 + 0.08 * max(0, size - 16)  # a large image is shown shrunk
    figure, axes = new_figure(inches + 2.2, inches + 1.9)
    axes.imshow(share, cmap=colormaps["Blues"], vmin=0.0, vmax=1.0, aspect="equal")
    for row, column in np.argwhere(counts > 0):
        color = "white" if share[row, column] > 0.55 else "#222222"
        text = f"{100 * share[row, column]:.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=font - 0.5, color=color)
    counted = [f"{label} ({count:,})" for label, count in zip(labels, sums, strict=True)]
    axes.set_xticks(range(size), labels, rotation=90, fontsize=font, fontfamily=chart_fonts())
    axes.set_yticks(range(size), counted, fontsize=font, fontfamily=chart_fonts())
    axes.set_xticks(np.arange(-0.5, size), minor=True)
    axes.set_yticks(np.arange(-0.5, size), minor=True)
    axes.grid(which="minor", color="#e3e6ea", linewidth=0.6)
    axes.tick_params(which="both", length=0)
    for edge in (axes.axhline, axes.axvline):
        edge(size - 1.5, color="#8a94a0", linewidth=1.4)
    axes.set_xlabel("predicted (background: missed)", fontsize=heading)
    axes.set_ylabel("ground truth (background: false detections)", fontsize=heading)
    fewer = f"; the {size - 1} of {len(classes)} classes with the most errors" if size <= len(classes) else ""
    title = f"Predicted class of each object, % of its row\nconfidence {confidence:.2f}, IoU 0.50{fewer}"
    axes.set_title(title, loc="left", fontsize=heading)
    save(figure, path)


def shown_rows(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
    """Return the rows to draw: all of them, or the classes with the most errors, and the background."""
    num_classes = len(matrix) - 1
    if num_classes <= MAX_CLASSES:
        return np.arange(num_classes + 1)
    errors = matrix.sum(axis=1) + matrix.sum(axis=0) - 2 * np.diagonal(matrix)
    worst = np.sort(np.argsort(-errors[:-1], kind="stable")[:MAX_CLASSES])
    return np.append(worst, num_classes)
