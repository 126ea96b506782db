"""The module that is exported: a run's network, fused, in the type asked for, with or without suppression inside."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from eyas.artifacts.manifest import SuppressionPlace
from eyas.artifacts.run import Run, RunConfig
from eyas.errors import UserError
from eyas.models import zoo
from eyas.models.decode import Deployed
from eyas.models.detection_net import head_row_of
from eyas.models.fuse import fused
from eyas.models.weights import load_model
from eyas.types import Suppression, Vocabulary

CANDIDATES = 300  # anchors an image that leave the graph; what that costs in mAP stands in docs/compile.md
PAIRS = 1000  # (box, class) pairs that take part in suppression inside the graph
ROUNDS = 5  # of suppression inside the graph: longer chains of boxes that suppress one another are not followed

# Precision -> the type of the network's weights and activations. INT8 is written into the float32 graph afterwards.
DTYPES: Mapping[str, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.float32}
)


class Typed(nn.Module):
    """A network whose convolutions work in another type; its predictions come out in float32, as always.

    BatchNorms must be folded before: folded by an exporter they leave float32 weights in a bfloat16 graph.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = copy.deepcopy(net).to(dtype)
        self.dtype = dtype

    def forward(self, images: Tensor) -> Any:
        """Return the network's raw output for float images [B, 3, H, W]."""
        return self.net(images.to(self.dtype))


class Suppressed(nn.Module):
    """A deployed network followed by class-wise non-maximum suppression in plain operators of fixed shapes.

    The best (box, class) pairs are sorted by score, and a pair is dropped if a better one of its class that is itself
    kept overlaps it: Cluster-NMS (Zheng et al., arXiv 2005.03572), whose rounds approach greedy suppression. With as
    many rounds as the longest chain of boxes it equals it; here their number is fixed, for a graph without loops.

    Args:
        deployed: gives (boxes [B, K, 4], scores [B, K, C]).
        iou: the overlap above which the weaker box is dropped.
        pairs: how many (box, class) pairs take part.
        most: how many of them come out, the best survivors first.
        rounds: how often the survivors are worked out again.
    """

    def __init__(self, deployed: nn.Module, iou: float, pairs: int, most: int, rounds: int = ROUNDS) -> None:
        super().__init__()
        self.deployed = deployed
        self.iou = iou
        self.pairs = pairs
        self.most = most
        self.rounds = rounds

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes float32 [B, M, 4] and scores float32 [B, M, C]: each row has one class, dropped ones none."""
        boxes, scores = self.deployed(images)
        classes = scores.shape[2]
        flat = scores.flatten(1)
        best, index = flat.topk(torch.sym_min(self.pairs, flat.shape[1]), dim=1)  # type: ignore[no-untyped-call]
        anchors = torch.div(index, classes, rounding_mode="floor")
        labels = index - anchors * classes
        boxes = boxes.gather(1, anchors.unsqueeze(-1).expand(-1, -1, 4))
        kept = survivors(boxes, labels, self.iou, self.rounds)
        # Those that were dropped have the score 0 now, and make room for weaker ones that were not.
        best, order = (best * kept).topk(torch.sym_min(self.most, best.shape[1]), dim=1)  # type: ignore[no-untyped-call]
        boxes = boxes.gather(1, order.unsqueeze(-1).expand(-1, -1, 4))
        rows = labels.gather(1, order).unsqueeze(-1) == torch.arange(classes, device=labels.device)
        return boxes, rows.float() * best.unsqueeze(-1)


def survivors(boxes: Tensor, labels: Tensor, iou: float, rounds: int) -> Tensor:
    """Return float [B, P], 1 for each box that suppression keeps and 0 for the others.

    Args:
        boxes: float [B, P, 4], xyxy, best score first.
        labels: int64 [B, P].
        iou: the overlap above which the weaker box is dropped.
        rounds: of Cluster-NMS.
    """
    low = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    high = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = (boxes[:, :, 2:] - boxes[:, :, :2]).clamp(min=0).prod(-1)
    overlaps = common > iou * (areas[:, :, None] + areas[:, None, :] - common)
    order = torch.arange(boxes.shape[1], device=boxes.device)
    better = order[:, None] < order[None, :]
    drops = (overlaps & better & (labels[:, :, None] == labels[:, None, :])).float()  # [B, by, whom]
    kept = torch.ones_like(areas)
    for _ in range(rounds):
        kept = 1.0 - (drops * kept.unsqueeze(-1)).amax(1)
    return kept


def suppression_place(asked: SuppressionPlace | None, needed: Suppression) -> SuppressionPlace:
    """Return where a bundle's overlapping boxes are dropped: "host", "graph", or "none" for nowhere.

    Args:
        asked: one of these, or None for what the network needs.
        needed: the suppression that the run's thresholds name, "none" for a network that gives one box an object.

    Raises:
        UserError: the network does not give what is asked for.
    """
    if asked is None:
        return "none" if needed == "none" else "host"
    if asked == "graph" and needed == "none":
        raise UserError(
            "The network predicts one box per object: suppression in the graph has nothing to drop and would lose "
            "objects that are close together.",
            where="nms",
            expected="none, or host to drop overlapping boxes anyway",
            fix="leave nms out",
        )
    if asked == "none" and needed != "none":
        raise UserError(
            "The network predicts several boxes per object: without suppression each object would be reported many "
            "times.",
            where="nms",
            expected="host or graph",
            fix="leave nms out; to show every box when using the bundle, set suppression='none' (--nms none)",
        )
    return asked


def load_net(run: Run) -> nn.Module:
    """Return the run's network in eval mode, every BatchNorm and branch folded.

    Raises:
        UserError: the weights are missing or don't fit the model.
    """
    path = run.trained_weights()
    return fused(load_model(path, zoo.build_described(run.config.model, Vocabulary(run.config.classes))))


def deployed(
    net: nn.Module, config: RunConfig, *, precision: str = "fp32", nms: str = "host", candidates: int = CANDIDATES
) -> nn.Module:
    """Return what is exported: uint8 [B, H, W, 3] in, boxes [B, K, 4] and scores [B, K, C] out.

    Args:
        net: what `load_net` returned; it is left as it is.
        config: the run's.
        precision: of the network.
        nms: "graph" for suppression in here, with the run's IoU threshold; "host" and "none" leave it out.
        candidates: how many boxes to keep; with `nms="graph"` how many survivors of `PAIRS` (box, class) pairs, or of
            so many if that is more.
    """
    typed = net if DTYPES[precision] == torch.float32 else Typed(net, DTYPES[precision])
    graph = Deployed(typed, config.input, candidates, head_row_of(net).decode)
    pairs = max(PAIRS, candidates)
    return (Suppressed(graph, config.thresholds.iou, pairs, candidates) if nms == "graph" else graph).eval()
