"""The check finds each planted fault, names it, finds nothing in a clean dataset, and draws its numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from rich.console import Console
from tests.data.cases import coco_root, edit_coco, voc_root, write_jpeg, yolo_root

from eyas.data.checks.boxes import check_boxes
from eyas.data.checks.chart import write_chart
from eyas.data.checks.check import check_dataset, dataset_numbers
from eyas.data.checks.findings import CheckReport, Finding
from eyas.data.checks.report import print_report
from eyas.data.checks.statistics import split_statistics
from eyas.data.formats import load_dataset
from eyas.data.index import build_index
from eyas.data.shapes import make_shapes
from eyas.decode import read_image
from eyas.errors import UserError

ALWAYS = {"class without boxes", "rare class"}  # in datasets of a few boxes


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("clean") / "shapes", train=40, val=40, size=96, seed=5)


def found(root: Path, kind: str) -> list[Finding]:
    """Return the findings of a kind in the dataset."""
    return [each for each in check_dataset(root).findings if each.kind == kind]


def test_a_clean_dataset_has_no_fault(clean: Path) -> None:
    report = check_dataset(clean)
    assert report.findings == ()
    assert not report.has_errors
    assert report.splits["train"].images == 40


@pytest.mark.parametrize("make", [coco_root, yolo_root, voc_root])
def test_every_format_is_checked(make: Callable[[Path], Path], tmp_path: Path) -> None:
    report = check_dataset(make(tmp_path))
    assert {each.kind for each in report.findings if each.level == "error"} == set()
    assert {each.kind for each in report.findings} <= ALWAYS | {"mostly background"}


def test_missing_unreadable_and_truncated_images(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    (root / "train" / "a.jpg").unlink()
    data = write_jpeg(root / "train" / "b.jpg", 300, 400).read_bytes()
    (root / "train" / "b.jpg").write_bytes(data[: len(data) // 2])
    (root / "val" / "a.jpg").write_bytes(b"")
    assert found(root, "missing image")[0].examples == ("train/a.jpg",)
    unreadable = found(root, "unreadable image")
    assert [(each.split, each.count) for each in unreadable] == [("train", 1), ("val", 1)]
    assert unreadable[0].examples[0].startswith("train/b.jpg: The image is truncated")
    assert check_dataset(root).has_errors


def test_wrong_size_and_exif_turned(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["images"][0].update(width=30, height=40))
    edit_coco(root, lambda d: d["images"][1].update(width=50))
    told = found(root, "wrong image size")[0].examples
    assert told[0] == "train/a.jpg is 40x30, annotated as 30x40 (rotated: the labels ignore its EXIF orientation)"
    assert told[1] == "train/b.jpg is 40x30, annotated as 50x30"


@pytest.mark.parametrize(
    ("bbox", "kind", "level"),
    [
        ([5, 5, 0, 9], "empty box", "error"),
        ([5, 5, 9, -1], "empty box", "error"),
        ([50, 5, 9, 9], "box outside", "error"),
        ([35, 5, 20, 9], "box outside", "error"),
        ([-6, 5, 20, 9], "box sticks out", "warning"),
    ],
)
def test_bad_boxes(bbox: list[float], kind: str, level: str, tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["annotations"][0].update(bbox=bbox))
    report = [each for each in check_dataset(root).findings if each.kind not in ALWAYS]
    assert [(each.kind, each.level, each.split, each.count) for each in report] == [(kind, level, "train", 1)]
    assert report[0].examples[0].startswith("train/a.jpg: 'cat' at ")


def test_a_pixel_outside_is_rounding(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["annotations"][0].update(bbox=[-0.9, -0.5, 41.5, 31.2]))
    assert {each.kind for each in check_dataset(root).findings} <= ALWAYS


def test_twins(tmp_path: Path) -> None:
    boxes = [(1, 1, 10, 10), (20, 1, 30, 10), (1.4, 1, 10, 10.6), (1, 1, 10, 10), (1, 1, 10, 20), (20, 1, 30, 10)]
    index = build_index(
        root=tmp_path, split="s", classes=("a", "b"), names=["x.jpg", "y.jpg"], sizes=[(40, 40), (40, 40)],
        images=[0, 0, 0, 1, 0, 0], boxes=boxes, labels=[0, 0, 0, 0, 0, 1],
    )  # fmt: skip
    findings = check_boxes(index, index.sizes)
    assert [(each.kind, each.count) for each in findings] == [("duplicate box", 1), ("same box, two classes", 1)]
    assert findings[0].examples == ("x.jpg: 'a' at 1.4, 1, 10, 10.6",)
    assert findings[1].examples == ("x.jpg: 'b' at 20, 1, 30, 10, also 'a'",)


def test_twins_agree_with_comparing_all_pairs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = 400
    images, labels = rng.integers(0, 6, count), rng.integers(0, 2, count)
    corners = rng.integers(0, 4, (count, 2)) + rng.random((count, 2))
    boxes = np.concatenate([corners, corners + 3 + rng.integers(0, 2, (count, 2))], axis=1).astype(np.float32)
    index = build_index(
        root=tmp_path, split="s", classes=("a", "b"), names=[str(i) for i in range(6)], sizes=np.full((6, 2), 20),
        images=images, boxes=boxes, labels=labels,
    )  # fmt: skip
    owner = index.image_of_row()
    close = (np.abs(index.boxes[:, None] - index.boxes[None]).max(axis=2) <= 1) & (owner[:, None] == owner[None])
    close &= np.triu(np.ones((count, count), bool), 1)
    same = index.labels[:, None] == index.labels[None]
    counts = {each.kind: each.count for each in check_boxes(index, index.sizes)}
    assert counts == {"duplicate box": int((close & same).sum()), "same box, two classes": int((close & ~same).sum())}


def test_leaks_across_splits_and_copies_within(clean: Path, tmp_path: Path) -> None:
    import shutil

    root = Path(shutil.copytree(clean, tmp_path / "leaky"))
    image = read_image(root / "train" / "000003.jpg")
    small = cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(small), quality=60)
    (root / "val" / "000007.jpg").write_bytes(encoded)
    shutil.copy(root / "val" / "000001.jpg", root / "val" / "000002.jpg")
    leak = found(root, "leak")
    assert [(each.level, each.split, each.count) for each in leak] == [("error", "train and val", 1)]
    assert leak[0].examples == ("train/000003.jpg and val/000007.jpg",)
    twice = found(root, "duplicate image")
    assert [(each.level, each.split, each.examples) for each in twice] == [
        ("warning", "val", ("val/000001.jpg and val/000002.jpg",))
    ]


def test_stray_label_files(tmp_path: Path) -> None:
    root = yolo_root(tmp_path / "y")
    (root / "labels" / "train" / "ghost.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "labels" / "classes.txt").write_text("cat\n")
    assert [each.examples for each in found(root, "stray label file")] == [("labels/train/ghost.txt",)]
    root = voc_root(tmp_path / "v")
    (root / "JPEGImages" / "a.jpg").unlink()
    assert [each.examples for each in found(root, "stray label file")] == [("Annotations/a.xml",)]


def test_class_balance(tmp_path: Path) -> None:
    report = check_dataset(coco_root(tmp_path))
    told = {(each.kind, each.split): each.examples for each in report.findings}
    assert told["class without boxes", "train"] == ("dog",)
    assert told["rare class", "train"] == ("cat: 1", "traffic light: 1")
    assert not report.has_errors


def test_statistics(tmp_path: Path) -> None:
    index = build_index(
        root=tmp_path, split="s", classes=("a", "b"), names=["x", "y", "z"], sizes=[(50, 100), (200, 100), (0, 0)],
        images=[0, 0, 1], boxes=[(0, 0, 31, 32), (0, 0, 90, 40), (0, 0, 100, 100)], labels=[1, 1, 0],
        areas=[10, 2000, np.nan],
    )  # fmt: skip
    numbers = split_statistics(index, 200)
    assert (numbers.images, numbers.background, numbers.boxes, numbers.most_boxes) == (3, 1, 3, 2)
    assert numbers.class_boxes == {"a": 1, "b": 2}
    assert numbers.class_images == {"a": 1, "b": 1}
    assert numbers.sizes == (1, 1, 1)
    assert numbers.train_sizes == (0, 1, 2)  # the first image grows to twice its size: 62 x 64 is medium
    assert numbers.image_sizes == (100, 150, 200)
    assert split_statistics(index.subset([]), 200).boxes == 0


def printed(report: CheckReport, width: int = 100) -> str:
    text = io.StringIO()
    print_report(report, Console(width=width, file=text))
    return text.getvalue()


def test_report_reads_well_and_as_json(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["annotations"][0].update(bbox=[5, 5, 0, 9]))
    for split in ("train", "val"):
        edit_coco(root, lambda d: d["categories"][2].update(name="[bold]x[/red]"), split)  # markup is printed as it is
    report = check_dataset(root)
    for part in ("[bold]x[/red]", "train", "error empty box in train: 1.", "train/a.jpg: 'cat' at 5, 5, 5, 14"):
        assert part in printed(report)
    again = json.loads(json.dumps(report.to_dict()))
    assert again["errors"] is True
    assert again["findings"][0]["kind"] == "empty box"
    assert again["splits"]["val"]["boxes"] == 1


def test_many_classes_are_shortened(tmp_path: Path) -> None:
    names = tuple(f"class{i}" for i in range(100))
    index = build_index(
        root=tmp_path, split="s", classes=names, names=["x"], sizes=[(50, 100)], images=np.zeros(100),
        boxes=np.ones((100, 4)), labels=np.arange(100),
    )  # fmt: skip
    report = CheckReport(tmp_path, "coco", names, 640, {"s": split_statistics(index, 640)}, ())
    assert "... 60 more ..." in printed(report)


def test_numbers_alone_decode_nothing(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    (root / "train" / "a.jpg").write_bytes(b"broken")
    report = dataset_numbers(root)
    assert report.findings == ()
    assert report.splits["train"].boxes == 2


def test_malformed_annotations_are_refused(tmp_path: Path) -> None:
    root = yolo_root(tmp_path, "rubbish\n")
    with pytest.raises(UserError, match=r"a\.txt:1: not numbers"):
        check_dataset(root)


def test_yolo_with_a_broken_image_warns_only_in_the_report(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    root = yolo_root(tmp_path)
    (root / "images" / "train" / "b.jpg").write_bytes(b"")
    assert found(root, "unreadable image")[0].count == 1
    assert not recwarn.list


# ------------------------------------------------------------------------------------------- what is never used
def test_images_that_no_split_lists_are_told(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    write_jpeg(root / "val" / "forgotten.gif")
    write_jpeg(root / "val" / "._a.jpg")
    assert [each.examples for each in found(root, "image not listed")] == [("forgotten.gif",)]


def test_lists_that_share_a_folder_of_labels_have_no_strays(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    write_jpeg(root / "images" / "train" / "b.jpg", seed=3)
    for name in ("b", "alone"):
        (root / "labels" / "train" / f"{name}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "t.txt").write_text("images/train/a.jpg\n")
    (root / "v.txt").write_text("images/train/b.jpg\n")
    (root / "data.yaml").write_text("train: t.txt\nval: v.txt\nnames: [cat, dog, traffic light]\n")
    strays = {each.split: each.examples for each in found(root, "stray label file")}
    assert strays == {"train": ("labels/train/alone.txt",), "val": ("labels/train/alone.txt",)}
    with pytest.warns(UserWarning, match="1 label files of 'train' have no image and are not used: alone.txt"):
        load_dataset(root, "train")


def test_mostly_unlabelled_images_are_told(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    for number in range(3):
        write_jpeg(root / "images" / "train" / f"x{number}.jpg", seed=10 + number)
    told = [text for each in found(root, "reading") for text in each.examples]
    assert told == ["Only 1 of 4 images of 'train' have a label file; the others count as background."]


def test_boxes_too_small_to_be_trained_on_are_counted(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["annotations"][0].update(bbox=[5, 5, 0.05, 9]))
    small = found(root, "box too small")
    assert [(each.level, each.split) for each in small] == [("warning", "train")]
    assert small[0].examples[0].startswith("1 boxes too small (side below 2 pixels")
    told = printed(check_dataset(root), width=200)
    assert "At 640 px, training on 'train' uses 1 of 2 boxes; left out: 1 too small" in told


def test_classes_in_another_order_are_no_reason_to_refuse_the_check(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    edit_coco(root, lambda d: d["categories"].reverse(), "val")  # the ids decide: nothing has changed
    assert not found(root, "reading")
    edit_coco(root, lambda d: [c.update(id=4 - c["id"]) for c in d["categories"]], "val")
    assert "lists its classes in a different order" in found(root, "reading")[0].examples[0]


@pytest.mark.parametrize(("classes", "boxes"), [(2, 0), (3, 40), (60, 500)])
def test_chart_is_drawn(classes: int, boxes: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (boxes, 2))
    index = build_index(
        root=tmp_path, split="train", classes=[f"class {i}" for i in range(classes)], names=["a", "b"],
        sizes=[(100, 100), (0, 0)], images=rng.integers(0, 2, boxes),
        boxes=np.concatenate([corners, corners + rng.uniform(1, 50, (boxes, 2))], axis=1),
        labels=rng.integers(0, classes, boxes),
    )  # fmt: skip
    write_chart({"train": index, "val": index.subset([])}, 320, tmp_path / "chart.png")
    image = read_image(tmp_path / "chart.png")
    assert image.shape == (990, 1430, 3)
    assert image.std() > 20
