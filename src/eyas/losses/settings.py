"""The loss's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from eyas.assign.settings import TaskAlignedSettings
from eyas.errors import UserError


@dataclass(frozen=True)
class DualSettings:
    """Additional loss settings of the head "dual".

    Attributes:
        l1_weight: weight of the L1 loss on the side distances, in strides, of the one-to-one branch; it replaces
            `dfl_weight`.
        dense_start, dense_end: weight of the dense branch at the start and the end of the run, linear in between; the
            one-to-one branch has the rest to 1 (ProgLoss, arXiv 2606.03748).
        assigner: constants of the one-to-one branch's assignment.
    """

    l1_weight: float = 1.0
    dense_start: float = 0.8
    dense_end: float = 0.1
    assigner: TaskAlignedSettings = field(default_factory=lambda: TaskAlignedSettings(top_k=7))

    def __post_init__(self) -> None:
        """Refuse weights that no branch can have."""
        for name in ("dense_start", "dense_end"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                where = f"loss.dual.{name}"
                raise UserError(f"{where} is {value}.", expected="a fraction between 0 and 1", where=where)


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms, and settings of the assigner; the defaults are YOLO-NAS's.

    Attributes:
        class_weight, iou_weight, dfl_weight: weights of the three loss terms.
        classification: classification loss, a row of `eyas.losses.class_losses.CLASS_LOSSES`.
        extra: additional box terms (`eyas.losses.box_terms.BOX_TERMS`) and their weights, such as {"l1": 0.5}.
        weighting: fixed keeps the weights; uncertainty learns an additional one for each term.
        assignment: assigner of anchor points to objects, a row of `eyas.assign.assigners.ASSIGNERS`.
        assigner: settings of the assigner.
        dual: additional settings of the head "dual".
    """

    class_weight: float = 1.0
    iou_weight: float = 2.5
    dfl_weight: float = 0.5
    classification: str = "varifocal"
    extra: dict[str, float] = field(default_factory=dict)
    weighting: str = "fixed"
    assignment: str = "task_aligned"
    assigner: TaskAlignedSettings = field(default_factory=TaskAlignedSettings)
    dual: DualSettings = field(default_factory=DualSettings)

    def box_weights(self) -> dict[str, float]:
        """Return the factors of all terms that concern boxes, by name."""
        return {"iou": self.iou_weight, "dfl": self.dfl_weight, **self.extra}
