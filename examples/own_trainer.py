"""Bring your own Lightning Trainer: Eyas's module and datamodule with your callbacks, loggers and strategy.

python examples/own_trainer.py data/shapes
"""

import sys

import eyas.training  # noqa: F401  # first: Lightning fails beside a torchvision that torch does not fit

# isort: split
import lightning as L

from eyas.models.zoo import build
from eyas.training.callbacks import essential
from eyas.training.data import DetectionData
from eyas.training.module import DetectionModule
from eyas.training.recipe import DataRecipe

data = DetectionData(DataRecipe(root=sys.argv[1], size=256, batch_size=8), epochs=2)
model = DetectionModule(build("p", len(data.classes)), data.classes, data.recipe.input_spec())
trainer = L.Trainer(
    max_epochs=2, callbacks=essential(), use_distributed_sampler=False, num_sanity_val_steps=0, logger=False
)
trainer.fit(model, data)
print(trainer.callback_metrics["val/AP"])
