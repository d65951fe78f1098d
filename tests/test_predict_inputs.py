"""predict: which images are tagged - named, in a folder, in a list, from standard input - and in which order."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import pytest

from stages.lib import files, sources
from stages.lib.errors import UserError
from tests.project import Project, one_message


def tagged(project: Project, out: Path, *more: object) -> list[str]:
    project.run("predict", "--out", out, *more)
    return list(files.read_table(out, "predict")["image"])


def test_several_images_into_a_table_in_the_order_given(done: Project, tmp_path: Path) -> None:
    places = [str(done / "images" / name) for name in ("5.png", "1.png", "5.png", "no.png")]
    assert tagged(done, tmp_path / "out.csv", "--image", *places) == places
    table = files.read_table(tmp_path / "out.csv", "predict")
    assert table["red_probability"][0] == table["red_probability"][2]
    assert table["reason"][3].startswith("no such file")


def test_a_folder_is_read_with_its_subfolders_on_request(done: Project, tmp_path: Path) -> None:
    (tmp_path / "new" / "deeper").mkdir(parents=True)
    for name in ("b.png", "a.png", "deeper/c.png"):
        shutil.copy(done / "images" / "1.png", tmp_path / "new" / name)
    out = tmp_path / "out.csv"
    assert tagged(done, out, "--images", tmp_path / "new") == ["a.png", "b.png"]
    assert tagged(done, out, "--images", tmp_path / "new", "--recursive") == ["a.png", "b.png", "deeper/c.png"]


def test_one_image_and_no_image(done: Project, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    assert tagged(done, tmp_path / "out.csv", "--images", tmp_path / "new") == []
    shutil.copy(done / "images" / "1.png", tmp_path / "new")
    assert tagged(done, tmp_path / "out.csv", "--images", tmp_path / "new") == ["1.png"]


def test_results_in_the_folder_of_the_images_are_not_tagged(done: Project, tmp_path: Path) -> None:
    for name in ("1.png", "out.csv.png"):  # the second only looks like one of ours
        shutil.copy(done / "images" / "1.png", tmp_path / name)
    (tmp_path / "out.csv.parts").mkdir()
    (tmp_path / "out.csv.parts" / "part-000000000000-000000000001.jsonl").write_text("of a run that was killed")
    (tmp_path / "out.csv.shard-1-of-2.jsonl").write_text("")
    where = ("--images", tmp_path, "--recursive", "--unreadable", tmp_path / "bad.csv")
    for _ in range(2):
        assert tagged(done, tmp_path / "out.csv", *where) == ["1.png", "out.csv.png"]


def test_a_text_list_is_relative_to_its_folder_unless_absolute(done: Project, tmp_path: Path) -> None:
    shutil.copy(done / "images" / "1.png", tmp_path / "one.png")
    names = ["one.png", str(done / "images" / "2.png"), "#no.png", "one.png"]
    (tmp_path / "list.txt").write_text("\n\n".join(names) + "\r\n")
    assert tagged(done, tmp_path / "out.csv", "--list", tmp_path / "list.txt") == names
    assert [bool(reason) for reason in files.read_table(tmp_path / "out.csv", "predict")["reason"]] == [False, False, True, False]


def test_standard_input_is_a_list(done: Project, tmp_path: Path) -> None:
    place = str(done / "images" / "2.png")
    with mock.patch.object(sys, "stdin", mock.Mock(buffer=io.BytesIO(f"{place}\0{place}\0".encode()))):
        assert tagged(done, tmp_path / "out.csv", "--list", "-") == [place, place]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image,red\na.png,1\nb.png,0\n", ["a.png", "b.png"]),
        ("red,Path\n1,a.png\n0,b.png\n", ["a.png", "b.png"]),
        ('a.png,1\n"with, comma.png",0\n', ["a.png", "with, comma.png"]),
        ("image\n", []),
        ("", []),
        ("\ufeffimage\na.png\n", ["a.png"]),
    ],
)
def test_a_csv_list(tmp_path: Path, content: str, expected: list[str]) -> None:
    (tmp_path / "list.csv").write_text(content)
    source = sources.of_list(str(tmp_path / "list.csv"))
    assert source.names == expected
    assert source.base == tmp_path


@pytest.mark.parametrize(("content", "message"), [("red,image\n1\n", "row 2 has no path"), ('"a.png\n', "is not CSV")])
def test_a_csv_list_that_can_not_be_read(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        sources.of_list(str(tmp_path / "list.csv"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.png\nb c.png\n", ["a.png", "b c.png"]),
        (b"new\nline.png\0b.png\0", ["new\nline.png", "b.png"]),
        (b"form\x0cfeed.png\nline\xe2\x80\xa8separator.png", ["form\x0cfeed.png", "line\u2028separator.png"]),
        (b"\n \n\r\n", []),
    ],
)
def test_a_text_list(tmp_path: Path, content: bytes, expected: list[str]) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    assert sources.of_list(str(tmp_path / "list.txt")).names == expected


def test_a_name_that_is_not_utf8_is_found(done: Project, tmp_path: Path) -> None:
    shutil.copy(done / "images" / "1.png", os.fsencode(tmp_path) + b"/caf\xe9.png")
    (tmp_path / "list.txt").write_bytes(b"caf\xe9.png\n")
    assert tagged(done, tmp_path / "out.jsonl.csv", "--list", tmp_path / "list.txt") == ["caf\\udce9.png"]
    assert files.read_table(tmp_path / "out.jsonl.csv", "predict")["red_probability"].notna().all()


def test_a_list_that_is_not_there(done: Project, tmp_path: Path) -> None:
    message = one_message(done.run("predict", "--list", tmp_path / "no.txt", "--out", tmp_path / "out.csv", expect=1))
    assert "no.txt can't be read: No such file" in message
