"""Splitting: shares, evenness by class, near-duplicates together, repeatable."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.cases import coco_root, yolo_root

from eyas.data.checks.check import check_dataset
from eyas.data.formats import find_format, load_splits
from eyas.data.index import build_index
from eyas.data.rewrite.split import SplitSettings, assign_groups, split_dataset
from eyas.data.shapes import make_shapes
from eyas.decode import read_image, read_size
from eyas.errors import UserError


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("split") / "shapes", train=50, val=10, size=96)


@given(st.integers(0, 100), st.sampled_from([0.1, 0.2, 0.35]), st.integers(1, 3))
@settings(max_examples=25)
def test_shares_and_classes_are_even(seed: int, share: float, group: int) -> None:
    rng = np.random.default_rng(seed)
    images = np.repeat(np.arange(300), 3)
    index = build_index(
        root=Path(), split="all", classes=("common", "some", "rare"), names=[str(i) for i in range(300)],
        sizes=np.ones((300, 2)), images=images, boxes=np.ones((900, 4)),
        labels=rng.choice(3, 900, p=(0.8, 0.17, 0.03)),
    )  # fmt: skip
    members = [list(range(i, i + group)) for i in range(0, 300, group)]
    parts = assign_groups(index, members, {"train": 1 - share, "val": share}, seed)
    assert np.array_equal(np.sort(np.concatenate(list(parts.values()))), np.arange(300))
    assert len(parts["val"]) == pytest.approx(300 * share, abs=group + 1)
    for label in range(3):
        has = np.unique(images[index.labels == label])
        assert np.isin(has, parts["val"]).sum() == pytest.approx(len(has) * share, abs=4 + 2 * group)
    for images_of_group in members:
        assert np.isin(images_of_group, parts["val"]).sum() in (0, group)


def test_written_splits(shapes: Path, tmp_path: Path) -> None:
    splits = split_dataset(shapes, tmp_path / "out", SplitSettings(val=0.2, test=0.1, seed=3))
    assert {name: len(index) for name, index in splits.items()} == {"train": 42, "val": 12, "test": 6}
    back = load_splits(tmp_path / "out")
    before = load_splits(shapes)
    old = {p.read_bytes() for index in before.values() for p in index.files}
    new = [p.read_bytes() for index in back.values() for p in index.files]
    assert len(new) == 60
    assert set(new) == old
    assert sum(len(i.boxes) for i in back.values()) == sum(len(i.boxes) for i in before.values())
    assert back["val"].classes == before["val"].classes


def test_boxes_stay_with_their_image(shapes: Path, tmp_path: Path) -> None:
    split_dataset(shapes, tmp_path / "out", SplitSettings(group=False))
    truth = {
        index.path(i).read_bytes(): index.truth(i)[0].tolist()
        for index in load_splits(shapes).values()
        for i in range(len(index))
    }
    for index in load_splits(tmp_path / "out").values():
        for i in range(len(index)):
            assert index.truth(i)[0].tolist() == truth[index.path(i).read_bytes()]


def test_seed_decides(shapes: Path, tmp_path: Path) -> None:
    def names(seed: int, out: str) -> list[bytes]:
        split_dataset(shapes, tmp_path / out, SplitSettings(seed=seed, group=False, link=True))
        return sorted(p.read_bytes() for p in load_splits(tmp_path / out)["val"].files)

    assert names(1, "a") == names(1, "b") != names(2, "c")


def test_near_duplicates_stay_together(shapes: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shapes, tmp_path / "copies"))
    for i in range(1, 21):  # images 21 to 40 become copies of 1 to 20, coded anew
        place = root / "train" / f"{i + 20:06d}.jpg"
        height, width = read_size(place)  # the annotations there are of images of this shape
        image = cv2.resize(read_image(root / "train" / f"{i:06d}.jpg"), (width, height))
        place.write_bytes(simplejpeg.encode_jpeg(image, quality=70))
    split_dataset(root, tmp_path / "grouped", SplitSettings(val=0.3))
    split_dataset(root, tmp_path / "torn", SplitSettings(val=0.3, group=False))

    def leaks(out: str) -> int:
        return sum(each.count for each in check_dataset(tmp_path / out).findings if each.kind == "leak")

    assert leaks("grouped") == 0
    assert leaks("torn") > 0


def test_format_is_kept(tmp_path: Path) -> None:
    split_dataset(yolo_root(tmp_path / "in"), tmp_path / "out", SplitSettings(val=0.5))
    assert find_format(tmp_path / "out")[0].name == "yolo"
    assert {len(index) for index in load_splits(tmp_path / "out").values()} == {1}


@pytest.mark.parametrize(("val", "test"), [(0, 0), (1, 0), (0.6, 0.4), (-0.1, 0.5), (float("nan"), 0)])
def test_impossible_shares(val: float, test: float) -> None:
    with pytest.raises(UserError, match="The fractions"):
        SplitSettings(val=val, test=test)


def test_too_few_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too few"):
        split_dataset(coco_root(tmp_path / "in"), tmp_path / "out", SplitSettings(val=0.01))
    assert not (tmp_path / "out").exists()


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    root = coco_root(tmp_path / "in")
    (root / "val" / "b.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"val/b\.jpg \(The file is empty"):
        split_dataset(root, tmp_path / "out", SplitSettings(val=0.5))
    split_dataset(root, tmp_path / "out", SplitSettings(val=0.5, group=False))
