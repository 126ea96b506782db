"""What is learned from a teacher and how much of it, apart from the code so that a recipe can be read without torch."""

from __future__ import annotations

from dataclasses import dataclass

from eyas.errors import UserError


@dataclass(frozen=True)
class DistillSettings:
    """The teacher, and the weights of the distillation terms; a weight of 0 disables a term.

    Attributes:
        teacher: a run's folder, a .safetensors file or a YOLO-NAS checkpoint; None for no teacher.
        teacher_classes: a text file with the class names of the teacher, one per line, if the teacher does not include
            them.
        responses: weight of its class scores and boxes at each anchor point.
        boxes: weight of its boxes relative to its class scores.
        features: weight of the spatial attention of each channel of its features p3, p4, p5.
        localisation: weight of its distributions over the distances to a box's sides.
        temperature: temperature of those distributions, for teacher and student; higher values show less likely bins.
        feature_temperature: temperature of the features when they become distributions over the image.
    """

    teacher: str | None = None
    teacher_classes: str | None = None
    responses: float = 1.0
    boxes: float = 2.5
    features: float = 1.0
    localisation: float = 0.25
    temperature: float = 10.0
    feature_temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse factors and temperatures that mean nothing."""
        for name in ("responses", "boxes", "features", "localisation"):
            if getattr(self, name) < 0:
                where = f"distill.{name}"
                raise UserError(f"{where} is {getattr(self, name):g}.", expected="a factor, at least 0", where=where)
        for name in ("temperature", "feature_temperature"):
            if getattr(self, name) <= 0:
                where = f"distill.{name}"
                raise UserError(f"{where} is {getattr(self, name):g}.", expected="a temperature above 0", where=where)
