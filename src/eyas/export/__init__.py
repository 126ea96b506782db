"""From a run to a bundle: one graph, compiled for one runtime, checked before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyas.artifacts.bundle import Bundle


def compile(  # noqa: A001
    run: str | Path,
    target: str = "onnx",
    precision: str = "fp32",
    out: str | Path | None = None,
    **settings: Any,
) -> Bundle:
    """Compile a run into a bundle that runs without torch, and return it; it passed every gate.

    Args:
        run: the run's folder.
        target: "onnx", "openvino", "tensorrt" or "tensorrt-rtx".
        precision: "fp32", "fp16", "bf16" or "int8".
        out: the bundle's folder, new or empty; by default `bundles/RUN-TARGET-PRECISION`.
        settings: further fields of `eyas.export.settings.Settings`: size, batch, nms, candidates, data, split, ...

    Raises:
        UserError: the run or a setting can't be used, or a gate was not passed; no bundle is left then.
    """
    from eyas.export.bundle import compile_run
    from eyas.export.settings import Settings

    return compile_run(run, out, Settings(target=target, precision=precision, **settings))
