"""Two runs that a sound detector must pass: overfitting 16 images, and learning the synthetic set.

    python benchmarks/sanity.py overfit --data data/stamps     # AP on the 16 images it is trained on: at least 0.9
    python benchmarks/sanity.py shapes                         # AP on unseen synthetic images: at least 0.7

Writes benchmarks/results/sanity_NAME.json with AP, steps, seconds and processor seconds.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import tempfile
from pathlib import Path

from eyas.data.formats import load_dataset
from eyas.data.formats.coco import to_coco
from eyas.data.shapes import make_shapes
from eyas.training.config_overrides import override
from eyas.training.fit import fit
from eyas.training.recipe import Recipe
from eyas.training.recipes import named

LIMITS = {"overfit": 0.9, "shapes": 0.7}


def sixteen(source: str, root: Path) -> Path:
    """Write the first 16 training images of a data set as a COCO data set that is its own validation split."""
    index = load_dataset(source, "train").subset(range(16))
    (root / "train").mkdir(parents=True)
    (root / "annotations").mkdir()
    for path in index.files:
        shutil.copy(path, root / "train" / path.name)
    content = to_coco(index, index.path(0).parent)
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))
    return root


def overfit(source: str, folder: Path) -> Recipe:
    """Return the recipe that shows the same 16 images, unaugmented, until they are known by heart."""
    fields = {
        "data.root": str(sixteen(source, folder / "sixteen")), "data.val": "train", "data.size": 320,
        "model.name": "p", "trainer.epochs": 120, "trainer.val_every": 30, "trainer.close_epochs": 0,
        "optim.lr": 3e-3, "optim.warmup_steps": 40, "optim.weight_decay": 0.0, "optim.ema": 0.98, "data.workers": 0,
        "augment.mosaic": 0.0, "augment.mixup": 0.0, "augment.flip": 0.0, "augment.scale": [1.0, 1.0],
        "augment.translate": 0.0, "augment.gain": 0.0, "augment.offset": 0.0, "augment.saturation": 0.0,
        "augment.hue": 0.0, "augment.tint": 0.0, "data.batch_size": 8, "augment.min_visible": 0.0,
    }  # fmt: skip
    return override(named("scratch"), fields)


def shapes(folder: Path) -> Recipe:
    """Return the recipe for the synthetic set: 800 images of 192 px, the quick recipe for 50 epochs."""
    root = make_shapes(folder / "shapes", train=800, val=160, size=192, seed=0)
    return override(
        named("quick"),
        {"data.root": str(root), "data.size": 192, "trainer.epochs": 50, "trainer.val_every": 5, "optim.ema": 0.999},
    )


def main() -> None:
    """Train, and say whether the limit was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=LIMITS)
    parser.add_argument("--data", help="a data set with at least 16 training images (overfit)")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        recipe = overfit(args.data, folder) if args.name == "overfit" else shapes(folder)
        run = fit(recipe, folder / "run")
        with (run / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("AP")]
    best = max(rows, key=lambda row: float(row["AP"]))
    result = {"limit": LIMITS[args.name]} | {
        key: float(best[key]) for key in ("AP", "AP50", "step", "epoch", "seconds", "cpu_seconds")
    }
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"sanity_{args.name}.json").write_text(json.dumps(result, indent=2) + "\n")
    verdict = "reached" if result["AP"] >= result["limit"] else "NOT reached"
    print(f"AP {result['AP']:.3f} after {result['seconds']:.0f} s: the limit of {result['limit']} is {verdict}")


if __name__ == "__main__":
    main()
