"""The gates of a build: the compiled file gives the trained network's answers, in the precision that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from eyas.artifacts.manifest import Manifest
from eyas.artifacts.measured import Accuracy, Parity
from eyas.data.index import DatasetIndex
from eyas.errors import UserError
from eyas.evaluation.coco import evaluate_predictions
from eyas.evaluation.label_mapping import align_classes
from eyas.evaluation.predictions import predict_dataset
from eyas.read_ahead import READERS, read_images
from eyas.runtime.detector import Detector
from eyas.runtime.preprocess import Preprocessor
from eyas.runtime.sessions.base import Session
from eyas.types import Detections, FloatArray, InputSpec, UInt8Array, evaluation_thresholds


@dataclass(frozen=True)
class Bound:
    """What a build may differ from the trained network.

    Attributes:
        boxes_px: largest distance of a box's side, in network pixels.
        scores: largest difference of a score.
        quantile: which part of the candidates must lie within; 1 for all.
        least_score: candidates below this score are not compared.
    """

    boxes_px: float
    scores: float
    quantile: float = 1.0
    least_score: float = 0.0


# Float32 is held exactly. Below it, candidates without meaning are left out, and a part may lie outside: one flipped
# maximum of a distribution moves a side by pixels, and what counts is the mAP, which is measured beside.
BOUNDS: Mapping[str, Bound] = MappingProxyType(
    {
        "fp32": Bound(0.5, 1e-3),
        "fp16": Bound(2.0, 0.02, 0.99, 0.05),
        "bf16": Bound(6.0, 0.08, 0.9, 0.05),
        # A nano trained on Stamps lies at 1.7 px and 0.011 with either engine; one whose products overflowed at 7.6 px.
        "int8": Bound(6.0, 0.1, 0.75, 0.05),
    }
)


def parity(session: Session, reference: Session, batches: Sequence[UInt8Array], bound: Bound) -> Parity:
    """Return how far the answers of `session` lie from those of `reference`.

    Candidates are matched by what they say, since near-equal scores may change places; those so near the last score
    that they may have fallen out of the best K are not asked for.

    Args:
        session: the compiled file.
        reference: the trained network, with the same number of candidates.
        batches: real images, each uint8 [N, H, W, 3].
        bound: its `quantile` and `least_score` say what is compared.

    Raises:
        UserError: an output is not finite, or the two give different shapes.
    """
    boxes_px: list[FloatArray] = []
    scores: list[FloatArray] = []
    for images in batches:
        got, expected = session.run(images), reference.run(images)
        if [one.shape for one in got] != [one.shape for one in expected]:
            raise UserError(
                f"The compiled file returns arrays of shapes {[one.shape for one in got]} for input {images.shape}.",
                expected=str([one.shape for one in expected]),
            )
        if not all(np.isfinite(one).all() for one in got):
            raise UserError("The compiled file returns numbers that are not finite.", fix="use a wider precision")
        for one in range(len(images)):
            first, second = (got[0][one], got[1][one]), (expected[0][one], expected[1][one])
            for left, right in ((first, second), (second, first)):
                distances = matched(left, right, bound)
                boxes_px.append(distances[0])
                scores.append(distances[1])
    return Parity(
        boxes_px=_quantile(boxes_px, bound.quantile),
        scores=_quantile(scores, bound.quantile),
        quantile=bound.quantile,
        images=sum(len(images) for images in batches),
    )


def matched(
    wanted: tuple[FloatArray, FloatArray], there: tuple[FloatArray, FloatArray], bound: Bound
) -> tuple[FloatArray, FloatArray]:
    """Return the distances (boxes in pixels [M], scores [M]) of each wanted candidate to its partner.

    Args:
        wanted, there: (boxes [K, 4], scores [K, C]) of one image.
        bound: the measure in which a partner is nearest, and which candidates count.
    """
    best = wanted[1].max(1)
    # Where all must lie within the bound, those that rounding may have moved out of the best K are left out.
    cut = best.min() + bound.scores if bound.quantile == 1 else 0.0
    chosen = np.flatnonzero((best > cut) & (best >= bound.least_score))
    if not len(chosen):
        chosen = best.argmax(keepdims=True)  # something must be compared
    boxes_px, scores = np.zeros(len(chosen), np.float32), np.zeros(len(chosen), np.float32)
    for row, index in enumerate(chosen):
        box = np.abs(there[0] - wanted[0][index]).max(1)
        score = np.abs(there[1] - wanted[1][index]).max(1)
        nearest = int(np.maximum(box / bound.boxes_px, score / bound.scores).argmin())
        boxes_px[row], scores[row] = box[nearest], score[nearest]
    return boxes_px, scores


def _quantile(values: Sequence[FloatArray], quantile: float) -> float:
    together = np.concatenate([np.zeros(0, np.float32), *values])
    return float(np.quantile(together, quantile)) if len(together) else 0.0


def check_parity(found: Parity, bound: Bound, what: str) -> None:
    """Raise a UserError if the outputs differ by more than the bound."""
    if found.boxes_px <= bound.boxes_px and found.scores <= bound.scores:
        return
    part = "" if bound.quantile == 1 else f" (at the {100 * bound.quantile:g} % quantile)"
    raise UserError(
        f"The build for {what} does not reproduce the network's outputs: boxes differ by up to {found.boxes_px:.3g} "
        f"pixels, scores by up to {found.scores:.3g}{part}.",
        expected=f"at most {bound.boxes_px:g} pixels and {bound.scores:g}",
        fix="choose another precision or target; no bundle was written",
    )


def check_accuracy(found: Accuracy, budget: float, what: str) -> None:
    """Raise a UserError if the mAP of the file is more than `budget` (0..1) below the trained network's."""
    if found.map >= found.map_fp32 - budget:
        return
    raise UserError(
        f"The build for {what} has mAP {100 * found.map:.2f}, {100 * (found.map_fp32 - found.map):.2f} below the "
        f"trained network's {100 * found.map_fp32:.2f} on {found.images} images.",
        expected=f"at most {100 * budget:g} below",
        fix="choose another target, or allow more with --max-drop; no bundle was written",
        where="budget",
    )


