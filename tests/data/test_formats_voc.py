"""Pascal VOC: pixels counted from 1, image sets, XML in the encodings of the world, and rubbish refused by file."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data.cases import voc_root, voc_xml, write_jpeg

from eyas.data.formats import find_splits, load_dataset
from eyas.data.formats.base import Problems
from eyas.data.formats.voc_xml import VocObject, looks_like_voc, parse_xml
from eyas.data.rewrite.convert import convert
from eyas.errors import UserError


def write_xml(root: Path, text: str) -> Path:
    path = root / "Annotations" / "a.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_pixels_are_counted_from_one(tmp_path: Path) -> None:
    index = load_dataset(voc_root(tmp_path), "train")
    assert index.boxes.tolist() == [[0, 0, 40, 30], [2, 3, 12, 20]]
    assert index.classes == ("cat", "dog")
    assert index.labels.tolist() == [1, 0]
    assert index.path(0) == tmp_path / "JPEGImages" / "a.jpg"


def test_tools_that_count_from_zero_stay_in_the_frame(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_xml(root, voc_xml("a.jpg", [("cat", (0, 0.5, 9, 9)), ("cat", (-4, 3.5, 9, 9))]))
    assert load_dataset(root, "train").boxes.tolist() == [[0, 0, 9, 9], [-4, 2.5, 9, 9]]


def test_parts_of_objects_are_no_objects(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    write_xml(root, voc_xml("a.jpg", [("cat", (1, 1, 9, 9))]).replace("</object>", f"{part}</object>"))
    index = load_dataset(root, "train")
    assert index.classes == ("cat", "dog")
    assert len(index.boxes) == 1


def test_image_sets_that_are_splits(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    sets = root / "ImageSets" / "Main"
    (sets / "trainval.txt").write_text("a\nb\n")
    (sets / "cat_train.txt").write_text("a  1\nb -1\n")
    assert find_splits(root) == ("train", "val")
    (sets / "val.txt").unlink()
    assert find_splits(root) == ("train", "trainval")


def test_classes_file_fixes_the_order(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "classes.txt").write_text("dog\nbird\ncat\n")
    index = load_dataset(root, "train")
    assert index.classes == ("dog", "bird", "cat")
    assert index.labels.tolist() == [0, 2]
    (root / "classes.txt").write_text("dog\n")
    with pytest.raises(UserError, match="lacks the classes cat"):
        load_dataset(root, "train")


def test_missing_size_is_read_from_the_image(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    write_xml(root, voc_xml("a.jpg", [("cat", (1, 1, 9, 9))], size=(0, 0)))
    assert load_dataset(root, "train").sizes.tolist() == [[30, 40]]


def test_image_of_another_type(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "JPEGImages" / "a.jpg").rename(root / "JPEGImages" / "a.jpeg")
    assert load_dataset(root, "train").path(0).name == "a.jpeg"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotation>\n<object>\n</annotation>", "a.xml:3: is not valid XML"),
        ("", "is not valid XML"),
        ("<html/>", "not <annotation>"),
        (voc_xml("a.jpg", [("", (1, 1, 2, 2))]), "object 1: has no name"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2)), ("cat", (1, 1, 2, float("nan")))]), "object 2: the bndbox of 'cat'"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2))]).replace("<xmax>2</xmax>", ""), "object 1: the bndbox"),
        (voc_xml("a.jpg", [("cat", (1, 1, 2, 2))]).replace("<xmax>2", "<xmax>two"), "'two'"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotation>&a;</annotation>', "declares XML entities"),
    ],
)
def test_rubbish_is_refused_with_the_file(text: str, message: str, tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    path = write_xml(root, text)
    with pytest.raises(UserError) as caught:
        load_dataset(root, "train", format="voc")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_listed_image_without_xml_is_refused(tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nghost\n")
    with pytest.raises(UserError, match="1 images without an XML file: ghost"):
        load_dataset(root, "train")


def test_other_xml_is_no_voc(tmp_path: Path) -> None:
    write_jpeg(tmp_path / "a.jpg")
    (tmp_path / "annotations.xml").write_text("<annotations><image/></annotations>")
    with pytest.raises(UserError, match="No dataset was found"):
        load_dataset(tmp_path)


def test_parse_xml_collects_what_it_can_read(tmp_path: Path) -> None:
    path = tmp_path / "x.xml"
    path.write_text(voc_xml("x.jpg", [("cat", (1, 2, 3, 4)), ("", (1, 1, 2, 2))]).replace("<width>40", "<width>wide"))
    problems = Problems(path)
    annotation = parse_xml(path, problems)
    assert annotation.objects == (VocObject("cat", (1, 2, 3, 4), False),)
    assert annotation.size == (30, 0)
    assert problems.count == 1


def annotation(name: str, declared: str = "", filename: str = "a.jpg") -> str:
    first = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    return first + voc_xml(filename, [(name, (1, 1, 9, 9))])


def names_in(path: Path, data: bytes) -> tuple[list[str], list[str]]:
    """Return (class names, problems) of an XML file with these bytes."""
    path.write_bytes(data)
    problems = Problems(path)
    assert looks_like_voc(path)
    return [each.name for each in parse_xml(path, problems).objects], problems.lines


@pytest.mark.parametrize(
    ("encoding", "declared", "name"),
    [
        ("gbk", "gbk", "猫"), ("gb2312", "GB2312", "猫"), ("gb18030", "gb18030", "猫"),
        ("shift_jis", "Shift_JIS", "猫"), ("big5", "Big5", "貓"), ("euc-kr", "euc-kr", "고양이"),
        ("euc-jp", "EUC-JP", "猫"), ("utf-8", "", "猫"), ("utf-8", "ANSI", "猫"),
        ("utf-8", "unicode", "猫"), ("utf-8", "utf8mb4", "猫"), ("utf-8", "gbk", "汽车"),
        ("utf-8", "utf-16", "猫"), ("utf-8-sig", "gbk", "猫"), ("utf-16", "utf-16", "猫"),
        ("utf-16-le", "utf-16", "猫"), ("utf-16-be", "utf-8", "猫"), ("utf-32", "utf-32", "猫"),
        ("latin1", "iso-8859-1", "é"), ("utf-8", "latin1", "é"), ("cp1252", "windows-1252", "“é”"),
    ],
)  # fmt: skip
def test_encodings(encoding: str, declared: str, name: str, tmp_path: Path) -> None:
    data = annotation(name, declared).encode(encoding)
    assert names_in(tmp_path / "a.xml", data) == ([name], [])


@pytest.mark.parametrize("declared", ["utf-8", "ANSI", ""])
def test_a_class_in_an_encoding_that_nobody_names_is_refused(declared: str, tmp_path: Path) -> None:
    names, problems = names_in(tmp_path / "a.xml", annotation("汽车", declared).encode("gbk"))
    assert names == []
    assert "neither UTF-8 nor in the encoding" in problems[0]


def test_other_text_in_an_unknown_encoding_does_no_harm(tmp_path: Path) -> None:
    """labelImg on a Chinese Windows writes the image's whole path; the class names are plain."""
    text = annotation("cat").replace("<filename>", "<path>C:\\图片\\a.jpg</path><filename>")
    assert names_in(tmp_path / "a.xml", text.encode("gbk")) == (["cat"], [])


