"""One list of image suffixes and one search of folders, which says what it leaves out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.data.cases import coco_root, voc_root, write_jpeg, yolo_root

from eyas.data.formats import load_dataset
from eyas.errors import UserError
from eyas.image_files import IMAGE_SUFFIXES, is_image, search_folder
from eyas.runtime.sources import expand


def names(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in search_folder(folder).files]


def test_links_are_followed_once_and_never_in_a_circle(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "in", tmp_path / "elsewhere"
    for path in (folder / "real" / "a.jpg", elsewhere / "deep" / "b.jpg", elsewhere / "c.jpg"):
        write_jpeg(path)
    for link, target in (("again", "real"), ("up", ".."), ("self", "."), ("out", "../elsewhere")):
        (folder / link).symlink_to(target)
    (elsewhere / "back").symlink_to("../in")
    (folder / "zz").symlink_to("../elsewhere/deep")
    (folder / "loop1.jpg").symlink_to("loop2.jpg")
    (folder / "loop2.jpg").symlink_to("loop1.jpg")
    assert names(folder) == ["out/c.jpg", "out/deep/b.jpg", "real/a.jpg"]
    told = {reason: [path.name for path in paths] for reason, paths in search_folder(folder).left_out.items()}
    assert told == {
        "broken links": ["loop1.jpg", "loop2.jpg"],
        "linked folders, which are searched through another path": ["again", "back", "self", "up", "zz"],
    }


def test_whatever_is_left_out_is_told_with_its_reason(tmp_path: Path) -> None:
    data = write_jpeg(tmp_path / "a.JPG").read_bytes()
    for name in ("._a.jpg", ".hidden.png", "b.heic", "c.jpg_large", "no_suffix", ".git/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name in ("notes.txt", "a.xml", "README", ".DS_Store"):
        (tmp_path / name).write_text("text")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "dead.txt").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    listing = search_folder(tmp_path)
    assert [path.name for path in listing.files] == ["a.JPG"]
    assert listing.told() == (
        "1 broken links (gone.jpg); 2 hidden (._a.jpg, .hidden.png); 1 that are not files (pipe.png); "
        "3 with an unsupported suffix (b.heic, c.jpg_large, no_suffix)"
    )


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_is_an_image_to_detection_and_data_sets_alike(suffix: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    image = root / "images" / "train" / "a.jpg"
    renamed = image.rename(image.with_suffix(suffix.upper()))
    assert is_image(renamed)
    assert [item.name for item in expand(renamed.parent)] == [renamed.name]
    assert [path.name for path in load_dataset(root, "train").files] == [renamed.name]


def test_detection_and_data_sets_say_what_they_leave_out(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    folder = root / "images" / "train"
    write_jpeg(folder / "b.heic")
    (folder / "linked").symlink_to(folder.parent / "val")
    with pytest.warns(UserWarning, match=r"Skipped in .*train: 1 with an unsupported suffix \(b\.heic\)"):
        assert [item.name for item in expand(folder)] == ["a.jpg", "linked/a.jpg"]
    with pytest.warns(UserWarning, match=r"Skipped in .*1 with an unsupported suffix"):
        index = load_dataset(root, "train")
    assert len(index) == 2


def test_the_manual_lists_the_suffixes() -> None:
    manual = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text()
    listed = manual.split("Images are files that end in ")[1].split(", in any case")[0]
    assert set(listed.replace(" or ", ", ").replace("\n", " ").replace(", ", " ").split()) == IMAGE_SUFFIXES


# ---------------------------------------------------------------------------------------------------------- labels


def test_labels_in_capitals_and_in_two_places_are_found(tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    folder = root / "images" / "train"
    for name in ("b", "c", "d"):
        write_jpeg(folder / f"{name}.jpg")
    (root / "labels" / "train" / "b.TXT").write_text("1 0.5 0.5 0.5 0.5\n")
    (folder / "c.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    (folder / "a.txt").write_text("2 0.5 0.5 0.5 0.5\n")
    with pytest.warns(UserWarning, match="1 images also have a label file next to them, which is not read"):
        index = load_dataset(root, "train")
    assert index.labels.tolist() == [0, 1, 2]
    assert index.image_of_row().tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", ["broken link", "folder"])
def test_a_label_that_can_not_be_read_is_no_background(kind: str, tmp_path: Path) -> None:
    root = yolo_root(tmp_path)
    label = root / "labels" / "train" / "b.txt"
    write_jpeg(root / "images" / "train" / "b.jpg")
    if kind == "folder":
        label.mkdir()
    else:
        label.symlink_to("nowhere.txt")
    with pytest.raises(
        UserError, match=r"b\.txt: " + ("is a broken link" if kind == "broken link" else "Is a directory")
    ):
        load_dataset(root, "train")


def test_labels_beside_what_a_link_leads_to_are_found(tmp_path: Path) -> None:
    root = yolo_root(tmp_path / "data")
    other = tmp_path / "other"
    write_jpeg(other / "images" / "c.gif")
    (other / "labels").mkdir()
    (other / "labels" / "c.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    (root / "images" / "train" / "linked").symlink_to(other / "images")
    index = load_dataset(root, "train")
    assert [index.files.name(i) for i in range(2)] == ["images/train/a.jpg", "images/train/linked/c.gif"]
    assert index.labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (coco_root, "annotations/instances_train.json"),
        (yolo_root, "labels/train/a.txt"),
        (voc_root, "Annotations/a.xml"),
    ],
)
def test_labels_in_any_case_of_suffix(make: Callable[[Path], Path], path: str, tmp_path: Path) -> None:
    before = load_dataset(make(tmp_path), "train")
    label = tmp_path / path
    label.rename(label.with_suffix(label.suffix.upper()))
    after = load_dataset(tmp_path, "train")
    assert len(after.boxes) and after.boxes.tolist() == before.boxes.tolist()


def test_a_dead_link_to_an_xml_file_is_told(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "Annotations" / "a.xml").unlink()
    (root / "Annotations" / "a.xml").symlink_to("nowhere.xml")
    with pytest.raises(UserError, match=r"a\.xml: is a broken link"):
        load_dataset(root, "train")
