"""predict: the table in its formats, failures in it, what is refused before the first image is read."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pandas as pd
import pytest

from stages.lib import files, images, tables
from tests.project import ROOT, Project, one_message


@pytest.fixture
def mixed(done: Project, tmp_path: Path) -> Path:
    """Three good pictures, and two files that are none, between them."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a", "c", "e"):
        shutil.copy(done / "images" / "1.png", folder / f"{name}.png")
    (folder / "b.png").write_text("<html></html>")
    (folder / "d.png").write_bytes(b"")
    return folder


def test_the_table_holds_failures_at_their_place(done: Project, mixed: Path, tmp_path: Path) -> None:
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.csv")
    table = files.read_table(tmp_path / "out.csv", "predict")
    assert list(table["image"]) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    assert list(table["red_probability"].isna()) == [False, True, False, True, False]
    assert list(table["framed"].isna()) == [False, True, False, True, False]
    assert [bool(reason) for reason in table["reason"]] == [False, True, False, True, False]
    assert set(table["model"]) == {files.fingerprint(done / "model.pth")[:16]}


def test_json_lines_hold_what_the_csv_holds(done: Project, mixed: Path, tmp_path: Path) -> None:
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.csv")
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    table = files.read_table(tmp_path / "out.csv", "predict")
    assert list(rows[0]) == list(table.columns)
    assert rows[1]["red_probability"] is None
    assert rows[0]["reason"] is None
    for row, expected in zip(rows, table.to_dict("records"), strict=True):
        for name, value in row.items():
            assert (value is None and (pd.isna(expected[name]) or expected[name] == "")) or value == expected[name]


def test_parquet_holds_what_the_csv_holds(done: Project, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.setattr(tables, "ROW_GROUP", 2)
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.csv")
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.parquet")
    found = pd.read_parquet(tmp_path / "out.parquet")
    expected = files.read_table(tmp_path / "out.csv", "predict")
    found["reason"] = found["reason"].fillna("")
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)


def test_parquet_without_pyarrow_is_refused_with_the_way_out(done: Project, mixed: Path, tmp_path: Path) -> None:
    with mock.patch.dict("sys.modules", {"pyarrow": None}):
        message = one_message(done.run("predict", "--images", mixed, "--out", tmp_path / "out.parquet", expect=1))
    assert "pip install pyarrow" in message


def test_strict_makes_a_failure_an_exit_code_and_still_writes_the_table(done: Project, mixed: Path, tmp_path: Path) -> None:
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.csv", "--strict", expect=3)
    assert len(files.read_table(tmp_path / "out.csv", "predict")) == 5
    for name in ("b.png", "d.png"):
        (mixed / name).unlink()
    done.run("predict", "--images", mixed, "--out", tmp_path / "out.csv", "--strict", expect=0)


def test_the_summary_for_people_and_for_programs(done: Project, mixed: Path, tmp_path: Path) -> None:
    where = ("--images", mixed, "--out", tmp_path / "out.csv", "--threshold", "0")
    told = done.run("predict", *where).out
    assert "5 files, 3 tagged, 2 could not be read" in told
    assert "b.png: not an image" in told
    assert json.loads(done.run("predict", *where, "--json").out) == {
        "out": str(tmp_path / "out.csv"),
        "model": files.fingerprint(done / "model.pth")[:16],
        "images": 5,
        "tagged": 3,
        "unreadable": 2,
        "present": {"red": 3, "framed": 3},
    }


def test_nothing_but_the_table_is_left(done: Project, mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / ".out.12345.csv").write_text("of a process that was killed")
    done.run("predict", "--images", mixed, "--out", tmp_path / "results" / "out.csv")
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["out.csv"]


@pytest.mark.parametrize(
    ("out", "message"),
    [("out.txt", "must be one of .csv, .jsonl, .parquet"), ("folder.csv", "is a folder"), ("file/out.csv", "can't be written")],
)
def test_an_output_that_can_not_be_written_is_refused_before_anything_is_read(
    done: Project, mixed: Path, tmp_path: Path, out: str, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    with mock.patch.object(images, "open_square", side_effect=AssertionError("read")):
        assert message in one_message(done.run("predict", "--images", mixed, "--out", tmp_path / out, expect=1))


def test_one_file_can_not_be_both_outputs(done: Project, mixed: Path, tmp_path: Path) -> None:
    where = ("--out", tmp_path / "a.csv", "--unreadable", tmp_path / "b" / ".." / "a.csv")
    assert "must be two files" in one_message(done.run("predict", "--images", mixed, *where, expect=1))


def test_attributes_may_be_called_like_other_columns() -> None:
    named = tables.columns(["image", "model", "reason", "a", "a_probability"])
    assert len(set(named)) == len(named) == 13
    assert named[0] == "image"
    assert tables.columns(["red"]) == ["image", "red_probability", "red", "model", "reason"]


def test_a_reader_that_goes_away_costs_nothing(done: Project, tmp_path: Path) -> None:
    where = ("--images", done / "images", "--out", tmp_path / "out.csv", "--model", done / "model.pth")
    more = ("--decision", done / "decision.json", "--params", done / "params.yaml")
    command = [sys.executable, "-m", "stages.predict", *map(str, (*where, *more))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]