def test_a_filename_that_is_no_utf8_is_the_file_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(annotation("cat", filename="汽车.jpg").encode("gbk"))
    assert parse_xml(path, Problems(path)).filename.encode("utf-8", "surrogateescape") == "汽车.jpg".encode("gbk")


def test_blanks_without_width_and_before_the_first_line(tmp_path: Path) -> None:
    text = "\n " + annotation("\u00a0cat\u200b", "utf-8").replace("<xmin>1<", "<xmin>\u00a01\u200b<").replace(
        ">9<", ">9\ufeff<"
    )
    path = tmp_path / "a.xml"
    path.write_text(text, encoding="utf-8")
    problems = Problems(path)
    assert parse_xml(path, problems).objects[0].box == (1, 1, 9, 9)
    assert parse_xml(path, problems).objects[0].name == "cat"
    path.write_text(text.replace("</object>", "</objekt>"), encoding="utf-8")
    parse_xml(path, problems)
    assert problems.lines[0].startswith(f"{path}:{text[: text.index('</object>')].count(chr(10)) + 1}:")


ENTITIES = (
    '<!DOCTYPE a [<!ENTITY x "yyyyyyyyyy"><!ENTITY z "&x;&x;&x;&x;&x;">]><annotation><object>&z;</object></annotation>'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "gbk", "utf-7"])
def test_entities_are_refused_in_every_encoding(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{ENTITIES}'.encode(encoding))
    problems = Problems(path)
    assert parse_xml(path, problems).objects == ()
    assert "entit" in problems.lines[0] or "not valid XML" in problems.lines[0]


def test_outside_files_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("<!ENTITY x 'secret'>")
    path = tmp_path / "a.xml"
    path.write_text(f'<!DOCTYPE a SYSTEM "file://{tmp_path}/secret"><annotation>&x;</annotation>')
    problems = Problems(path)
    parse_xml(path, problems)
    assert "undefined entity" in problems.lines[0]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_whole_dataset_in_another_encoding(encoding: str, tmp_path: Path) -> None:
    root = voc_root(tmp_path)
    for path in [*root.rglob("*.xml"), *root.rglob("*.txt")]:
        path.write_bytes(path.read_text().replace("\n", "\r\n").encode(encoding))
    (root / "classes.txt").write_bytes("dog\r\ncat\u00a0\r\n".encode(encoding))
    index = load_dataset(root, "train")
    assert index.classes == ("dog", "cat")
    assert len(index.boxes) == 2


def test_class_names_that_lines_would_not_give_back_are_refused_before_copying(tmp_path: Path) -> None:
    from tests.data.cases import coco_root

    root = coco_root(tmp_path / "in")
    for path in (root / "annotations").iterdir():
        path.write_text(path.read_text().replace('"dog"', '"dog "'))
    with pytest.raises(UserError, match="leading or trailing blanks: 'dog '"):
        convert(root, tmp_path / "out", "voc")
    assert not (tmp_path / "out").exists()
    convert(root, tmp_path / "out", "yolo")
    assert load_dataset(tmp_path / "out", "train").classes[1] == "dog "
