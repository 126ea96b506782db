"""COCO JSON: what is read of each field, and that rubbish is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.data.cases import coco_dict, coco_root, write_jpeg, write_json

from eyas.data.formats import load_dataset
from eyas.data.formats.coco import to_coco
from eyas.data.formats.coco_parse import parse
from eyas.errors import UserError

Document = dict[str, Any]


def read_with(root: Path, change: Callable[[Document], object]) -> Any:
    """Return the index of a good file of two pictures and three boxes after `change` spoiled it."""
    for name in ("a.jpg", "b.jpg"):
        write_jpeg(root / "train" / name)
    document = coco_dict(["a.jpg", "b.jpg"], [(1, 1, (2, 3, 10, 12)), (2, 3, (20, 5, 8, 8)), (1, 2, (0, 0, 4, 4))])
    change(document)
    write_json(root / "annotations" / "instances_train.json", document)
    return load_dataset(root, "train")


def test_boxes_and_classes(tmp_path: Path) -> None:
    index = read_with(tmp_path, lambda _: None)
    assert index.truth(0)[0].tolist() == [[2, 3, 12, 15], [0, 0, 4, 4]]
    assert index.truth(0)[1].tolist() == [0, 1]
    assert index.truth(1)[1].tolist() == [2]
    assert index.sizes.tolist() == [[30, 40], [30, 40]]
    assert index.areas.tolist() == [120, 16, 64]


def test_crowd_area_and_gaps_in_ids(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["categories"] = [{"id": 90, "name": "z"}, {"id": 7, "name": "y"}, {"id": 8, "name": "unused"}]
        document["annotations"][0].update(category_id=90, iscrowd=1, area=55.5)
        document["annotations"][1].update(category_id=7)
        document["annotations"][2].update(category_id=7)
        del document["annotations"][2]["area"]
        document["images"].reverse()

    index = read_with(tmp_path, change)
    assert index.classes == ("y", "unused", "z")  # by rising id, whatever their order in the file
    assert index.category_ids == (7, 8, 90)
    assert index.image_ids.tolist() == [2, 1]
    assert index.labels.tolist() == [0, 2, 0]
    assert index.crowd.tolist() == [False, True, False]
    assert index.areas.tolist() == [64, 55.5, 16]


def test_segmentations_are_skipped_and_harmless(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        first, second, third = document["annotations"]
        first["segmentation"] = [[1.5, 2, 3e1, -4, 5, 6], [1, 2, 3, 4, 5, 6]]
        second["segmentation"] = {"counts": [1, 2, 3], "size": [30, 40]}
        third["segmentation"] = []
        document["info"] = {"description": 'tricky "segmentation": [1, 2] text', "image": [[1]]}

    assert read_with(tmp_path, change).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["annotations"][1].update(image_id=99), "annotation 2 is of image 99, which is not listed"),
        (lambda d: d["annotations"][1].update(category_id=99), "annotation 2 is of category 99, which is not listed"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), "annotation 2: the bbox is [1, 2, 3]"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, "4"]), "annotation 2: the bbox is [1, 2, 3, '4']"),
        (
            lambda d: d["annotations"][1].update(bbox=[1, 2, 3, float("nan")]),
            "annotation 2: the bbox [1.0, 2.0, 3.0, n",
        ),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, float("inf")]), "not finite"),
        (lambda d: d["annotations"][1].pop("bbox"), "annotation 2: the bbox is None"),
        (lambda d: d["annotations"][1].pop("category_id"), "category_id None must be integers"),
        (lambda d: d["annotations"][1].update(image_id="2"), "image_id '2'"),
        (lambda d: d["annotations"][1].pop("image_id"), "has no 'image_id'"),
        (lambda d: d["annotations"].append(3), "has no 'image_id'"),
        (lambda d: d["annotations"][1].update(id=1), "the annotation id 1 stands 2 times"),
        (lambda d: d["annotations"][1].update(area="large"), "the area 'large' a number"),
        (lambda d: d["images"][1].update(id=1), "the image id 1 stands 2 times"),
        (lambda d: d["images"][1].update(file_name=3), "'file_name' must be text"),
        (lambda d: d["images"][1].update(width=-3), "image 2: the size"),
        (lambda d: d["images"][1].pop("file_name"), "no 'file_name' and 'id'"),
        (lambda d: d["categories"][1].update(id=1), "the category id 1 stands twice ('cat', 'dog')"),
        (lambda d: d["categories"][1].pop("name"), "lacks an integer 'id' or a 'name'"),
        (lambda d: d["categories"][1].update(name="cat"), "Class names stand twice: cat"),
        (lambda d: d["categories"].clear(), "names no class"),
        (lambda d: d.pop("categories"), "is not a COCO file: it holds images, annotations"),
        (lambda d: d.update(images={}), "is not a COCO file"),
    ],
)
def test_rubbish_is_refused_by_name(change: Callable[[Document], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_with(tmp_path, change)
    assert message in str(caught.value)
    assert "instances_train.json" in str(caught.value)


def test_only_the_first_faults_are_spelled_out(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["annotations"] = [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": [1, 2]} for i in range(1000, 1012)
        ]  # fmt: skip

    with pytest.raises(UserError, match="12 faults") as caught:
        read_with(tmp_path, change)
    text = str(caught.value)
    assert "annotation 1004" in text
    assert "annotation 1005" not in text
    assert "and 7 more" in text


def test_annotations_without_ids_are_fine(tmp_path: Path) -> None:
    index = read_with(tmp_path, lambda d: [a.pop("id") for a in d["annotations"]])
    assert len(index.boxes) == 3


@pytest.mark.parametrize("text", ["", "{", "[1, 2", "[]", "3", '{"images": []}', '"a"', "[" * 100_000])
def test_other_json_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"x\.json is not"):
        parse(path)


def test_a_syntax_error_is_located_in_the_file_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"annotations": [{"segmentation": [[1, 2,\n 3,\n 4]],\n "x": oops}]}')
    with pytest.raises(UserError, match="line 4 column 7"):
        parse(path)


def test_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not valid JSON"):
        parse(path)


def test_no_picture_at_all_is_refused(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    for path in (root / "train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="None of the 2 pictures") as caught:
        load_dataset(root, "train")
    assert str(root / "train") in caught.value.expected
    write_jpeg(root / "train" / "b.jpg")
    assert len(load_dataset(root, "train")) == 2  # one missing picture is the check's business


def test_empty_and_degenerate_boxes_are_kept_for_the_check(tmp_path: Path) -> None:
    index = read_with(tmp_path, lambda d: d["annotations"][0].update(bbox=[5, 5, -3, 0]))
    assert index.boxes[0].tolist() == [5, 5, 2, 5]


def test_written_file_is_what_pycocotools_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pycocotools.coco import COCO

    index = read_with(tmp_path, lambda d: d["annotations"][0].update(iscrowd=1, bbox=[0.1, 0.2, 3.3, 4.4], area=9))
    path = write_json(tmp_path / "out.json", to_coco(index, tmp_path / "train"))
    coco = COCO(str(path))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == ["a.jpg", "b.jpg"]
    first = coco.loadAnns(coco.getAnnIds(imgIds=[1]))[0]
    assert first["bbox"] == [0.1, 0.2, 3.3, 4.4]
    assert (first["iscrowd"], first["area"]) == (1, 9)
    assert json.loads(path.read_text())["annotations"][2]["image_id"] == 2


def test_the_file_of_a_large_dataset_is_read_quickly(tmp_path: Path) -> None:
    """20,000 annotations with polygons: parsing whole takes about as long as this test allows for all of it."""
    import time

    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(5000)]
    write_jpeg(tmp_path / "train" / "0.jpg")
    rows = [(int(i), 1, (1, 2, 3, 4)) for i in rng.integers(1, 5001, 20_000)]
    document = coco_dict(names, rows)
    polygon = [[round(float(v), 2) for v in rng.uniform(0, 640, 50)]]
    for annotation in document["annotations"]:
        annotation["segmentation"] = polygon
    path = write_json(tmp_path / "annotations" / "instances_train.json", document)
    start = time.process_time()
    json.loads(path.read_text())
    whole = time.process_time() - start
    start = time.process_time()
    assert len(load_dataset(tmp_path, "train").boxes) == 20_000
    assert time.process_time() - start < 1.5 * whole + 0.5