def shapes_to_try(
    spec: InputSpec, sizes: tuple[int, int] | None, batch: tuple[int, int]
) -> list[tuple[InputSpec, int]]:
    """Return the (input, number of images) at which a build is compared: its own, and each end of its ranges."""
    few, many = batch[0], min(batch[1], max(batch[0], 3))
    shapes = [(spec, many)] + ([(spec, few)] if few != many else [])
    others = [side for side in sizes or () if side != spec.height or side != spec.width]
    return shapes + [(replace(spec, height=side, width=side), few) for side in others]


def letterboxed(images: Sequence[UInt8Array], spec: InputSpec, num: int) -> UInt8Array:
    """Return a batch of `num` images, uint8 [num, H, W, 3], the given ones over and over."""
    repeated = [images[i % len(images)] for i in range(num)]
    return Preprocessor(spec)(repeated)[0].copy()


def sample_images(index: DatasetIndex, most: int) -> list[UInt8Array]:
    """Return up to `most` readable images, evenly spread over the dataset.

    Raises:
        UserError: there is none.
    """
    chosen = np.unique(np.linspace(0, len(index) - 1, min(most, len(index))).astype(int)).tolist()
    images = read_images((index.path(i) for i in chosen), depth=2 * READERS)
    found = [image for image in images if not isinstance(image, UserError)]  # those are the data check's business
    if not found:
        raise UserError("None of the dataset's images can be read.", where=str(index.root))
    return found


def accuracy(session: Session, manifest: Manifest, index: DatasetIndex, batch: int) -> float:
    """Return the COCO mAP of what the session gives on the dataset."""
    aligned, _ = align_classes(index, manifest.classes)
    limits = evaluation_thresholds(manifest.thresholds)
    detector = Detector(session, manifest.classes, manifest.input, limits)

    def detect(images: list[UInt8Array]) -> list[Detections]:
        return detector.predict(images, limits)

    return evaluate_predictions(aligned, predict_dataset(detect, aligned, batch=batch).predictions).ap


def measure_accuracy(
    session: Session, reference: Session | float, manifest: Manifest, index: DatasetIndex, batch: int
) -> Accuracy:
    """Return the mAP of the compiled file beside the trained network's, on the same images.

    `reference` is the trained network, or its mAP on these images where that was measured already.
    """
    return Accuracy(
        map=accuracy(session, manifest, index, batch),
        map_fp32=reference if isinstance(reference, float) else accuracy(reference, manifest, index, batch),
        data=index.root.resolve().name,
        split=index.split,
        images=len(index),
    )
