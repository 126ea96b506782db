"""`results.png`: the curves of a run."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from eyas.artifacts import layout
from eyas.files import atomic_path


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a CSV file by name, float64, NaN where a field is empty; {} if there is no file."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    if len(rows) < 2:
        return {}
    width = len(rows[0])
    table = [[float(v) if v else np.nan for v in (row + [""] * width)[:width]] for row in rows[1:]]
    return dict(zip(rows[0], np.array(table).T, strict=True))


def terms_of(columns: Iterable[str]) -> list[str]:
    """Return the names of the loss terms: the columns of `steps.csv` after the total."""
    names = list(columns)
    return names[names.index("loss") + 1 :]


def plot_results(folder: Path) -> None:
    """Draw loss terms, AP and learning rate over the steps into `results.png` of the run in `folder`."""
    steps, epochs = read_columns(folder / layout.STEPS), read_columns(folder / layout.METRICS)
    if not steps:
        return
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
    for name, colour in zip(terms_of(steps), cycle(mpl.color_sequences["tab10"]), strict=False):
        axes[0].plot(steps["step"], steps[name], color=colour, alpha=0.25, linewidth=0.8)
        if epochs:
            axes[0].plot(epochs["step"], epochs[name], color=colour, marker=".", label=name)
        else:
            axes[0].plot([], [], color=colour, label=name)
    axes[0].set_title("training loss, weighted terms")
    axes[0].set_ylim(bottom=min(0.0, *(np.nanmin(steps[name]) for name in terms_of(steps))))
    axes[0].legend()
    if "AP" in epochs:
        for name, style in (("AP", "-"), ("AP50", "--"), ("AP75", ":")):
            seen = ~np.isnan(epochs[name])
            axes[1].plot(epochs["step"][seen], epochs[name][seen], style, marker=".", color="#d62728", label=name)
        best = int(np.nanargmax(epochs["AP"])) if np.isfinite(epochs["AP"]).any() else None
        title = f"; best {epochs['AP'][best]:.3f} at epoch {int(epochs['epoch'][best])}" if best is not None else ""
        axes[1].set_title("validation AP" + title)
        axes[1].legend()
        axes[1].set_ylim(bottom=0)
    else:
        axes[1].set_title("validation AP: not evaluated yet")
    axes[2].plot(steps["step"], steps["lr"], color="#9467bd")
    axes[2].set_title("learning rate")
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    with atomic_path(folder / layout.CURVES) as path:
        figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
