"""Which network weights are of: the spec is read off the tensors' names and shapes."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from eyas.errors import UserError
from eyas.models.layers import BLOCKS
from eyas.models.spec import StageSpec, YoloNasSpec
from eyas.models.zoo import SPECS

State = Mapping[str, Tensor]

LEVEL = "head1.cls_pred.weight"  # [classes, width, 1, 1]
PLACES = {"ndfl": "heads.", "dual": "heads.one_to_one."}  # kind of the head -> where its levels are
BINS = {"ndfl": "heads.head1.reg_pred.weight", "dual": "heads.dense.part.head1.reg_pred.weight"}  # the latter unfused
FIRST_HEADS = tuple(f"{place}{LEVEL}" for place in PLACES.values())


def infer_spec(state: State, where: str = "weights") -> YoloNasSpec:
    """Return the spec of the network that the weights are of; its activation, which no tensor shows, is ReLU.

    Args:
        state: weights under YOLO-NAS's names, as they are trained or fused, of any widths and depths.
        where: what an error names as the place.

    Raises:
        UserError: a tensor that tells a width is not there: the weights are of another network.
    """
    shapes = _Shapes(state, where)
    head = next((kind for kind, place in PLACES.items() if f"{place}{LEVEL}" in state), None)
    if head is None:
        raise UserError(
            f"The weights are not YOLO-NAS weights: they have no {FIRST_HEADS[0]}.",
            where=where,
            expected="the tensors of YOLO-NAS S, M, L, or a variant with other widths",
        )
    bins = BINS[head]
    stem_kind, stem_kernel, stem_width = shapes.block("backbone.stem.conv")
    return YoloNasSpec(
        stem_width=stem_width,
        stages=tuple(shapes.stage(f"backbone.stage{i}.blocks", f"backbone.stage{i}.downsample") for i in range(1, 5)),
        context_hidden=shapes.out("backbone.context_module.cv1.conv.weight"),
        context_width=shapes.out("backbone.context_module.cv2.conv.weight"),
        neck=tuple(shapes.stage(f"neck.neck{i}.blocks") for i in range(1, 5)),
        head_widths=tuple(shapes.inside(f"{PLACES[head]}head{i}.cls_pred.weight") for i in range(1, 4)),
        stem_block=stem_kind,
        stem_kernel=stem_kernel,
        reg_max=shapes.out(bins) // 4 - 1 if bins in state or head == "ndfl" else YoloNasSpec.reg_max,
        head=head,
    )


def name_of(spec: YoloNasSpec) -> str:
    """Return the name of the row that the spec is, "" if it is none."""
    return next((name for name, row in SPECS.items() if row == spec), "")


class _Shapes:
    """Looks up widths in a state; a missing tensor is a UserError that names it."""

    def __init__(self, state: State, where: str) -> None:
        self.state = state
        self.where = where

    def out(self, name: str) -> int:
        """Return the number of output channels of a convolution."""
        return self._dims(name)[0]

    def inside(self, name: str) -> int:
        """Return the number of input channels of a convolution."""
        return self._dims(name)[1]

    def block(self, prefix: str) -> tuple[str, int, int]:
        """Return (kind, size of the kernel, output channels) of a block."""
        for kind, row in BLOCKS.items():
            for kernel, out in zip(row.kernels, row.outs, strict=True):
                if f"{prefix}.{kernel}" in self.state:
                    return kind, self._dims(f"{prefix}.{kernel}")[2], self.out(f"{prefix}.{out}")
        return "conv", 3, self.out(f"{prefix}.conv.weight")  # which says that it is missing

    def stage(self, prefix: str, downsample: str = "") -> StageSpec:
        """Return the stage whose CSP layer has that name.

        Args:
            prefix: the name.
            downsample: the name of the block before, whose kind and kernel are the stage's; the first bottleneck's if
                there is none.
        """
        depth = 0
        while any(name.startswith(f"{prefix}.bottlenecks.{depth}.") for name in self.state):
            depth += 1
        hidden = self.out(f"{prefix}.conv1.conv.weight")
        first = downsample or (f"{prefix}.bottlenecks.0.cv1" if depth else "")
        kind, kernel = self.block(first)[:2] if first else ("conv", 3)
        return StageSpec(
            channels=self.out(f"{prefix}.conv3.conv.weight"),
            depth=depth,
            hidden=hidden,
            concat_intermediates=depth > 0 and self.inside(f"{prefix}.conv3.conv.weight") == hidden * (2 + depth),
            block=kind,
            kernel=kernel,
        )

    def _dims(self, name: str) -> tuple[int, ...]:
        """Return the shape of a convolution's kernel."""
        tensor = self.state.get(name)
        if tensor is None or tensor.dim() != 4:
            found = "is missing" if tensor is None else f"has {tensor.dim()} dimensions, not 4"
            raise UserError(
                f"The weights belong to no network that Eyas knows: {name} {found}.",
                where=self.where,
                expected="the tensors of YOLO-NAS S, M, L, or a variant with other widths",
            )
        return tuple(tensor.shape)
