"""The report's charts, each a function of results that writes one PNG. No window system and no global state."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from eyas.chart_text import chart_fonts, chart_text
from eyas.evaluation.coco import RECALL_POINTS, SIZES, CocoResult
from eyas.evaluation.confidence import THRESHOLDS, ConfidenceCurves
from eyas.files import atomic_path

Float64Array = npt.NDArray[np.float64]
Color = tuple[float, float, float, float]

DPI = 110
MEAN_COLOR = "#1b3a5c"
ACCENT_COLOR = "#d9622b"
QUIET_COLOR = "#8a94a0"
BAR_COLORS = ("#2f6da8", "#9cc3e4")
MAX_LEGEND = 20  # classes that are named in a legend; more can't be told apart by colour
MAX_BARS = 80  # classes that have a bar; of more, the worst are shown


def plot_precision_recall(result: CocoResult, path: Path) -> None:
    """Plot precision against recall at IoU .50: a thin line for each class, the mean thick, dashed at IoU .50:.95."""
    defined = np.flatnonzero(result.class_boxes > 0)
    figure, axes = new_figure(7.5 if len(defined) <= MAX_LEGEND else 6.5, 5.2)
    order = defined[np.argsort(-result.class_ap50[defined], kind="stable")]
    _class_lines(axes, RECALL_POINTS, result.precision50, order, [f"{result.class_ap50[i]:.2f}" for i in order], result)
    mean50, mean = result.precision50[defined].mean(axis=0), result.precision[defined].mean(axis=0)
    axes.plot(RECALL_POINTS, mean50, color=MEAN_COLOR, linewidth=3, label=f"mean, AP50 {result.ap50:.3f}")
    axes.plot(RECALL_POINTS, mean, color=MEAN_COLOR, linewidth=2, linestyle="--", label=f"mean, AP {result.ap:.3f}")
    unit_axes(axes, "recall", "precision")
    axes.set_title("Precision by recall (IoU 0.50; dashed: mean of 0.50 to 0.95)", loc="left", fontsize=11)
    _legend(axes, "class (AP50)" if len(order) <= MAX_LEGEND else f"thin lines: {len(order)} classes")
    save(figure, path)


def plot_f1(result: CocoResult, curves: ConfidenceCurves, path: Path) -> None:
    """Plot F1 against the confidence threshold: classes thin, the mean thick, the best threshold marked."""
    defined = np.flatnonzero(result.class_boxes > 0)
    figure, axes = new_figure(7.5 if len(defined) <= MAX_LEGEND else 6.5, 5.2)
    order = defined[np.argsort(-curves.f1[defined].max(axis=1), kind="stable")]
    _class_lines(axes, THRESHOLDS, curves.f1, order, [f"{curves.f1[i].max():.2f}" for i in order], result)
    precision, recall, best_f1 = curves.at(curves.best)
    axes.plot(THRESHOLDS, _mean_of_defined(curves.precision), color=QUIET_COLOR, linestyle="--", label="mean precision")
    axes.plot(THRESHOLDS, _mean_of_defined(curves.recall), color=QUIET_COLOR, linestyle=":", label="mean recall")
    axes.plot(THRESHOLDS, curves.mean_f1, color=MEAN_COLOR, linewidth=3, label="mean F1")
    if np.isnan(curves.best):
        title = "No detection is correct at any threshold (IoU 0.50)"
    else:
        title = f"Best threshold {curves.best:.2f}: F1 {best_f1:.2f}, precision {precision:.2f}, recall {recall:.2f}"
        axes.axvline(curves.best, color=ACCENT_COLOR, linewidth=1.2)
        axes.plot([curves.best], [best_f1], "o", color=ACCENT_COLOR, markersize=7, label=f"best F1 {best_f1:.3f}")
    unit_axes(axes, "confidence threshold", "F1, precision, recall (IoU 0.50)")
    axes.set_title(title, loc="left", fontsize=11)
    _legend(axes, "class (best F1)" if len(order) <= MAX_LEGEND else f"thin lines: {len(order)} classes")
    save(figure, path)


def plot_per_class(result: CocoResult, path: Path) -> None:
    """Plot AP and AP50 of each class as bars, best first; of very many classes the worst."""
    defined = np.flatnonzero(result.class_boxes > 0)
    order = defined[np.argsort(-result.class_ap[defined], kind="stable")]
    shown = order[-MAX_BARS:]
    figure, axes = new_figure(7.5, 1.3 + 0.24 * len(shown))
    rows = np.arange(len(shown))
    back = axes.barh(rows, result.class_ap50[shown], height=0.78, color=BAR_COLORS[1])
    front = axes.barh(rows, result.class_ap[shown], height=0.78, color=BAR_COLORS[0])
    for row, i in enumerate(shown):
        text = f"{result.class_ap[i]:.3f}   {counted(int(result.class_boxes[i]), 'box', 'boxes')}"
        axes.text(1.01, row, text, va="center", fontsize=8, color="#333333", transform=axes.get_yaxis_transform())
    axes.set_yticks(rows, [chart_text(result.classes[i]) for i in shown], fontsize=8, fontfamily=chart_fonts())
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    mean = axes.axvline(result.ap, color=ACCENT_COLOR, linewidth=1.2)
    _quiet(axes, "x")
    fewer = f" (the {len(shown)} lowest of {len(order)})" if len(shown) < len(order) else ""
    axes.set_title(f"AP per class{fewer}", loc="left", fontsize=11)
    names = ("AP", "AP50", f"mean AP {result.ap:.3f}")
    figure.legend(
        (front.patches[0], back.patches[0], mean), names, loc="outside lower center", ncols=3, frameon=False, fontsize=9
    )
    save(figure, path)


def plot_sizes(result: CocoResult, path: Path) -> None:
    """Plot AP and AR of small, medium and large objects, with how many there are."""
    figure, axes = new_figure(6.5, 4.2)
    limits = ("below 32² px", "32² to 96² px", "above 96² px")
    columns = np.arange(len(SIZES))
    for shift, name, color in ((-0.2, "AP", BAR_COLORS[0]), (0.2, "AR", BAR_COLORS[1])):
        values = np.array([result.metrics[f"{name}_{size}"] for size in SIZES])
        axes.bar(columns + shift, np.nan_to_num(values), width=0.38, color=color, label=name)
        for column, value in zip(columns, values, strict=True):
            text = "none" if np.isnan(value) else f"{value:.3f}"
            axes.text(column + shift, np.nan_to_num(value) + 0.01, text, ha="center", va="bottom", fontsize=9)
    labels = [
        f"{size}\n{limit}\n{counted(count, 'object')}"
        for size, limit, count in zip(SIZES, limits, result.size_boxes, strict=True)
    ]
    axes.set_xticks(columns, labels, fontsize=9)
    axes.set_ylim(0, 1.05)
    axes.set_yticks(np.linspace(0, 1, 6))
    _quiet(axes, "y")
    axes.set_title("By object size", loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    save(figure, path)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of the given inches that is not registered anywhere, and its axes."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, without a time stamp: the same results give the same bytes."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def unit_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Show 0..1 on both axes with a light grid."""
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    _quiet(axes, "both")


