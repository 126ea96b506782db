"""Losses: pure functions of tensors that return named terms."""

from __future__ import annotations

from eyas.losses.detection import LossSettings, detection_loss
from eyas.losses.distribution import distribution_focal
from eyas.losses.giou import giou_loss
from eyas.losses.varifocal import varifocal

__all__ = ["LossSettings", "detection_loss", "distribution_focal", "giou_loss", "varifocal"]
