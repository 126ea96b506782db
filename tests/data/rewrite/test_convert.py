"""Converting: file names that clash, links, and nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.cases import coco_root, edit_coco, small_index, voc_root, write_jpeg, yolo_root

from eyas.data.formats import load_dataset, load_splits
from eyas.data.rewrite.convert import convert
from eyas.data.rewrite.export import fresh_folder, plan_names
from eyas.errors import UserError


def test_names_that_clash_in_one_folder(tmp_path: Path) -> None:
    """VOC has one folder for all splits; a.jpg of train and a.jpg of val must both survive."""
    root = coco_root(tmp_path / "in")
    convert(root, tmp_path / "out", "voc")
    back = load_splits(tmp_path / "out")
    assert [p.name for p in back["val"].files] == ["val_a.jpg", "val_b.jpg"]
    source = load_dataset(root, "val")
    assert [p.read_bytes() for p in back["val"].files] == [p.read_bytes() for p in source.files]


def test_names_are_unique_by_stem_and_case(tmp_path: Path) -> None:
    import dataclasses

    index = small_index(tmp_path, [], [], [])
    names = ["x/A.jpg", "y/a.png", "y/a.jpg", "z/b.jpg", "z/train_a.jpg"]
    files = type(index.files).build(tmp_path, names)
    index = dataclasses.replace(
        index, files=files, sizes=index.sizes[[0] * 5], image_ids=index.image_ids[[0] * 5],
        offsets=index.offsets[[0] * 6],
    )  # fmt: skip
    plan = plan_names([index], shared=False)[0]
    assert plan[0] == "A.jpg"
    assert len({Path(name).stem.lower() for name in plan}) == 5
    assert [Path(name).suffix for name in plan] == [".jpg", ".png", ".jpg", ".jpg", ".jpg"]


def test_link_shares_the_bytes(tmp_path: Path) -> None:
    root = yolo_root(tmp_path / "in")
    convert(root, tmp_path / "out", "coco", link_images=True)
    assert (tmp_path / "out" / "train" / "a.jpg").samefile(root / "images" / "train" / "a.jpg")


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("x")
    with pytest.raises(UserError, match="exists already"):
        convert(root, tmp_path / "out", "yolo")
    assert (tmp_path / "out" / "precious.txt").read_text() == "x"


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert(voc_root(tmp_path / "in"), tmp_path / "out", "coco")
    assert len(load_dataset(tmp_path / "out", "train")) == 1


def test_a_missing_image_stops_it_before_it_begins(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    (root / "train" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"1 images are missing: .*b\.jpg"):
        convert(root, tmp_path / "out", "yolo")
    assert not (tmp_path / "out").exists()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), fresh_folder(tmp_path / "out") as partial:
        (partial / "x").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_unknown_target(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'yolo'"):
        convert(coco_root(tmp_path / "in"), tmp_path / "out", "yolov8")


def test_sizes_that_the_source_lacks_are_read(tmp_path: Path) -> None:
    root = edit_coco(
        coco_root(tmp_path / "in"), lambda d: [(each.pop("width"), each.pop("height")) for each in d["images"]]
    )
    convert(root, tmp_path / "out", "yolo")
    assert load_dataset(tmp_path / "out", "train").boxes[0].tolist() == pytest.approx([2, 3, 12, 15], abs=1e-4)


def test_an_image_outside_the_root_keeps_its_path(tmp_path: Path) -> None:
    root = yolo_root(tmp_path / "in")
    far = write_jpeg(tmp_path / "far" / "x.jpg", seed=9)
    (root / "train.txt").write_text(f"{far}\n./images/train/a.jpg\n")
    (root / "data.yaml").write_text("train: train.txt\nnames: [a]\n")
    convert(root, tmp_path / "out", "coco")
    assert (tmp_path / "out" / "train" / "x.jpg").read_bytes() == far.read_bytes()
