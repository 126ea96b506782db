"""The published networks' tensors, written down from their tables and not from Eyas's code: the tests' golden list."""

from __future__ import annotations

from dataclasses import dataclass, field

Shape = tuple[int, ...]


@dataclass
class Tensors:
    """Collects names and shapes; `fused` leaves one 3x3 of each re-parameterisable block."""

    fused: bool = False
    shapes: dict[str, Shape] = field(default_factory=dict)

    def conv(self, name: str, out: int, inside: int, kernel: int, bias: bool = True) -> None:
        self.shapes[f"{name}.weight"] = (out, inside, kernel, kernel)
        if bias:
            self.shapes[f"{name}.bias"] = (out,)

    def norm(self, name: str, width: int) -> None:
        vectors = ("weight", "bias", "running_mean", "running_var")
        self.shapes.update({f"{name}.{each}": (width,) for each in vectors})
        self.shapes[f"{name}.num_batches_tracked"] = ()

    def plain(self, name: str, inside: int, out: int, kernel: int = 1) -> None:
        self.conv(f"{name}.conv", out, inside, kernel, bias=False)
        self.norm(f"{name}.bn", out)

    def rep(self, name: str, inside: int, out: int) -> None:
        if not self.fused:
            self.plain(f"{name}.branch_3x3", inside, out, 3)
            self.conv(f"{name}.branch_1x1", out, inside, 1)
            self.norm(f"{name}.post_bn", out)
        self.conv(f"{name}.rbr_reparam", out, inside, 3)

    def csp(
        self, name: str, inside: int, out: int, blocks: int, hidden: int, dense: bool = False, rep: bool = True
    ) -> None:
        self.plain(f"{name}.conv1", inside, hidden)
        self.plain(f"{name}.conv2", inside, hidden)
        self.plain(f"{name}.conv3", hidden * (2 + dense * blocks), out)
        for block in range(blocks):
            for half in ("cv1", "cv2"):
                where = f"{name}.bottlenecks.{block}.{half}"
                self.rep(where, hidden, hidden) if rep else self.plain(where, hidden, hidden, 3)
            self.shapes[f"{name}.bottlenecks.{block}.alpha"] = (1,)

    def up(self, name: str, inside: int, skips: tuple[int, int], out: int, blocks: int, hidden: int) -> None:
        self.plain(f"{name}.reduce_skip1", skips[0], out)
        self.plain(f"{name}.reduce_skip2", skips[1], out)
        self.plain(f"{name}.conv", inside, out)
        self.conv(f"{name}.upsample", out, out, 2)
        self.plain(f"{name}.downsample", out, out, 3)
        self.plain(f"{name}.reduce_after_concat", 3 * out, out)
        self.csp(f"{name}.blocks", out, out, blocks, hidden)

    def down(self, name: str, inside: int, skip: int, out: int, blocks: int, hidden: int) -> None:
        self.plain(f"{name}.conv", inside, out // 2, 3)
        self.csp(f"{name}.blocks", out // 2 + skip, out, blocks, hidden, rep=False)

    def head(self, name: str, inside: int, width: int, num_classes: int) -> None:
        self.plain(f"{name}.stem.seq", inside, width)
        self.plain(f"{name}.cls_convs.0.seq", width, width, 3)
        self.plain(f"{name}.reg_convs.0.seq", width, width, 3)
        self.conv(f"{name}.cls_pred", num_classes, width, 1)
        self.conv(f"{name}.reg_pred", 4 * 17, width, 1)


@dataclass(frozen=True)
class Row:
    """What tells the published sizes apart."""

    hidden: Shape
    dense: tuple[bool, ...]
    neck: tuple[tuple[int, int], ...]  # (blocks, hidden)
    head: Shape


ROWS = {
    "yolo_nas_s": Row((32, 64, 96, 192), (False,) * 4, ((2, 64), (2, 48), (2, 64), (2, 64)), (64, 128, 256)),
    "yolo_nas_m": Row(
        (64, 128, 256, 384), (True, True, True, False), ((2, 192), (3, 64), (2, 192), (3, 256)), (96, 192, 384)
    ),
    "yolo_nas_l": Row((96, 128, 256, 512), (True,) * 4, ((4, 128), (4, 128), (4, 128), (4, 256)), (128, 256, 512)),
}


def reference_shapes(name: str, num_classes: int = 80, fused: bool = False) -> dict[str, Shape]:
    """Return name -> shape of every tensor of the published network."""
    row, tensors = ROWS[name], Tensors(fused)
    tensors.rep("backbone.stem.conv", 3, 48)
    widths = (48, 96, 192, 384, 768)
    for stage, blocks in enumerate((2, 3, 5, 2)):
        where = f"backbone.stage{stage + 1}"
        inside, out = widths[stage : stage + 2]
        tensors.rep(f"{where}.downsample", inside, out)
        tensors.csp(f"{where}.blocks", out, out, blocks, row.hidden[stage], row.dense[stage])
    tensors.plain("backbone.context_module.cv1", 768, 384)
    tensors.plain("backbone.context_module.cv2", 4 * 384, 768)
    tensors.up("neck.neck1", 768, (384, 192), 192, *row.neck[0])
    tensors.up("neck.neck2", 192, (192, 96), 96, *row.neck[1])
    tensors.down("neck.neck3", 96, 96, 192, *row.neck[2])
    tensors.down("neck.neck4", 192, 192, 384, *row.neck[3])
    for level, (inside, width) in enumerate(zip((96, 192, 384), row.head, strict=True)):
        tensors.head(f"heads.head{level + 1}", inside, width, num_classes)
    return tensors.shapes
