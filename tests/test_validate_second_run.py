"""What validate takes from an earlier run, and when it does not; the result is that of a run without leftovers."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from stages import validate
from stages.lib import duplicates, earlier, files, images

FRAME = images.Frame(64, "squash", 120, 20)


def left(folder, frame=FRAME):
    return earlier.Earlier(folder.base / "clean", earlier.recipe(frame), frame)


def identity(path: Path) -> tuple[int, int]:
    """Changes when the file is written or replaced, and not when it is read, as its time of access does."""
    return path.stat().st_ino, path.stat().st_mtime_ns


def add_copy(folder, of: str, name: str) -> None:
    with images.Image.open(folder.images / of) as opened:
        opened.resize((70, 60)).save(folder.images / name, quality=80)
    folder.rows.append(f"{name} 1 0")


def test_second_run_decodes_nothing_and_gives_the_same(folder, monkeypatch):
    assert folder.run().returncode == 0
    before = folder.outputs()
    monkeypatch.setattr(images, "open_square", lambda *_: pytest.fail("decoded again"))
    reused = validate.picture(folder.images, FRAME, left(folder), "4.jpg")
    assert (reused.pixels, reused.facts["image"]) == (4, "4.jpg")
    written = identity(folder.base / "clean/pixels.npy")
    assert folder.run().returncode == 0  # the whole stage, in this process
    assert folder.outputs() == before
    assert identity(folder.base / "clean/pixels.npy") == written  # not even written again


def test_equal_files_stay_in_their_places(folder):
    shutil.copy(folder.images / "2.jpg", folder.images / "equal.jpg")
    folder.rows.append("equal.jpg 1 0")
    assert folder.run().returncode == 0
    written = identity(folder.base / "clean/pixels.npy")
    assert folder.run().returncode == 0
    assert identity(folder.base / "clean/pixels.npy") == written


def test_pictures_that_moved_are_taken_from_their_old_place(folder, monkeypatch):
    assert folder.run().returncode == 0
    before = np.load(folder.base / "clean/pixels.npy")
    monkeypatch.setattr(images, "open_square", lambda *_: pytest.fail("decoded again"))
    first, second = folder.rows[:2]
    folder.rows[:2] = [second, first]
    assert folder.run().returncode == 0
    np.testing.assert_array_equal(np.load(folder.base / "clean/pixels.npy"), before[[1, 0, *range(2, 10)]])
    folder.rows = folder.rows[:9]
    assert folder.run().returncode == 0
    np.testing.assert_array_equal(np.load(folder.base / "clean/pixels.npy"), before[[1, 0, *range(2, 9)]])


def test_other_settings_or_changed_files_are_decoded_again(folder):
    assert folder.run().returncode == 0
    crop = images.Frame(64, "crop", 120, 20)
    assert left(folder, crop).find(folder.images / "4.jpg", "4.jpg") is None
    folder.picture(90).save(folder.images / "4.jpg")
    assert folder.run().returncode == 0
    opened = images.open_square(folder.images / "4.jpg", images.Frame(64, "squash", 120, 20))
    np.testing.assert_array_equal(np.load(folder.base / "clean/pixels.npy")[4], opened.pixels)


def test_file_that_can_no_longer_be_read_is_a_fault_of_the_second_run_too(folder, monkeypatch):
    assert folder.run().returncode == 0

    before = left(folder)

    def no_hash(path):
        raise PermissionError(13, "Permission denied")

    def no_pixels(path, frame):
        raise images.ImageFault("unreadable_file", "can't be read: Permission denied")

    monkeypatch.setattr(files, "fingerprint", no_hash)
    monkeypatch.setattr(images, "open_square", no_pixels)
    assert validate.picture(folder.images, FRAME, before, "4.jpg").fault.kind == "unreadable_file"


def test_store_that_does_not_belong_to_its_table_is_not_reused(folder):
    """As after a kill, or a full disk, between the writing of the two."""
    assert folder.run().returncode == 0
    store = np.load(folder.base / "clean/pixels.npy")
    np.save(folder.base / "clean/pixels.npy", store[::-1])
    assert folder.run().returncode == 0
    np.testing.assert_array_equal(np.load(folder.base / "clean/pixels.npy"), store)


def test_changed_hash_code_is_another_recipe(monkeypatch):
    before = earlier.recipe(FRAME)
    plain = files.fingerprint
    monkeypatch.setattr(files, "fingerprint", lambda path: "new" if path.name == "duplicates.py" else plain(path))
    assert earlier.recipe(FRAME) != before


def test_second_run_compares_nothing_and_finds_the_same_groups(folder, monkeypatch):
    add_copy(folder, "3.jpg", "copy.jpg")
    assert folder.run().returncode == 0
    assert (folder.base / "clean/pairs.csv").read_text() == "image,copy\n3.jpg,copy.jpg\n"
    before = folder.outputs()
    monkeypatch.setattr(duplicates, "_thumbnail", lambda _: pytest.fail("compared again"))
    monkeypatch.setattr(duplicates, "_views", lambda _: pytest.fail("compared again"))
    assert folder.run().returncode == 0
    assert folder.outputs() == before


@pytest.mark.parametrize("change", ["another copy", "a copy gone", "nearer hashes only"])
def test_run_with_leftovers_ends_as_one_without(folder, change):
    add_copy(folder, "3.jpg", "copy.jpg")
    add_copy(folder, "5.jpg", "more.jpg")
    assert folder.run().returncode == 0
    settings = {}
    if change == "another copy":
        add_copy(folder, "3.jpg", "third.jpg")
    elif change == "a copy gone":
        (folder.images / "3.jpg").unlink()
    else:
        settings = {"validate.duplicate_distance": 0}
    assert folder.run(settings).returncode == 0
    again = folder.outputs()
    shutil.rmtree(folder.base / "clean")
    assert folder.run(settings).returncode == 0
    assert folder.outputs() == again


def test_pairs_of_another_distance_or_another_run_are_not_settled(folder):
    add_copy(folder, "3.jpg", "copy.jpg")
    assert folder.run({"validate.duplicate_distance": 16}).returncode == 0
    assert len(left(folder).settled(16).pairs) == 1
    assert len(left(folder).settled(16).digests) == 11
    assert left(folder).settled(15) == duplicates.Settled()
    (folder.base / "clean/pairs.csv").write_text("image,copy\n")  # as after a kill before images.csv was written
    assert left(folder).settled(16) == duplicates.Settled()
    (folder.base / "clean/pairs.csv").unlink()
    assert left(folder).settled(16) == duplicates.Settled()
