"""validate from its arguments to its files: one of every fault, the verdict, the second run.

Most tests call `main` in this process, which saves a second per run; what a user sees is asserted on the command.
"""

from __future__ import annotations

import io
import json
import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stages.lib.faults import EFFECTS
from tests.conftest import Folder


def plant_missing(f: Folder):
    f.rows.append("10.jpg 1 0")


def plant_dangling(f: Folder):
    os.symlink("/nowhere/at/all.jpg", f.images / "link.jpg")
    f.rows.append("link.jpg 1 0")


def plant_outside(f: Folder):
    f.picture(50).save(f.base / "secret.jpg")
    f.rows.append("../secret.jpg 1 0")


def plant_empty(f: Folder):
    (f.images / "zero.jpg").touch()
    f.rows.append("zero.jpg 1 0")


def plant_html(f: Folder):
    (f.images / "page.png").write_text("<!DOCTYPE html><html>404</html>")
    f.rows.append("page.png 1 0")


def plant_truncated(f: Folder):
    (f.images / "cut.jpg").write_bytes((f.images / "0.jpg").read_bytes()[:900])
    f.rows.append("cut.jpg 1 0")


def plant_unreadable(f: Folder):
    (f.images / "loop.jpg").symlink_to("loop.jpg")
    f.rows.append("loop.jpg 1 0")


def plant_bomb(f: Folder):
    Image.new("1", (9000, 9000)).save(f.images / "bomb.png")
    f.rows.append("bomb.png 1 0")


def plant_ribbon(f: Folder):
    Image.new("RGB", (900, 20)).save(f.images / "ribbon.png")
    f.rows.append("ribbon.png 1 0")


def plant_columns(f: Folder):
    f.rows.append("3.jpg 1 0 1")


def plant_token(f: Folder):
    f.rows[3] = "3.jpg 1 0mobilenet"


def plant_conflict(f: Folder):
    f.rows.append("3.jpg 0 0")


def plant_repeat(f: Folder):
    f.rows.append(f.rows[3])


def plant_unknown(f: Folder):
    f.picture(60).save(f.images / "new.jpg")
    f.rows.append("new.jpg NA NA")


def plant_unusable(f: Folder):
    f.picture(63).save(f.images / "odd.jpg")
    f.rows += ["odd.jpg NA 1", "odd.jpg NA 0"]


def plant_twins(f: Folder):
    f.picture(61).save(f.images / "photo.jpg")
    f.picture(62).save(f.images / "PHOTO.jpg")
    f.rows += ["photo.jpg 1 1", "PHOTO.jpg 0 0"]


def plant_animation(f: Folder):
    frames = [f.picture(70), f.picture(71)]
    frames[0].save(f.images / "moving.gif", save_all=True, append_images=frames[1:])
    f.rows.append("moving.gif 1 0")


def plant_unlabelled(f: Folder):
    (f.images / "sub").mkdir()
    f.picture(80).save(f.images / "sub" / "extra.jpg")


