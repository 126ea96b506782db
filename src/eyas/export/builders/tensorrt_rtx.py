"""The builder for TensorRT-RTX: the same code as TensorRT's."""

from __future__ import annotations

from functools import partial

from eyas.export.builders import tensorrt

build = partial(tensorrt.build, target="tensorrt-rtx")
