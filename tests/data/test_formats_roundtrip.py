"""Writing a dataset in any format and reading it back keeps boxes to the format's rounding, classes and crowds."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.cases import write_jpeg

from eyas.data.formats import FORMATS, load_dataset
from eyas.data.index import DatasetIndex, build_index
from eyas.data.rewrite.convert import convert
from eyas.data.rewrite.export import losses

SIZES = ((30, 40), (64, 48), (97, 211))
NAMES = st.text("aB9 é猫'\":#-&<>{}[],%@|\\", min_size=1, max_size=12).map(str.strip).filter(bool)
# What a format rounds a coordinate to, for an image with this longest side.
ROUNDING = {"coco": lambda _: 1e-4, "yolo": lambda side: 1.5e-6 * side + 1e-4, "voc": lambda _: 0.5001}


@st.composite
def boxes_in(draw: st.DrawFn, height: int, width: int) -> list[float]:
    """A box of at least a pixel inside the frame, with fractions of pixels."""
    x0 = draw(st.floats(0, width - 1.5, width=32))
    y0 = draw(st.floats(0, height - 1.5, width=32))
    x1 = draw(st.floats(x0 + 1, width, width=64))
    y1 = draw(st.floats(y0 + 1, height, width=64))
    return [x0, y0, x1, y1]


@st.composite
def indexes(draw: st.DrawFn) -> DatasetIndex:
    """A split of three images with up to four boxes each; one image at least has a box."""
    classes = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    images, boxes, labels, crowd = [], [], [], []
    for number, (height, width) in enumerate(SIZES):
        for _ in range(draw(st.integers(int(number == 0), 4))):
            images.append(number)
            boxes.append(draw(boxes_in(height, width)))
            labels.append(draw(st.integers(0, len(classes) - 1)))
            crowd.append(draw(st.booleans()))
    crowd[0] = False
    return build_index(
        root=Path(), split="train", classes=classes, names=[f"{i}.jpg" for i in range(len(SIZES))], sizes=SIZES,
        images=images, boxes=boxes, labels=labels, crowd=crowd,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of SIZES."""
    folder = tmp_path_factory.mktemp("images")
    for number, (height, width) in enumerate(SIZES):
        write_jpeg(folder / f"{number}.jpg", height, width, seed=number)
    return folder


def written(index: DatasetIndex, images: Path, out: Path, name: str) -> DatasetIndex:
    """Write the index in the format, its images linked, and return what is read back."""
    target = FORMATS[name]
    folder = target.images(out, "train")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.symlink_to(images)
    files = [f"{folder.relative_to(out).as_posix()}/{i}.jpg" for i in range(len(index))]
    moved = dataclasses.replace(index, root=out, files=type(index.files).build(out, files))
    target.write([moved], out)
    return load_dataset(out, "train", format=name)


@pytest.mark.parametrize("name", FORMATS)
@given(index=indexes())
@settings(max_examples=40)
def test_written_and_read_back(name: str, images: Path, index: DatasetIndex) -> None:
    kept = index if FORMATS[name].has_crowd else index.keep_rows(~index.crowd)
    with tempfile.TemporaryDirectory() as folder:
        back = written(index, images, Path(folder), name)
    assert back.classes == index.classes
    assert back.split == "train"
    assert back.sizes.tolist() == index.sizes.tolist()
    assert back.offsets.tolist() == kept.offsets.tolist()
    assert back.labels.tolist() == kept.labels.tolist()
    assert back.crowd.tolist() == kept.crowd.tolist()
    for i, (height, width) in enumerate(SIZES):
        difference = np.abs(back.truth(i)[0].astype(float) - kept.truth(i)[0].astype(float))
        assert difference.max(initial=0) <= ROUNDING[name](max(height, width))
    if name == "coco":
        np.testing.assert_allclose(back.areas, index.areas, atol=1e-3)
        assert back.image_ids.tolist() == index.image_ids.tolist()


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("second", FORMATS)
def test_conversions_between_all_formats(first: str, second: str, images: Path, tmp_path: Path) -> None:
    """Whole-pixel boxes survive every chain of formats exactly, through the public conversion."""
    index = build_index(
        root=images, split="train", classes=("a", "b c"), names=["0.jpg", "1.jpg", "2.jpg"], sizes=SIZES,
        images=[0, 0, 2], boxes=[(1, 2, 30, 20), (0, 0, 40, 30), (100, 50, 101, 51)], labels=[1, 0, 1],
    )  # fmt: skip
    written(index, images, tmp_path / "source", first)
    done = convert(tmp_path / "source", tmp_path / "out", second, format=first)
    assert done.images == {"train": 3}
    assert (done.losses.crowds, done.losses.empty, done.losses.cut) == (0, 0, 0)
    back = load_dataset(tmp_path / "out", "train")
    assert back.classes == index.classes
    np.testing.assert_allclose(back.boxes, index.boxes, atol=5e-4)
    assert back.labels.tolist() == index.labels.tolist()


@pytest.mark.parametrize("name", ["yolo", "voc"])
def test_boxes_that_the_format_cannot_hold(name: str, images: Path, tmp_path: Path) -> None:
    index = build_index(
        root=images, split="train", classes=("a",), names=["0.jpg", "1.jpg", "2.jpg"], sizes=SIZES,
        images=[0, 0, 0, 0], labels=[0, 0, 0, 0], crowd=[False, False, False, True],
        boxes=[(-5, -5, 10, 10), (5, 5, 5, 9), (50, 50, 60, 60), (1, 1, 9, 9)],
    )  # fmt: skip
    lost = losses([index], FORMATS[name])
    back = written(index, images, tmp_path, name)
    assert back.boxes[0].tolist() == pytest.approx([0, 0, 10, 10], abs=1e-3)
    assert (lost.empty, lost.cut) == (2, 1)
    assert lost.crowds == (0 if name == "voc" else 1)
    assert len(back.boxes) == (2 if name == "voc" else 1)
