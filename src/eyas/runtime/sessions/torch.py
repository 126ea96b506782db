"""PyTorch as an engine, for runs that have not been compiled. The one module of the runtime that needs torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eyas.artifacts.run import Run
from eyas.errors import UserError
from eyas.types import FloatArray, UInt8Array, Vocabulary

if TYPE_CHECKING:
    import torch
    from torch import nn


class TorchSession:
    """A deployed network on a device, in float32, with BatchNorms and branches folded.

    Args:
        deployed: takes uint8 [N, H, W, 3] and returns (boxes [N, K, 4], scores [N, K, C]).
        device: where it runs.
    """

    name = "torch"

    def __init__(self, deployed: nn.Module, device: torch.device) -> None:
        import torch

        self._deployed = deployed.eval().to(device)
        self._device = device
        num = torch.get_num_threads()
        threads = f", {num} thread{'s' * (num != 1)}" if device.type == "cpu" else ""
        self.description = f"PyTorch {torch.__version__} on {device}{threads}, float32"

    def run(self, images: UInt8Array) -> tuple[FloatArray, FloatArray]:
        """Return (boxes, scores) of a batch; see `Session.run`."""
        import torch

        with torch.inference_mode():
            boxes, scores = self._deployed(torch.from_numpy(images).to(self._device))
            return boxes.float().contiguous().cpu().numpy(), scores.float().contiguous().cpu().numpy()

    def close(self) -> None:
        """Nothing is held but memory, which goes with the last reference."""


def open_run(run: Run, device: str = "auto") -> TorchSession:
    """Return a session on the weights of a run.

    Args:
        run: where it lies, and its settings.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU if there is one.

    Raises:
        UserError: the weights are missing or don't fit the model, or the device is not here.
        ModuleNotFoundError: torch is not installed.
    """
    from eyas.models import weights, zoo
    from eyas.models.decode import Deployed
    from eyas.models.fuse import fused

    place = pick_device(device)
    config = run.config
    net = zoo.build_described(config.model, Vocabulary(config.classes))
    net = weights.load_model(run.trained_weights(), net)
    return TorchSession(Deployed(fused(net), config.input, config.thresholds.candidates), place)


def pick_device(device: str) -> torch.device:
    """Return the device that a user's word means.

    Raises:
        UserError: there is no such device here.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"The device '{device}' can't be used: {str(error).splitlines()[0]}",
            expected="cpu, or cuda on a machine with an NVIDIA GPU and a CUDA build of torch",
            where="device",
        ) from None
    return torch.device(device)
