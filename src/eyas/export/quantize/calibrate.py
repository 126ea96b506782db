"""The ranges of a graph's activations on real images, from histograms that grow with what they see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from eyas.types import FloatArray, UInt8Array

BINS = 2048  # over [-limit, limit]
LOOKED_AT = 200_000  # values of a tensor an image; every n-th of larger ones
PERCENTILE = 99.99  # of the values on either side of zero that a range must hold
RATIOS = np.linspace(1.0, 0.2, 41)  # of the whole range, that are tried when values are clipped


class Histogram:
    """Counts of values in equal bins over [-limit, limit]; the limit doubles when a value lies beyond it.

    A power of two, so that two old bins make a new one exactly.
    """

    def __init__(self) -> None:
        self.limit = 2.0**-10
        self.counts: npt.NDArray[np.int64] = np.zeros(BINS, np.int64)

    def add(self, values: FloatArray) -> None:
        """Count the values, which must be finite."""
        peak = float(np.abs(values).max(initial=0.0))
        while peak > self.limit:
            quarter = BINS // 4
            merged = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[quarter : 3 * quarter] = merged
            self.limit *= 2
        places = ((values + self.limit) * (BINS / (2 * self.limit))).astype(np.int64)
        self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)

    def range(self, percentile: float = PERCENTILE) -> tuple[float, float]:
        """Return (low, high) that hold `percentile` percent of the values on each side; zero is always inside.

        Zeros are not counted (a ReLU gives many, and they fit any range).
        """
        middle = BINS // 2
        width = 2 * self.limit / BINS
        below, above = self.counts[:middle][::-1], self.counts[middle:].copy()
        above[0] = 0
        return -_reach(below, percentile) * width, _reach(above, percentile) * width

    def best(self, levels: int = 255) -> tuple[float, float]:
        """Return the (low, high) with the least mean squared error in so many equal steps; zero is always inside.

        Clipping the few largest values makes the steps of all others finer. Both sides are clipped in the same ratio.
        """
        low, high = self.range(100)
        counts: npt.NDArray[np.float64] = self.counts.astype(np.float64)
        width = 2 * self.limit / BINS
        middles = (np.arange(BINS) + 0.5) * width - self.limit
        counts[BINS // 2] = 0  # zeros, which any range holds
        errors = []
        for ratio in RATIOS:
            outside = middles - np.clip(middles, low * ratio, high * ratio)
            rounding = ((high - low) * ratio / levels) ** 2 / 12
            errors.append(float((counts * np.where(outside == 0, rounding, outside**2)).sum()))
        ratio = float(RATIOS[int(np.argmin(errors))])
        return low * ratio, high * ratio


def _reach(counts: npt.NDArray[np.int64], percentile: float) -> int:
    """Return how many bins from zero hold the percentile of the counts; 0 if there are none."""
    total = int(counts.sum())
    if not total:
        return 0
    return int(np.searchsorted(np.cumsum(counts), total * percentile / 100)) + 1


def histograms(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[UInt8Array]
) -> tuple[dict[str, Histogram], int]:
    """Return what each named float tensor of the graph holds over the images, and how many images that were.

    Args:
        model: takes "images", uint8 [N, H, W, 3].
        names: outputs of nodes.
        batches: images as the graph takes them.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = {name: Histogram() for name in names}
    seen = 0
    for images in batches:
        seen += len(images)
        for name, values in zip(names, session.run(list(names), {model.graph.input[0].name: images}), strict=True):
            flat = values.reshape(-1)
            found[name].add(flat[:: max(1, len(flat) // LOOKED_AT)])
    return found, seen
