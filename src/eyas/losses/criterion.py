"""The interface of a training loss: a module that declares its terms and computes them from a head's output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

Reduce = Callable[[Tensor], Tensor]  # maps a scalar of this process to its mean over all processes


class TruthBatch(Protocol):
    """What a criterion may look at: the truth of a batch, as `eyas.data.loading.batch.Batch` has it."""

    @property
    def boxes(self) -> Tensor:
        """Boxes: float32 [M, 4], xyxy in network pixels, those of image 0 first, then those of image 1, ..."""

    @property
    def labels(self) -> Tensor:
        """The class of each box: int64 [M]."""

    @property
    def counts(self) -> Tensor:
        """How many boxes each image has: int64 [N]; they sum to M."""

    @property
    def extras(self) -> Mapping[str, Sequence[Any]]:
        """Columns that are no tensors, captions for example: name -> N values; none unless the loaders add some."""


class PaddedTruth(NamedTuple):
    """A `TruthBatch` with more rows than there are boxes, so that its shapes stay the same from batch to batch.

    Attributes:
        boxes: float32 [R, 4], as there; what the rows beyond the counts' sum hold means nothing, but is finite.
        labels: int64 [R], as there; of those rows any class that there is.
        counts: int64 [N], how many boxes each image has.
        extras: none: a step that is replayed can't read them.
    """

    boxes: Tensor
    labels: Tensor
    counts: Tensor
    extras: Mapping[str, Sequence[Any]] = MappingProxyType({})


class Criterion(nn.Module):
    """The loss of a head; its parameters, if it has any, are trained along.

    Attributes:
        terms: the names of what `forward` returns, in this order: columns of the tables, curves, the progress line.
        of_any_size: names of terms whose size says nothing of whether all is well; the others shall be of similar size.
        static: whether `forward` also takes `PaddedTruth`, and then has no shape that depends on what its tensors hold
            and never waits for the device: no `nonzero`, boolean index, `item`. The step can be a CUDA graph then.
        reduce: averages a scalar over the processes that train together; the identity where there is one only.
    """

    terms: tuple[str, ...] = ()
    of_any_size: frozenset[str] = frozenset()
    static = False

    def __init__(self, reduce: Reduce | None = None) -> None:
        super().__init__()
        self.reduce: Reduce = reduce or (lambda value: value)

    def set_progress(self, progress: float) -> None:
        """Take in which part of the run is done, 0 to 1: called before each step, for terms whose weights change.

        What `forward` reads of it must be a tensor that stays where it is, written in place: a buffer that is not
        persistent, as the number follows from the step. A step that is replayed has seen no other kind of value.
        """

    def forward(self, output: Any, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the weighted terms by name, each a scalar; the training loss is their sum.

        Args:
            output: what the head returned in training.
            batch: the truth.
        """
        raise NotImplementedError

    def terms_of(self, net: nn.Module, images: Tensor, batch: TruthBatch) -> dict[str, Tensor]:
        """Return the terms for a network and a batch of images; training calls only this method.

        A criterion that looks at more than the head's output, at the images or the network's features, does it here.

        Args:
            net: the network, in training mode.
            images: float [N, 3, H, W], as it takes them.
            batch: their truth.
        """
        terms: dict[str, Tensor] = self(net(images), batch)
        return terms

    @property
    def beside(self) -> tuple[nn.Module, ...]:
        """Return the networks that it runs beside the trained one, on its device and no part of its state."""
        return ()


def set_progress(criterion: nn.Module, progress: float) -> None:
    """Tell a criterion, and those that it is made of, which part of the run is done, 0 to 1."""
    for part in criterion.modules():
        if isinstance(part, Criterion):
            part.set_progress(progress)
