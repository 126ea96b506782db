"""The loss's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from eyas.assign.settings import TaskAlignedSettings
from eyas.errors import UserError


@dataclass(frozen=True)
class DualSettings:
    """What the loss of the head "dual" has beside the others' settings.

    Attributes:
        l1_weight: factor of the distances of the sides, in strides: the one-to-one branch's, in the place of
            `dfl_weight`.
        dense_start, dense_end: factor of the dense branch's terms at the start and at the end of the run, in a straight
            line between; the rest to 1 is the one-to-one branch's (ProgLoss, arXiv 2606.03748).
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
                raise UserError(f"{where} is {value}.", expected="a share between 0 and 1", where=where)


@dataclass(frozen=True)
class LossSettings:
    """Weights of the terms and constants of the assigner; the defaults are YOLO-NAS's.

    Attributes:
        class_weight, iou_weight, dfl_weight: factors of the three terms in the total.
        classification: what the class scores learn by, a row of `eyas.losses.class_losses.CLASS_LOSSES`.
        extra: further terms of the boxes (`eyas.losses.box_terms.BOX_TERMS`) and their factors, as {"l1": 0.5}.
        weighting: fixed keeps these factors; uncertainty learns one more for each term.
        assignment: which anchor points learn an object, a row of `eyas.assign.assigners.ASSIGNERS`.
        assigner: its constants.
        dual: what the head "dual" has beside these.
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
