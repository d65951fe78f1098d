"""collect: a labels file from a folder per attribute, which says NA where nobody has said anything."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import collect
from stages.lib import labels
from stages.lib.errors import run_stage
from tests.project import Result


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["collect", *map(str, args)])
        code = 0
        try:
            run_stage(collect.main)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return run


def files_of(base: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (base / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (base / "images" / name).write_bytes(data)
    return base / "images"


def cells(path: Path) -> dict[str, list[object]]:
    """Per image its cells as text, as they stand in the file."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    return {row[0]: list(row[1:]) for row in table.itertuples(index=False)}


EXAMPLE = {
    "logo/a.jpg": b"a",
    "striped/renamed a.jpg": b"a",  # the same picture under another name
    "striped/deep/b.PNG": b"b",
    "not_logo/c.jpg": b"c",
    "not_logo/a.jpg": b"d",  # another picture under the same name
    "e.jpg": b"e",
    "striped/notes.txt": b"no picture",
}


def test_what_nobody_has_said_is_unknown(tmp_path: Path, run) -> None:
    images = files_of(tmp_path, EXAMPLE)
    done = run(images, tmp_path / "labels.csv")
    assert done.code == 0
    assert (tmp_path / "labels.csv").read_text().splitlines()[0] == "image,logo,striped"
    assert cells(tmp_path / "labels.csv") == {
        "e.jpg": ["NA", "NA"],
        "logo/a.jpg": ["1", "1"],
        "not_logo/a.jpg": ["0", "NA"],
        "not_logo/c.jpg": ["0", "NA"],
        "striped/deep/b.PNG": ["NA", "1"],
    }
    assert done.out.startswith(f"5 pictures -> {tmp_path / 'labels.csv'}; 1 more files are copies")
    assert "these have none: striped" in done.out
    assert [line.split() for line in done.out.splitlines()[2:4]] == [["logo", "1", "2", "2"], ["striped", "2", "0", "3"]]


def test_absent_elsewhere_makes_them_absent(tmp_path: Path, run) -> None:
    images = files_of(tmp_path, EXAMPLE)
    done = run(images, tmp_path / "labels.csv", "--absent-elsewhere")
    assert cells(tmp_path / "labels.csv") == {
        "e.jpg": ["0", "0"],
        "logo/a.jpg": ["1", "1"],
        "not_logo/a.jpg": ["0", "0"],
        "not_logo/c.jpg": ["0", "0"],
        "striped/deep/b.PNG": ["0", "1"],
    }
    assert "these have none" not in done.out


def test_validate_reads_what_was_written(tmp_path: Path, run) -> None:
    images = files_of(tmp_path, EXAMPLE | {"a, b/x y.jpg": b"x", 'say "no"/z.jpg': b"z", "1/w.jpg": b"w"})
    assert run(images, tmp_path / "labels.csv").code == 0
    read = labels.read(tmp_path / "labels.csv")
    assert read.attributes == ["1", "a, b", "logo", 'say "no"', "striped"]
    assert not read.faults
    row = read.table.set_index("image").loc["a, b/x y.jpg"]
    assert row["a, b"] == 1
    assert np.isnan(row["striped"])


def test_a_labels_file_is_not_overwritten_unasked(tmp_path: Path, run) -> None:
    images = files_of(tmp_path, EXAMPLE)
    (tmp_path / "labels.csv").write_text("mine")
    refused = run(images, tmp_path / "labels.csv")
    assert refused.code == 1
    assert "--force" in refused.err
    assert (tmp_path / "labels.csv").read_text() == "mine"
    assert run(images, tmp_path / "labels.csv", "--force").code == 0
    assert (tmp_path / "labels.csv").read_text() != "mine"


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"logo/a.jpg": b"a", "not_logo/b.jpg": b"a"}, ["'logo/a.jpg'", "'not_logo/b.jpg'"]),
        ({"#1/a.jpg": b"a"}, ["'#1'"]),
        ({"#1.jpg": b"a", "logo/b.jpg": b"b"}, ["'#1.jpg'"]),
        ({"a/1.jpg": b"a", "a_probability/2.jpg": b"b"}, ["labels.csv", "probability of 'a'"]),
        ({"two\nlines/a.jpg": b"a"}, ["two\\nlines"]),
        ({"a.jpg": b"a"}, ["no folder with pictures"]),
        ({"logo/notes.txt": b"a"}, ["no folder with pictures"]),
        ({"image/a.jpg": b"a"}, ["'image' is reserved"]),
    ],
)
def test_what_can_not_be_written_is_refused(tmp_path: Path, run, content: dict[str, bytes], named: list[str]) -> None:
    refused = run(files_of(tmp_path, content), tmp_path / "labels.csv")
    assert refused.code == 1
    assert all(name in refused.err for name in named), refused.err
    assert "Traceback" not in refused.err
    assert not (tmp_path / "labels.csv").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]  # no temporary file is left


def test_a_folder_that_is_not_there_and_an_ending_that_is_no_csv(tmp_path: Path, run) -> None:
    assert "does not exist" in run(tmp_path / "nowhere", tmp_path / "labels.csv").err
    assert ".csv" in run(tmp_path, tmp_path / "labels.txt").err


def test_links_are_followed_to_the_picture(tmp_path: Path, run) -> None:
    images = files_of(tmp_path, {"logo/a.jpg": b"a"})
    (images / "not_striped").mkdir()
    (images / "not_striped" / "a.jpg").symlink_to(images / "logo" / "a.jpg")
    shutil.copy(images / "logo" / "a.jpg", images / "a.jpg")
    run(images, tmp_path / "labels.csv")
    assert cells(tmp_path / "labels.csv") == {"a.jpg": ["1", "0"]}
    (images / "logo" / "gone.jpg").symlink_to(tmp_path / "gone")
    assert "can't be read" in run(images, tmp_path / "labels.csv", "--force").err
