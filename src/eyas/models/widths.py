"""Where the channels of a network's layers come from: what cutting a smaller network out of a larger one goes by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Parts = Mapping[str, int]  # what channels are put together from: a name -> how many, in this order


@dataclass(frozen=True)
class LayerWidths:
    """A layer's channels; its parts (branches, BatchNorms) have the same.

    Attributes:
        ins: of its input; None where the spec does not say.
        outs: of its output; None where the spec does not say, as of classes.
        kernel: what larger kernels in it are cropped to.
    """

    ins: Parts | None
    outs: Parts | None
    kernel: int = 5


WHOLE = LayerWidths(None, None, kernel=1 << 16)  # of a module of which nothing is cut
Layout = dict[str, LayerWidths]  # a layer's name -> its channels


def plain(ins: int | Parts, outs: int, kernel: int = 5) -> LayerWidths:
    """Return a layer from one tensor, or parts, to one tensor."""
    return LayerWidths({"x": ins} if isinstance(ins, int) else ins, {"x": outs}, kernel)


def below(name: str, layout: Layout) -> Layout:
    """Return the layout of a module as one of the module above, in which it has that name."""
    return {f"{name}.{layer}": widths for layer, widths in layout.items()}