# kind, how it is planted, the line that is named (the header is line 1), column, value, part of the message
PLANTED = [
    ("missing_image", plant_missing, 12, "", "10.jpg", "'10.jpg': no such file in the images folder: row set aside"),
    ("dangling_link", plant_dangling, 12, "", "link.jpg", "symbolic link to '/nowhere/at/all.jpg', which does not exist"),
    ("outside_folder", plant_outside, 12, "", "../secret.jpg", "'../secret.jpg' leads out of the images folder"),
    ("empty_file", plant_empty, 12, "", "zero.jpg", "the file is empty (0 bytes)"),
    ("not_an_image", plant_html, 12, "", "page.png", "not an image: it is an HTML page"),
    ("damaged_image", plant_truncated, 12, "", "cut.jpg", "damaged or cut off: "),
    ("unreadable_file", plant_unreadable, 12, "", "loop.jpg", "can't be reached"),
    ("too_many_pixels", plant_bomb, 12, "", "bomb.png", "9000 x 9000 pixels, above the limit of 50 megapixels"),
    ("extreme_aspect", plant_ribbon, 12, "", "ribbon.png", "900 x 20 pixels: longer than the limit of 20 to 1"),
    ("wrong_columns", plant_columns, 12, "", "3.jpg 1 0 1", "4 columns where 3 are expected: row set aside"),
    ("bad_token", plant_token, 5, "b", "0mobilenet", "'0mobilenet' is not 1, 0 or NA: taken as NA"),
    ("conflicting_labels", plant_conflict, 12, "a", "1 and 0", "'3.jpg' stands in line 5 and again in line 12 with the other"),
    ("repeated_row", plant_repeat, 12, "", "3.jpg", "'3.jpg' stands in line 5 and again in line 12: merged"),
    ("no_known_label", plant_unknown, 12, "", "new.jpg", "'new.jpg' has no known label: nothing to learn from"),
    ("case_twins", plant_twins, 13, "", "PHOTO.jpg", "'PHOTO.jpg' and 'photo.jpg' differ only in case"),
    ("animated", plant_animation, 12, "", "moving.gif", "'moving.gif' is animated: its first frame is used"),
    ("unlabelled_image", plant_unlabelled, 0, "", "", "'sub/extra.jpg' has no row in the labels file"),
]


@pytest.mark.parametrize(("kind", "plant", "line", "column", "value", "message"), PLANTED, ids=[row[0] for row in PLANTED])
def test_fault_is_found_named_and_counted(folder, kind, plant, line, column, value, message):
    plant(folder)
    done = folder.run({"validate.max_megapixels": 50})
    assert done.returncode == 0, done.stderr
    fault = folder.fault(kind)
    assert (fault["line"], fault["column"], fault["value"]) == (line, column, value)
    assert message in fault["message"]
    assert kind in done.stdout
    assert message[:40] in done.stdout
    figures = json.loads((folder.base / "metrics/validation.json").read_text())
    assert figures["faults"] == {kind: 1}
    assert figures["rejected"] == int(EFFECTS[kind] == "row")
    assert len(folder.clean()) == figures["images"] == len(np.load(folder.base / "clean/pixels.npy"))


def test_every_row_fault_is_planted_or_tested_elsewhere():
    assert set(EFFECTS) - {row[0] for row in PLANTED} == {"one_class_only", "byte_order_mark", "labels_unusable"}


def test_attribute_with_one_class_is_named(folder):
    folder.rows = [row.rsplit(" ", 1)[0] + " 0" for row in folder.rows]
    assert folder.run().returncode == 0
    assert "attribute 'b' has 0 positives and 10 negatives" in folder.fault("one_class_only")["message"]


def test_missing_image_whose_case_differs_is_explained(folder):
    folder.rows[2] = folder.rows[2].replace("2.jpg", "2.JPG")
    assert folder.run().returncode == 0
    assert "(there is '2.jpg': the case differs)" in folder.fault("missing_image")["message"]


def test_labels_as_csv(folder):
    (folder.base / "l.csv").write_text("image,a,b\n0.jpg,1,\n1.jpg,0,1.0\n2.jpg,NA,0\n")
    assert folder.run(labels="l.csv").returncode == 0
    assert folder.clean().fillna(-1).to_numpy().tolist() == [["0.jpg", 1, -1], ["1.jpg", 0, 1], ["2.jpg", -1, 0]]


def test_too_many_rejects_fail_with_the_summary_and_destroy_nothing(folder):
    assert folder.run().returncode == 0
    before = folder.outputs()
    (folder.images / "3.jpg").write_bytes(b"")
    done = folder.run({"validate.max_rejected": 0.05}, command=True)
    assert done.returncode == 1
    assert "error: 1 of 10 rows are set aside (10.0%), above validate.max_rejected (5.0%)" in done.stderr
    assert "line 5: '3.jpg': the file is empty (0 bytes)" in done.stderr
    assert "Traceback" not in done.stderr
    after = folder.outputs()
    assert {name for name in after if after[name] != before.get(name)} == {"rejects.csv"}


def test_nothing_usable(folder):
    folder.rows = [f"{index}.jpg NA NA" for index in range(10)]
    done = folder.run()
    assert done.returncode == 1
    assert "no row has both a usable image and a known label" in done.stderr


