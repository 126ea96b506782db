"""The ranges of a graph's activations on real pictures, from histograms that grow with what they see."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from eyas.types import FloatArray, UInt8Array

BINS = 2048  # over [-limit, limit]
LOOKED_AT = 200_000  # values of a tensor a picture; every n-th of larger ones
PERCENTILE = 99.99  # of the values on either side of zero that a range must hold


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


def _reach(counts: npt.NDArray[np.int64], percentile: float) -> int:
    """Return how many bins from zero hold the percentile of the counts; 0 if there are none."""
    total = int(counts.sum())
    if not total:
        return 0
    return int(np.searchsorted(np.cumsum(counts), total * percentile / 100)) + 1


def activation_ranges(
    model: onnx.ModelProto, names: Sequence[str], batches: Iterable[UInt8Array], percentile: float = PERCENTILE
) -> dict[str, tuple[float, float]]:
    """Return the range of each named float tensor of the graph over the pictures.

    Args:
        model: takes "images", uint8 [N, H, W, 3].
        names: outputs of nodes.
        batches: pictures as the graph takes them.
        percentile: see `Histogram.range`.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    histograms = {name: Histogram() for name in names}
    for images in batches:
        for name, values in zip(names, session.run(list(names), {model.graph.input[0].name: images}), strict=True):
            flat = values.reshape(-1)
            histograms[name].add(flat[:: max(1, len(flat) // LOOKED_AT)])
    return {name: histogram.range(percentile) for name, histogram in histograms.items()}
