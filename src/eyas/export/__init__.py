"""From a run to a bundle: one graph, compiled for one runtime, checked before it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eyas.artifacts.bundle import Bundle


def compile(  # noqa: A001
    run: str | Path,
    target: str = "onnx-fp32",
    *,
    out: str | Path | None = None,
    max_drop: float | None = None,
    precision: str | None = None,
    **settings: Any,
) -> Bundle:
    """Compile a run into a bundle that runs without torch, and return it; it passed every gate.

    Args:
        run: the run's folder.
        target: RUNTIME-PRECISION: of onnx, openvino, tensorrt and tensorrt-rtx in fp32, fp16, bf16 and int8; or "auto"
            for the fastest on this machine that is good enough, "openvino-auto", "auto-int8".
        out: the bundle's folder, new or empty; by default `bundles/RUN-TARGET-PRECISION`.
        max_drop: how many points of AP (of 100) the bundle may lie below the run; None takes what fits the precision.
        precision: of a target in two words, as in earlier releases.
        settings: further fields of `eyas.export.settings.BuildSettings`: size, batch, nms, candidates, data, split, ...

    Raises:
        UserError: the run or a setting can't be used, or a gate was not passed; no bundle is left then.
    """
    from eyas.export.auto import candidates, compile_auto
    from eyas.export.bundle import compile_run
    from eyas.export.settings import BuildSettings
    from eyas.export.target import parse_target

    runtime, kind = parse_target(target, precision)
    if max_drop is not None:
        settings["budget"] = max_drop / 100
    if "auto" in (runtime, kind):
        return compile_auto(run, out, BuildSettings(**settings), pairs=candidates(runtime, kind))[0]
    return compile_run(run, out, BuildSettings(target=runtime, precision=kind, **settings))