def test_every_attribute_with_one_class(folder):
    folder.rows = [f"{index}.jpg 1 0" for index in range(10)]
    done = folder.run()
    assert done.returncode == 1
    assert "every attribute has one class only" in done.stderr


def test_missing_images_folder(folder):
    folder.images = folder.base / "none"
    done = folder.run(command=True)
    assert done.returncode == 1
    assert "does not exist; set data.images" in done.stderr
    assert "Traceback" not in done.stderr


def test_empty_images_folder(folder):
    for path in folder.images.iterdir():
        path.unlink()
    done = folder.run({"validate.max_rejected": 1})
    assert done.returncode == 1
    assert "nothing to train on" in done.stderr


def test_formula_like_and_control_characters_stay_text(folder):
    folder.rows.append("\x1b[2J=cmd.jpg 1 0")
    done = folder.run()
    assert "\x1b" not in done.stdout
    assert folder.fault("missing_image")["value"] == "\\x1b[2J=cmd.jpg"


def test_figures_are_flat_numbers(folder):
    buffer = io.BytesIO()
    folder.picture(3).resize((48, 40)).save(buffer, "JPEG", quality=60)
    (folder.images / "copy.jpg").write_bytes(buffer.getvalue())
    folder.rows.append("copy.jpg 1 0")
    assert folder.run().returncode == 0
    figures = json.loads((folder.base / "metrics/validation.json").read_text())
    assert figures | {"faults": {}} == {
        "rows": 11,
        "images": 11,
        "rejected": 0,
        "unknown_share": 0.0,
        "duplicate_groups": 1,
        "duplicate_images": 2,
        "faults": {},
    }
    agreement = pd.read_csv(folder.base / "metrics/duplicates.csv")
    assert agreement["pairs"].tolist() == [1, 1]
    assert agreement["agree"].tolist() == [1, 1]


def test_one_image_is_too_few_to_learn_from(folder):
    folder.rows = folder.rows[:1]
    done = folder.run()
    assert done.returncode == 1
    assert "every attribute has one class only" in done.stderr
    assert "Traceback" not in done.stderr


def test_byte_order_mark_is_noted(folder):
    (folder.base / "bom.txt").write_bytes(b"\xef\xbb\xbfimage a b\r\n" + "\r\n".join(folder.rows).encode())
    assert folder.run(labels="bom.txt").returncode == 0
    assert folder.fault("byte_order_mark")["effect"] == "note"
    assert len(folder.clean()) == 10


def test_header_that_fits_no_row(folder):
    (folder.base / "l.txt").write_text("image a b c\n" + "\n".join(folder.rows))
    done = folder.run(labels="l.txt")
    assert done.returncode == 1
    assert "10 of 10 rows are set aside" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"a\rb.jpg"], ids=["latin-1", "return"])
def test_odd_names_on_disk_are_reported_legibly(folder, name):
    folder.picture(30).save(folder.images / "plain.jpg")
    os.rename(folder.images / "plain.jpg", os.path.join(os.fsencode(folder.images), name))
    done = folder.run()
    assert done.returncode == 0, done.stderr
    fault = folder.fault("unlabelled_image")
    assert fault["file"].isprintable()
    assert fault["line"] == 0


def test_row_whose_last_label_is_lost_counts_as_set_aside(folder):
    plant_unusable(folder)
    assert folder.run().returncode == 0
    fault = folder.fault("labels_unusable")
    assert (fault["effect"], fault["line"]) == ("row", 12)
    assert json.loads((folder.base / "metrics/validation.json").read_text())["rejected"] == 1


def test_too_many_unusable_labels_fail(folder):
    """One column of words leaves every row usable, and must not pass as a detail."""
    folder.rows = [row.rsplit(" ", 1)[0] + " yes" if index < 4 else row for index, row in enumerate(folder.rows)]
    done = folder.run({"validate.max_rejected": 0.05})
    assert done.returncode == 1
    assert "4 of 20 labels can't be used (20.0%), above validate.max_rejected (5.0%): write 1, 0 or NA" in done.stderr
