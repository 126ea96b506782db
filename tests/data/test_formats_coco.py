"""COCO JSON: what is read of each field, and that rubbish is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.data.cases import CLASSES, coco_dict, coco_root, write_jpeg, write_json

from eyas.data.formats import load_dataset
from eyas.data.formats.coco import to_coco
from eyas.data.formats.coco_parse import parse
from eyas.errors import UserError

Document = dict[str, Any]


def read_with(root: Path, change: Callable[[Document], object]) -> Any:
    """Return the index of a good file of two images and three boxes after `change` spoiled it."""
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
        (lambda d: d["annotations"][1].update(image_id=99), "annotation 2 refers to image 99, which is not listed"),
        (
            lambda d: d["annotations"][1].update(category_id=99),
            "annotation 2 refers to category 99, which is not listed",
        ),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3]), "annotation 2: the bbox is [1, 2, 3]"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, "4"]), "annotation 2: the bbox is [1, 2, 3, '4']"),
        (
            lambda d: d["annotations"][1].update(bbox=[1, 2, 3, float("nan")]),
            "annotation 2: the bbox [1.0, 2.0, 3.0, n",
        ),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, float("inf")]), "not finite"),
        (lambda d: d["annotations"][1].pop("bbox"), "annotation 2: the bbox is None"),
        (lambda d: d["annotations"][1].pop("category_id"), "category_id None must be integers or text"),
        (lambda d: d["annotations"][1].update(image_id="9"), "annotation 2 refers to image '9', which is not listed"),
        (lambda d: d["annotations"][1].update(image_id="02"), "refers to image '02', which is not listed"),
        (lambda d: d["annotations"][1].update(image_id=None), "image_id None"),
        (lambda d: d["annotations"][1].update(image_id=True), "image_id True"),
        (lambda d: d["annotations"][1].update(image_id=1.5), "image_id 1.5"),
        (lambda d: d["annotations"][1].update(id=[1]), "id, image_id 2"),
        (lambda d: d["annotations"][1].update(iscrowd="maybe"), "annotation 2: 'iscrowd' is 'maybe', not 0 or 1"),
        (lambda d: d["annotations"][1].update(iscrowd=2), "'iscrowd' is 2, not 0"),
        (lambda d: d["annotations"][1].update(bbox=[1, 2, 3, 10**400]), "annotation 2: the bbox is"),
        (lambda d: d["images"][1].update(id=None), "'id' an integer or text"),
        (lambda d: d["images"].append({"id": "1", "file_name": "c.jpg"}), 'ids 1 and "1" differ only in type'),
        (lambda d: d["images"].append({"id": 2.0, "file_name": "c.jpg"}), "the image id 2 occurs 2 times"),
        (lambda d: d["annotations"][1].pop("image_id"), "has no 'image_id'"),
        (lambda d: d["annotations"].append(3), "has no 'image_id'"),
        (lambda d: d["annotations"][1].update(id=1), "the annotation id 1 occurs 2 times"),
        (lambda d: d["annotations"][1].update(area="large"), "annotation 2: the area 'large' is not a number"),
        (lambda d: d["images"][1].update(id=1), "the image id 1 occurs 2 times"),
        (lambda d: d["images"][1].update(file_name=3), "'file_name' must be text"),
        (lambda d: d["images"][1].update(width=-3), "image 2: invalid size"),
        (lambda d: d["images"][1].pop("file_name"), "no 'file_name' and 'id'"),
        (lambda d: d["categories"][1].update(id=1), "the category id 1 occurs twice ('cat', 'dog')"),
        (lambda d: d["categories"][1].pop("name"), "lacks an 'id' (an integer or text) or a 'name'"),
        (lambda d: d["categories"][1].update(name="cat"), "Duplicate class names: cat"),
        (lambda d: d["categories"].clear(), "There are no classes"),
        (lambda d: d.pop("categories"), "is not a COCO file: it contains images, annotations"),
        (lambda d: d.update(images={}), "is not a COCO file"),
        (lambda d: d.update(annotations={"1": {}}), "not a list: an object)"),
        (lambda d: d.update(annotations=None), "not a list: null)"),
        (lambda d: d.update(annotations=3), "not a list: a number)"),
    ],
)
def test_rubbish_is_refused_by_name(change: Callable[[Document], object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        read_with(tmp_path, change)
    assert message in str(caught.value)
    assert "instances_train.json" in str(caught.value)


BOX = {"bbox": [0, 0, 30, 30], "category_id": 1}
STRANGE: dict[str, Callable[[Document], object]] = {
    "predictions beside annotations": lambda d: d.update(predictions=[{"id": 9, "image_id": 1, **BOX}]),
    "predictions before annotations": lambda d: (
        (rest := dict(d)),
        d.clear(),
        d.update(predictions=[{"id": 9, "image_id": 1, **BOX}], **rest),
    ),
    "objects within images": lambda d: d["images"][0].update(objects=[{"id": 1, "image_id": 1, **BOX}]),
    "annotations within images": lambda d: d["images"][1].update(annotations=[{"id": 7, "image_id": 2, **BOX}]),
    "videos": lambda d: d.update(videos=[{"id": 1, "file_name": "clip.mp4"}]),
    "annotations with the file's name": lambda d: [a.update(file_name="a.jpg") for a in d["annotations"]],
    "images with an image_id": lambda d: [i.update(image_id=i["id"], bbox=[0, 0, 1, 1]) for i in d["images"]],
    "info with an id": lambda d: d.update(info={"id": 1, "file_name": "export.json", "image_id": 1}),
    "lists within info": lambda d: d.update(info={"categories": [{"id": 1, "name": "other"}], "images": [], **BOX}),
    "licences": lambda d: d.update(licenses=[{"id": 1, "name": "CC0", "image_id": 1}]),
    "parts of a segmentation": lambda d: d["annotations"][0].update(segments_info=[{"id": 1, "image_id": 1, **BOX}]),
    "attributes": lambda d: d["annotations"][0].update(attributes={"id": 3, "file_name": "x", "image_id": 1, **BOX}),
    "a tree of categories": lambda d: d["categories"][0].update(children=[{"id": 2, "name": "cat"}], supercategory="a"),
    "other lists": lambda d: d.update(tracks=[{"id": 1, "file_name": "a.jpg"}], groups=[[{"image_id": 1}]], note="x"),
    "an object of annotations": lambda d: d.update(extra={"annotations": [{"id": 8, "image_id": 1, **BOX}]}),
}


@pytest.mark.parametrize("case", STRANGE)
def test_only_direct_children_of_the_three_lists_count(case: str, tmp_path: Path) -> None:
    index = read_with(tmp_path, STRANGE[case])
    assert index.classes == CLASSES
    assert [index.files.name(i) for i in range(len(index))] == ["train/a.jpg", "train/b.jpg"]
    assert index.boxes.tolist() == [[2, 3, 12, 15], [0, 0, 4, 4], [20, 5, 28, 13]]
    assert index.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"annotations"', '"annotations": [], "annotations"', "the list 'annotations' occurs 2 times"),
        ('"bbox": [20', '"bbox": [1, 2, 3, 4], "bbox": [20', "annotation 2: it has a duplicate key"),
        ('"file_name": "b.jpg"', '"file_name": "a.jpg", "file_name": "b.jpg"', "image 2: it has a duplicate key"),
    ],
)
def test_keys_that_stand_twice_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    read_with(tmp_path, lambda _: None)
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_dataset(tmp_path, "train")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_the_encodings_that_json_may_have(encoding: str, tmp_path: Path) -> None:
    read_with(tmp_path, lambda d: d["categories"][0].update(name="Fuß"))
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("\\u00df", "ß"), encoding=encoding)
    assert load_dataset(tmp_path, "train").classes[0] == "Fuß"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        *((text, r"valid JSON.*line 1 column") for text in (b'{"images": [1, 2', b'{"images": [1 2]}', b'{"a" 1}')),
        *((text, r"valid JSON.*line 1 column") for text in (b'{"images": [] "a": 1}', b"{1: 2}", b'{"a": 1} x')),
        (b'{"a": 1,}', r"valid JSON.*line 1 column"),
        (b'{"annotations": [{"segmentation": [[1, 2,\n 3,\n 4]],\n "x": oops}]}', "line 4 column 7"),
        (b'{"a": "\xff"}', "valid JSON"),
        *((text, "") for text in (b"", b"{", b"[1, 2", b"[]", b"3", b'{"images": []}', b'"a"', b"[" * 100_000)),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_what_is_no_coco_file_is_refused(data: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(UserError, match=rf"x\.json is not .*{told}"):
        parse(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("value", "crowd"),
    [("0", False), ("1", True), (0.0, False), (1.0, True), (True, True), (False, False), (None, False), ("", False),
     ("false", False), ("True", True), (" 0 ", False)],
)  # fmt: skip
def test_flags_in_words_and_numbers(value: object, crowd: bool, tmp_path: Path) -> None:
    assert read_with(tmp_path, lambda d: d["annotations"][0].update(iscrowd=value)).crowd[0] == crowd


# ----------------------------------------------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    ("first", "second", "ranks"),
    [
        ("0001", "0002", [1, 2]), ("b", "a", [2, 1]), ("10", "9", [2, 1]), (2**63, 5, [2, 1]),
        (2**80, -(2**80), [2, 1]),
        ("a", 3, [2, 1]), ("a b\"c\\", "ß", [1, 2]),
    ],
)  # fmt: skip
def test_ids_of_any_kind_are_kept(first: Any, second: Any, ranks: list[int], tmp_path: Path) -> None:
    def change(document: Document) -> None:
        for image, number in zip(document["images"], (first, second), strict=True):
            image["id"] = number
        for annotation in document["annotations"]:
            annotation["image_id"] = (first, second)[annotation["image_id"] - 1]

    index = read_with(tmp_path, change)
    assert index.source_ids() == [first, second]
    assert index.image_ids.tolist() == ranks
    assert index.labels.tolist() == [0, 1, 2]
    assert index.subset([1]).source_ids() == [second]
    written = json.loads(json.dumps(to_coco(index)))
    assert [image["id"] for image in written["images"]] == [first, second]
    assert [annotation["image_id"] for annotation in written["annotations"]] == [first, first, second]


@pytest.mark.parametrize("number", [1.0, -5, 0, 2**63 - 1])
def test_whole_numbers_are_ids(number: float, tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["images"][1]["id"] = number + 1 if number == 1 else number
        for annotation in document["annotations"]:
            if annotation["image_id"] == 2:
                annotation["image_id"] = document["images"][1]["id"]

    index = read_with(tmp_path, change)
    assert index.id_texts is None and index.image_ids[1] == (2 if number == 1 else number)


def test_ids_that_differ_in_type_alone_are_matched_and_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="2 of 3 annotations give their image id as text"):
        index = read_with(tmp_path, lambda d: [a.update(image_id="1") for a in d["annotations"] if a["image_id"] == 1])
    assert index.labels.tolist() == [0, 1, 2]
    assert index.id_texts is None


def test_huge_and_text_ids_of_annotations_and_categories(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        ids = {1: 2**70, 2: "10", 3: "9"}
        for number, annotation in enumerate(document["annotations"]):
            annotation.update(id=2**64 + number, category_id=ids[annotation["category_id"]])
        for category in document["categories"]:
            category["id"] = ids[category["id"]]

    index = read_with(tmp_path, change)
    assert index.classes == ("cat", "traffic light", "dog")
    assert index.category_ids == (2**70, "9", "10")
    assert index.labels.tolist() == [0, 2, 1]
    assert index.with_classes([*index.classes, "new"]).category_ids == (2**70, "9", "10", 2**70 + 4)


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


def test_annotations_without_ids_and_degenerate_boxes_are_kept(tmp_path: Path) -> None:
    index = read_with(tmp_path, lambda d: [a.pop("id") for a in d["annotations"]])
    assert len(index.boxes) == 3
    index = read_with(tmp_path, lambda d: d["annotations"][0].update(bbox=[5, 5, -3, 0]))
    assert index.boxes[0].tolist() == [5, 5, 2, 5]


def test_no_image_at_all_is_refused(tmp_path: Path) -> None:
    root = coco_root(tmp_path)
    for path in (root / "train").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="None of the 2 images") as caught:
        load_dataset(root, "train")
    assert str(root / "train") in caught.value.expected
    write_jpeg(root / "train" / "b.jpg")
    assert len(load_dataset(root, "train")) == 2  # one missing image is the check's business


def test_names_with_backslashes_are_paths_where_there_is_no_such_file(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "train" / "sub" / "a.jpg")
    path = tmp_path / "annotations" / "instances_train.json"
    write_json(path, coco_dict(["sub\\a.jpg"], [(1, 1, (2, 3, 10, 12))]))
    assert load_dataset(tmp_path, "train").path(0) == tmp_path / "train" / "sub" / "a.jpg"
    write_jpeg(tmp_path / "train" / "sub\\a.jpg")
    assert load_dataset(tmp_path, "train").path(0) == tmp_path / "train" / "sub\\a.jpg"


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


def test_polygons_are_cut_out_before_the_file_is_parsed(tmp_path: Path) -> None:
    """They are most of a large file; that nobody looks into them shows where they are no JSON."""
    read_with(tmp_path, lambda d: [each.update(segmentation=[[1.5, 2, 3]]) for each in d["annotations"]])
    path = tmp_path / "annotations" / "instances_train.json"
    path.write_text(path.read_text().replace("[[1.5, 2, 3]]", "[[1.5,, 3]]"))
    assert load_dataset(tmp_path, "train").labels.tolist() == [0, 1, 2]
