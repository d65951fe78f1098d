import pandas as pd
import pytest

from stages.lib import folder
from stages.lib.errors import UserError


def fill(path, names: list[str]) -> None:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).touch()


def faults(tmp_path, names: list[str], present: list[str]) -> list[tuple[str, str, int]]:
    table = pd.DataFrame({"line": range(2, len(names) + 2), "image": names})
    found = folder.name_faults(table, tmp_path, "labels.txt", present)
    return [(fault.kind, fault.value or fault.file, fault.line) for fault in found]


def test_image_files(tmp_path):
    wanted = ["B.JPG", "a.png", "sub/deep/d.webp", "sub/c.jpeg", "x.tar.gif", "with space.tiff"]
    other = [".hidden.jpg", "sub/._c.jpeg", "notes.txt", "jpg", "a.png.part", "Thumbs.db", ".jpg", "sub/.DS_Store"]
    fill(tmp_path, wanted + other)
    (tmp_path / "folder.jpg").mkdir()
    assert folder.image_files(tmp_path) == sorted(wanted)


def test_linked_files_count_and_linked_folders_are_not_entered(tmp_path):
    fill(tmp_path, ["elsewhere/x.jpg", "photos/a.jpg"])
    (tmp_path / "photos" / "b.jpg").symlink_to(tmp_path / "elsewhere" / "x.jpg")
    (tmp_path / "photos" / "round").symlink_to(tmp_path / "photos")
    assert folder.image_files(tmp_path / "photos") == ["a.jpg", "b.jpg"]


def test_a_linked_images_folder_is_entered(tmp_path):
    fill(tmp_path, ["photos/a.jpg"])
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert folder.image_files(tmp_path / "link") == ["a.jpg"]


def test_empty_folder(tmp_path):
    assert folder.image_files(tmp_path) == []


def test_missing_folder_and_file_as_folder(tmp_path):
    with pytest.raises(UserError, match=r"gone does not exist; set data\.images"):
        folder.image_files(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file is not a folder; set data\.images"):
        folder.image_files(tmp_path / "file")


def test_faults_of_names(tmp_path):
    names = ["a.jpg", "../x.jpg", "A.jpg", "sub/b.jpg", "/etc/x.jpg"]
    assert faults(tmp_path, names, ["a.jpg", "sub/b.jpg", "new.jpg"]) == [
        ("outside_folder", "../x.jpg", 3),
        ("case_twins", "A.jpg", 4),
        ("outside_folder", "/etc/x.jpg", 6),
        ("unlabelled_image", "new.jpg", 0),
    ]


def test_a_name_written_another_way_is_labelled(tmp_path):
    assert faults(tmp_path, ["./a.jpg", "sub//b.jpg"], ["a.jpg", "sub/b.jpg"]) == []


def test_near_name():
    present = {"sub/a.jpg": "sub/A.JPG"}
    assert folder.near_name("./sub/a.jpg", present) == " (there is 'sub/A.JPG': the case differs)"
    assert folder.near_name("b.jpg", present) == ""