def counted(count: int, one: str, many: str = "") -> str:
    """Return "1 box", "2 boxes", "12,000 boxes"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def _class_lines(
    axes: Axes, x: Float64Array, curves: Float64Array, order: npt.NDArray[np.intp], notes: list[str], result: CocoResult
) -> None:
    """Draw a thin line for each class of `order`; few classes have each a colour and a name in the legend."""
    named = len(order) <= MAX_LEGEND
    palette = colormaps["tab20" if len(order) > 10 else "tab10"]
    for position, (i, note) in enumerate(zip(order, notes, strict=True)):
        color: Color | str = palette(position) if named else QUIET_COLOR
        label = f"{chart_text(result.classes[i])} ({note})" if named else None
        axes.plot(x, curves[i], color=color, linewidth=1.0, alpha=0.85 if named else 0.35, label=label)


def _legend(axes: Axes, title: str) -> None:
    axes.legend(
        title=title, frameon=False, prop={"family": chart_fonts(), "size": 8}, title_fontsize=8, loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
    )  # fmt: skip


def _quiet(axes: Axes, grid: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="both" if grid == "both" else "x" if grid == "x" else "y", color="#e3e6ea", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _mean_of_defined(curves: Float64Array) -> Float64Array:
    """Return the mean over the classes of [C, T] where it is defined, NaN where it is for no class."""
    defined = ~np.isnan(curves)
    total = np.where(defined, curves, 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
