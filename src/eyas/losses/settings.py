"""The loss's constants, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from eyas.assign.settings import TaskAlignedSettings


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
    """

    class_weight: float = 1.0
    iou_weight: float = 2.5
    dfl_weight: float = 0.5
    classification: str = "varifocal"
    extra: dict[str, float] = field(default_factory=dict)
    weighting: str = "fixed"
    assignment: str = "task_aligned"
    assigner: TaskAlignedSettings = field(default_factory=TaskAlignedSettings)

    def box_weights(self) -> dict[str, float]:
        """Return the factors of all terms that concern boxes, by name."""
        return {"iou": self.iou_weight, "dfl": self.dfl_weight, **self.extra}
