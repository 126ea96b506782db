"""What is written in a format is read back, whatever its names; lists of other machines lead to the right files."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.cases import write_jpeg, yolo_root

from eyas.data.formats import FORMATS, load_dataset, load_splits
from eyas.data.index import DatasetIndex, build_index
from eyas.data.rewrite.convert import convert
from eyas.data.rewrite.export import losses
from eyas.errors import UserError

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
@settings(max_examples=25)
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


JPEG = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))

ODD = [
    "a", "b", "b 2", "b 1", "b -1", "b 0", "photo train0", "photo train0.jpg", " ", "a ", " a", "\u00a0a", "a\u3000",
    "\u2028", "a\u0085b", "c:\\a", "\ufeffa", "\u200ba", ".hidden", "1", "a\nb", "a\rb", "x.xml", "x.txt", "a\\b",
    "train", "'a'", '"a"', "#a", "é", "e\u0301", "&<>", "\x01", "a" * 240, "classes", "\udce9",
]  # fmt: skip

LETTERS = st.characters(blacklist_characters="/\0", blacklist_categories=("Cs",))
STEMS = st.one_of(st.sampled_from(ODD), st.text(LETTERS, min_size=1, max_size=5))
FILE_NAMES = st.tuples(STEMS, st.sampled_from([".jpg", ".JPG", ".png", ""])).map("".join)


def write_splits(root: Path, splits: dict[str, list[str]]) -> None:
    """Write a COCO dataset of images with these names, each with bytes and a box of its own."""
    for split, names in splits.items():
        (root / split).mkdir(parents=True)
        (root / "annotations").mkdir(exist_ok=True)
        for number, name in enumerate(names):
            (root / split / name).write_bytes(JPEG + f"{split}{number}".encode())
        document = {
            "images": [{"id": n, "file_name": name, "width": 8, "height": 8} for n, name in enumerate(names, 1)],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "bbox": [0, 0, n % 7 + 1, 4], "iscrowd": 0, "area": 1}
                for n in range(1, len(names) + 1)
            ],
            "categories": [{"id": 1, "name": "c"}],
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))


@pytest.mark.parametrize("name", FORMATS)
@given(
    names=st.lists(FILE_NAMES.filter(lambda n: n not in (".", "..")), min_size=2, max_size=8, unique=True),
    cut=st.integers(1, 7),
)
@settings(max_examples=25)
def test_any_names_come_back(name: str, names: list[str], cut: int) -> None:
    cut = min(cut, len(names) - 1)
    splits = {"train": names[:cut], "val": names[cut:]}
    with tempfile.TemporaryDirectory() as folder:
        write_splits(Path(folder) / "in", splits)
        convert(Path(folder) / "in", Path(folder) / "out", name)
        back = load_splits(Path(folder) / "out")
        assert set(back) == set(splits)
        for split, index in back.items():
            found = {
                p.read_bytes()[len(JPEG) :].decode(): round(float(index.truth(i)[0][0, 2]))
                for i, p in enumerate(index.files)
            }
            assert len(found) == len(index)
            assert found == {f"{split}{n}": (n + 1) % 7 + 1 for n in range(len(splits[split]))}


@pytest.mark.parametrize(
    "line",
    [
        "C:\\data\\set\\images\\train\\a.jpg",
        "D:/data/images/train/a.jpg",
        "\\\\server\\share\\images\\train\\a.jpg",
        "/content/drive/MyDrive/set/images/train/a.jpg",
        "images\\train\\a.jpg",
        ".\\images\\train\\a.jpg",
        "file:///users/me/images/train/a.jpg",
        "\ufeff./images/train/a.jpg\u00a0\r",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_of_other_machines(line: str, encoding: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "train.txt").write_bytes(f"{line}\n".encode(encoding))
    (root / "data.yaml").write_text("train: train.txt\nval: images/val\nnames: [a]\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        index = load_dataset(root, "train")
    assert list(index.files) == [root / "images" / "train" / "a.jpg"]
    assert len(index.boxes) == 1
    foreign = "data" in line or "server" in line or "content" in line or "users" in line
    assert [str(each.message)[:9] for each in told] == (["train.txt"] if foreign else [])


def list_of(root: Path, text: str) -> UserError:
    (root / "train.txt").write_text(text)
    (root / "data.yaml").write_text("train: train.txt\nnames: [a]\n")
    with pytest.raises(UserError) as caught:
        load_dataset(root, "train")
    return caught.value


def test_the_true_reason_is_told(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    gone = list_of(root, "C:\\x\\gone.jpg\nC:\\x\\lost.jpg\n")
    assert "None of the 2 images listed in train.txt exists" in str(gone)
    assert "label" not in gone.problem
    assert "UTF-8" not in gone.fix
    (root / "train.txt").write_bytes("images/train/汽车.jpg".encode("gbk"))
    with pytest.raises(UserError, match="None of the 1 images") as caught:
        load_dataset(root, "train")
    assert "UTF-8" in caught.value.fix
    assert "could be" in str(list_of(root, "C:\\x\\a.jpg\n"))  # images/train/a.jpg or images/val/a.jpg
    twice = list_of(root, "C:\\one\\train\\a.jpg\nC:\\two\\train\\a.jpg\n")
    assert "both match only" in twice.problem


def test_a_namesake_elsewhere_is_not_taken(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    for name in ("b", "c"):
        write_jpeg(root / "images" / "train" / f"{name}.jpg")
    write_jpeg(root / "images" / "val" / "d.jpg")
    (root / "train.txt").write_text("".join(f"/old/images/train/{name}.jpg\n" for name in "bcd"))
    (root / "data.yaml").write_text("train: train.txt\nnames: [a]\n")
    (root / "labels" / "train" / "b.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    with pytest.warns(UserWarning):
        index = load_dataset(root, "train")
    assert [path.is_file() for path in index.files] == [True, True, False]


def test_folders_of_other_machines(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    (root / "data.yaml").write_text(
        "train: C:\\x\\images\\train\nval: /old/images/val\ntest: /old/images\nnames: [a]\n"
    )
    with pytest.warns(UserWarning, match="which does not exist; .*images/train is used"):
        assert load_dataset(root, "train").path(0) == root / "images" / "train" / "a.jpg"
    with pytest.warns(UserWarning, match="test split that does not exist"):  # "images" holds the other splits' images
        assert set(load_splits(root)) == {"train", "val"}
