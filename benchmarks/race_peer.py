"""The peer of the race: trains, evaluates and exports a model of the package `ultralytics`, and writes what it found.

    PYTHON benchmarks/race_peer.py train DATA.yaml FOLDER yolo11n SIZE MINUTES SEED cpu
    PYTHON benchmarks/race_peer.py detect DATA.yaml FOLDER yolo11n SIZE val cpu
    PYTHON benchmarks/race_peer.py export DATA.yaml FOLDER yolo11n SIZE
    PYTHON benchmarks/race_peer.py time DATA.yaml FOLDER yolo11n SIZE IMAGE...   # serves `race_latency.py`

The package is AGPL-3.0: it is run as it is published, in an environment of its own; nothing of Eyas imports it, ships
it or depends on it. It trains from scratch with its own defaults for the time that it is given, evaluates with its own,
and its own choice of the best epoch (`best.pt`) is what is scored. Only its plots, which take time, are left out.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import torch

MOST = 300  # detections an image that the package keeps; suppression may stop there


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of each of N boxes with each of M others, float32 [N, M]; boxes are xyxy."""
    corner = np.maximum(boxes[:, None, :2], others[None, :, :2])
    common = (np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - corner).clip(min=0).prod(axis=2)
    own, other = ((each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others))
    with np.errstate(invalid="ignore"):  # boxes without area drop nothing
        return common / (own[:, None] + other[None] - common)


def plain_nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, block: int = 256) -> torch.Tensor:
    """Return the rows that greedy non-maximum suppression keeps, best first, 300 at most.

    Args:
        boxes: float [N, 4], xyxy.
        scores: float [N].
        iou_threshold: a box that overlaps a better one more than this is dropped.
        block: boxes that are looked at together.
    """
    order = scores.argsort(descending=True, stable=True)
    ranked = boxes[order].numpy()
    kept: list[int] = []
    for start in range(0, len(ranked), block):
        part = ranked[start : start + block]
        dropped = (overlap(part, ranked[kept]) > iou_threshold).any(axis=1)
        drops = overlap(part, part) > iou_threshold
        for i in range(len(part)):
            if not dropped[i]:
                kept.append(start + i)
                dropped |= drops[i]
        if len(kept) >= MOST:
            break
    return order[torch.tensor(kept[:MOST], dtype=torch.int64)]


def stand_in_for_torchvision() -> None:
    """Give torchvision a suppression where its own library does not load (a wheel for CUDA beside a CPU torch).

    It is as fast as torchvision's, so the peer's evaluations take no longer than they would.
    """
    try:
        import torchvision
    except (ImportError, RuntimeError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]  # half imported
    else:
        return
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):  # torchvision can't be imported where these operators are unknown
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

    torchvision.ops.nms = torchvision.ops.boxes.nms = plain_nms
    torchvision._library = library  # its operators are gone when it is collected


def train(data: str, folder: Path, model: str, size: int, minutes: float, seed: int, device: str) -> None:
    """Train from scratch for a time, and say what was done in FOLDER/about.json."""
    import ultralytics

    start = time.perf_counter()
    network = ultralytics.YOLO(f"{model}.yaml")
    network.train(
        data=data, imgsz=size, time=minutes / 60, seed=seed, device="0" if device == "cuda" else device,
        pretrained=False, plots=False, project=str(folder), name="run", exist_ok=True,
        **({"workers": 0} if device == "cpu" else {}),
    )  # fmt: skip
    rows = (folder / "run" / "results.csv").read_text(encoding="utf-8").splitlines()[1:]
    about = {
        "version": ultralytics.__version__,
        "torch": torch.__version__,
        "seconds": time.perf_counter() - start,
        "epochs": len(rows),
        "optimizer": type(network.trainer.optimizer).__name__,
        "batch": int(network.trainer.batch_size),
    }
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")


def detect(data: str, folder: Path, size: int, split: str, device: str) -> None:
    """Evaluate best.pt as the package does, and write FOLDER/SPLIT.json: its own numbers and its detections.

    Rows of the detections are the image's file name, left, top, right, bottom, score, class; in its original pixels.
    """
    import ultralytics

    network = ultralytics.YOLO(folder / "run" / "weights" / "best.pt")
    found = network.val(
        data=data, split=split, imgsz=size, device="0" if device == "cuda" else device, plots=False, save_json=True,
        project=str(folder), name=f"val-{split}", exist_ok=True, **({"workers": 0} if device == "cpu" else {}),
    )  # fmt: skip
    listed = json.loads((Path(found.save_dir) / "predictions.json").read_text(encoding="utf-8"))
    rows = []
    for one in listed:
        left, top, width, height = one["bbox"]
        rows.append([one["file_name"], left, top, left + width, top + height, one["score"], one["category_id"] - 1])
    if not all(0 <= row[-1] < len(network.names) for row in rows):
        raise SystemExit("the package counts classes in predictions.json in another way than from 1")
    report = {"AP": float(found.box.map), "AP50": float(found.box.map50), "names": network.names, "rows": rows}
    (folder / f"{split}.json").write_text(json.dumps(report), encoding="utf-8")


def export(data: str, folder: Path, size: int) -> None:
    """Export best.pt to OpenVINO in INT8, calibrated as the package does by default; FOLDER/int8.json says where."""
    import ultralytics

    network = ultralytics.YOLO(folder / "run" / "weights" / "best.pt")
    path = network.export(format="openvino", int8=True, data=data, imgsz=size)
    (folder / "int8.json").write_text(json.dumps({"path": str(path)}), encoding="utf-8")


def serve_times(folder: Path, size: int, images: list[str]) -> None:
    """For each line of seconds on stdin call the export for so long, and write a line of JSON to stdout.

    It has a row for each call: milliseconds of decoding the JPEG bytes, of all from there to boxes, and of the engine.
    """
    import ultralytics

    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what the package prints is no answer
    path = json.loads((folder / "int8.json").read_text(encoding="utf-8"))["path"]
    network = ultralytics.YOLO(path, task="detect")
    files = itertools.cycle([np.frombuffer(Path(one).read_bytes(), np.uint8) for one in images])
    for line in sys.stdin:
        end, calls = time.perf_counter() + float(line), []
        while not calls or time.perf_counter() < end:
            began = time.perf_counter()
            image = cv2.imdecode(next(files), cv2.IMREAD_COLOR)
            decoded = time.perf_counter()
            (result,) = network.predict(image, imgsz=size, device="cpu", verbose=False)
            ended = time.perf_counter()
            calls.append((1000 * (decoded - began), 1000 * (ended - decoded), result.speed["inference"]))
        answers.write(json.dumps(calls) + "\n")
        answers.flush()


def main() -> None:
    """Do what the first word says."""
    verb, data, name, model, size, *rest = sys.argv[1:]
    folder = Path(name).resolve()  # the package would lay a relative one below a folder of its own
    folder.mkdir(parents=True, exist_ok=True)
    if torch.get_num_threads() == 1:  # one core was given: the package would take one less than the machine has
        torch.set_num_threads = lambda _: None
    stand_in_for_torchvision()
    if verb == "train":
        train(data, folder, model, int(size), float(rest[0]), int(rest[1]), rest[2])
    elif verb == "detect":
        detect(data, folder, int(size), rest[0], rest[1])
    elif verb == "export":
        export(data, folder, int(size))
    elif verb == "time":
        serve_times(folder, int(size), rest)
    else:
        raise SystemExit(f"{verb} is none of train, detect, export, time")


if __name__ == "__main__":
    main()
