"""How many training samples a second one core makes: Eyas beside the plain four-decode mosaic.

    python benchmarks/loading.py [--rounds 7]

Makes 128 textured images (640 x 480, JPEG quality 92, 4:2:0, about 120 kB) in a temporary folder and runs every
contender in turn, round after round, so that a busy machine slows all of them alike. Times are CPU seconds of this
process, which runs on one thread; each contender's best round counts. Prints a table and writes
benchmarks/results/loading.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
import torch

from eyas.data.augment.config import AugmentPolicy
from eyas.data.index import DatasetIndex
from eyas.data.loading.cache import CacheKind
from eyas.data.loading.eval_loader import eval_loader
from eyas.data.loading.loader import train_loader
from eyas.data.paths import FileTable
from eyas.types import InputSpec

SIZE = 640
IMAGES = 128
BOXES = 7  # COCO has as many an image
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Contender:
    """A way to make samples: `run` makes one pass over the images and returns how many samples came out."""

    name: str
    run: Callable[[], int]


def make_image(seed: int, height: int = 480, width: int = 640) -> Image:
    """Return an image with detail at every size and some noise, as a photograph has."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), 120.0, np.float32)
    for cells in (4, 8, 16, 32, 64, 128, 256):
        coarse = rng.normal(0, 60 / cells**0.45, (cells * 3 // 4, cells, 3)).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 7.5, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def make_dataset(folder: Path) -> DatasetIndex:
    """Write the images and return their index with random boxes."""
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.jpg" for i in range(IMAGES)]
    for i, name in enumerate(names):
        (folder / name).write_bytes(simplejpeg.encode_jpeg(make_image(i), quality=92, colorsubsampling="420"))
    corner = rng.uniform(0, [560, 400], (IMAGES * BOXES, 2))
    sides = rng.uniform(16, 240, (IMAGES * BOXES, 2))
    boxes = np.concatenate([corner, np.minimum(corner + sides, [640, 480])], axis=1).astype(np.float32)
    return DatasetIndex(
        root=folder,
        split="train",
        classes=("a", "b", "c"),
        files=FileTable.build(folder, names),
        sizes=np.tile(np.array([480, 640], np.int32), (IMAGES, 1)),
        image_ids=np.arange(IMAGES),
        offsets=np.arange(IMAGES + 1) * BOXES,
        boxes=boxes,
        labels=rng.integers(0, 3, len(boxes)),
        crowd=np.zeros(len(boxes), bool),
        areas=np.zeros(len(boxes), np.float32),
        category_ids=(1, 2, 3),
    )


class PlainMosaic:
    """The four-decode mosaic as most detectors have it: four decodes, a canvas of twice the size, one warp, HSV, flip.

    Decoder, batch layout and box rules are those of Eyas, so that only the way to make a sample differs.
    """

    def __init__(self, index: DatasetIndex) -> None:
        self.index = index
        self.rng = np.random.default_rng(0)

    def one_pass(self) -> int:
        """Make one batch of 16 after another until every image has been the first of a mosaic once."""
        for start in range(0, IMAGES, 16):
            images = np.empty((16, SIZE, SIZE, 3), np.uint8)
            truths = [self.sample(start + row, images[row]) for row in range(16)]
            _ = torch.from_numpy(images), torch.from_numpy(np.concatenate([boxes for boxes, _ in truths]))
        return IMAGES

    def sample(self, first: int, out: Image) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Write one sample into `out`, return boxes and labels."""
        canvas = np.full((2 * SIZE, 2 * SIZE, 3), 114, np.uint8)
        cx, cy = (int(v) for v in self.rng.uniform(SIZE / 2, 1.5 * SIZE, 2))
        all_boxes, all_labels = [], []
        for corner, i in enumerate([first, *self.rng.integers(0, IMAGES, 3).tolist()]):
            image = simplejpeg.decode_jpeg(self.index.path(i).read_bytes())
            ratio = SIZE / max(image.shape[:2])
            if ratio != 1:
                image = cv2.resize(image, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_LINEAR)
            h, w = image.shape[:2]
            left, top = (cx - w if corner % 2 == 0 else cx), (cy - h if corner < 2 else cy)
            x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, 2 * SIZE), min(top + h, 2 * SIZE)
            canvas[y0:y1, x0:x1] = image[y0 - top : y1 - top, x0 - left : x1 - left]
            boxes, labels, _ = self.index.truth(i)
            all_boxes.append(boxes * ratio + np.array([left, top, left, top], np.float32))
            all_labels.append(labels)
        scale = self.rng.uniform(0.5, 1.5)
        shift = SIZE / 2 + self.rng.uniform(-0.1, 0.1, 2) * SIZE - SIZE * scale
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        warped: Image = np.empty((SIZE, SIZE, 3), np.uint8)
        cv2.warpAffine(canvas, matrix, (SIZE, SIZE), dst=warped, borderValue=(114, 114, 114))
        boxes = np.asarray(np.concatenate(all_boxes) * scale + np.tile(shift, 2), np.float32)
        clipped = boxes.clip(0, SIZE)
        sides = clipped[:, 2:] - clipped[:, :2]
        whole = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        kept = (sides.min(axis=1) >= 2) & (sides.prod(axis=1) >= 0.2 * whole)
        clipped = clipped[kept]
        self.hsv(warped)
        if self.rng.random() < 0.5:
            warped = np.fliplr(warped)
            clipped[:, [0, 2]] = SIZE - clipped[:, [2, 0]]
        out[...] = warped
        return clipped, np.concatenate(all_labels)[kept]

    def hsv(self, image: Image) -> None:
        """Jitter hue, saturation and value by lookup tables, in place."""
        gains = self.rng.uniform(-1, 1, 3) * [0.015, 0.7, 0.4] + 1
        hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
        steps = np.arange(256)
        tables = [(steps * gains[0]) % 180, (steps * gains[1]).clip(0, 255), (steps * gains[2]).clip(0, 255)]
        parts = [
            cv2.LUT(part, table.astype(np.uint8)) for part, table in zip((hue, saturation, value), tables, strict=True)
        ]
        cv2.cvtColor(cv2.merge(parts), cv2.COLOR_HSV2RGB, dst=image)


def contenders(index: DatasetIndex) -> list[Contender]:
    """Return what is compared; the first is the peer, the last the limit."""
    spec = InputSpec(SIZE, SIZE)

    def ours(policy: AugmentPolicy, cache: CacheKind = "none") -> Callable[[], int]:
        loader = train_loader(index, spec, policy, batch_size=16, seed=0, cache=cache)
        return lambda: sum(len(batch) for batch in loader)

    def decode() -> int:
        for i in range(IMAGES):
            simplejpeg.decode_jpeg(index.path(i).read_bytes())
        return IMAGES

    evaluation = eval_loader(index, spec, batch_size=16)
    return [
        Contender("plain four-decode mosaic", PlainMosaic(index).one_pass),
        Contender("Eyas, default policy", ours(AugmentPolicy())),
        Contender("Eyas, mosaic only", ours(AugmentPolicy(mixup=0.0))),
        Contender("Eyas, mixup on every sample", ours(AugmentPolicy(mixup=1.0))),
        Contender("Eyas, with gamma (lookup table)", ours(AugmentPolicy(gamma=0.3))),
        Contender("Eyas, with rotation (warp)", ours(AugmentPolicy(degrees=10.0))),
        Contender("Eyas, no mosaic (last epochs)", ours(AugmentPolicy().closing())),
        Contender("Eyas, images kept decoded", ours(AugmentPolicy(), "decoded")),
        Contender("Eyas, evaluation (letterbox)", lambda: sum(len(batch) for batch in evaluation)),
        Contender("one decode, nothing else", decode),
    ]


def measure(ways: list[Contender], rounds: int) -> dict[str, list[float]]:
    """Return the samples a CPU second of each contender in each round."""
    rates: dict[str, list[float]] = {way.name: [] for way in ways}
    for way in ways:
        way.run()  # fill caches, load code
    for _ in range(rounds):
        for way in ways:
            start = time.process_time()
            samples = way.run()
            rates[way.name].append(samples / (time.process_time() - start))
    return rates


def main() -> None:
    """Run the comparison, print the table, keep the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "loading.json")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        index = make_dataset(Path(folder))
        mean_bytes = float(np.mean([index.path(i).stat().st_size for i in range(IMAGES)]))
        rates = measure(contenders(index), arguments.rounds)
    peer = max(next(iter(rates.values())))
    print(f"{IMAGES} JPEGs of 640 x 480, {mean_bytes / 1e3:.0f} kB each; samples of {SIZE} px; one core, CPU time\n")
    print("| way | samples a second | median | against the plain mosaic |")
    print("| --- | ---: | ---: | ---: |")
    for name, values in rates.items():
        print(f"| {name} | {max(values):.0f} | {np.median(values):.0f} | {max(values) / peer:.2f} |")
    result = {
        "images": IMAGES,
        "mean_bytes": mean_bytes,
        "size": SIZE,
        "machine": machine(),
        "versions": {"opencv": cv2.__version__, "simplejpeg": simplejpeg.__version__, "numpy": np.__version__},
        "samples_per_cpu_second": rates,
        "ratio_to_plain_mosaic": {name: max(values) / peer for name, values in rates.items()},
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def machine() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
