"""Lightning resumes a training loader in mid-epoch by itself: the trainer sees the same batches as without a break."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path

import lightning
import pytest
import torch
from tests.data.makers import words
from tests.data.scenes import dataset

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading.batch import Batch
from eyas.data.loading.loader import train_loader
from eyas.types import InputSpec


class Recorder(lightning.LightningModule):
    """Notes the checksum of every batch it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[int] = []

    def training_step(self, batch: Batch, _: int) -> torch.Tensor:
        self.seen.append(
            zlib.crc32(repr((batch.images.numpy().tobytes(), batch.boxes.tolist(), batch.extras)).encode())
        )
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Stop(lightning.Callback):
    """Ends training after a step in one of the ways that happen, with the state saved as it is then saved."""

    def __init__(self, how: str, step: int, file: Path) -> None:
        self.how, self.step, self.file = how, step, file

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: object) -> None:
        if trainer.global_step != self.step:
            return
        if self.how == "crash":
            trainer.save_checkpoint(self.file)
            raise RuntimeError("power cut")
        trainer.should_stop = True  # as a time limit does

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if self.how == "time" and trainer.should_stop:
            trainer.save_checkpoint(self.file)


def fit(
    index: DatasetIndex, workers: int, steps: int, stop: lightning.Callback | None = None, resume: Path | None = None
) -> tuple[list[int], lightning.Trainer]:
    """Train for some steps; return the checksums of the batches and the trainer."""
    module = Recorder()
    trainer = lightning.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[stop] if stop else [],
    )  # fmt: skip
    loader = train_loader(
        index, InputSpec(32, 32, margin=0), AugmentPolicy(), batch_size=4, seed=1, workers=workers, make_extras=words
    )
    with contextlib.suppress(RuntimeError):
        trainer.fit(module, loader, ckpt_path=resume, weights_only=True)
    loader.close()
    return module.seen, trainer


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DatasetIndex:
    """Return 22 images: five batches of four in an epoch."""
    return dataset(tmp_path_factory.mktemp("images"), 22)


@pytest.fixture(scope="module")
def whole(index: DatasetIndex) -> list[int]:
    """Return the batches of a training that was never stopped."""
    return fit(index, 0, 13)[0]


# Every end of training at two of three places (in an epoch, at its end, in the next one), with and without workers.
@pytest.mark.parametrize(
    ("how", "step", "workers"),
    [("crash", 3, 0), ("crash", 5, 2), ("time", 5, 0), ("time", 7, 2), ("steps", 3, 2), ("steps", 7, 0)],
)
def test_stop_and_resume_is_as_if_never_stopped(
    index: DatasetIndex, whole: list[int], tmp_path: Path, how: str, step: int, workers: int
) -> None:
    assert len(whole) == len(set(whole)) == 13
    file = tmp_path / "state.ckpt"
    if how == "steps":
        first, trainer = fit(index, workers, step)
        trainer.save_checkpoint(file)
    else:
        first, _ = fit(index, workers, 13, Stop(how, step, file))
    second, _ = fit(index, 2 - workers, 13, resume=file)
    assert first == whole[:step]
    assert second == whole[step:]
