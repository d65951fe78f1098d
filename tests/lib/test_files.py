import hashlib
import json
import stat

import numpy as np
import pandas as pd
import pytest

from stages.lib import files
from stages.lib.errors import UserError

NAMES = ["NA", "001", "nan", "", "null", "1e5", "a, b.jpg", 'quo"te.png', "é.jpg", "True"]


def test_replacing_writes_under_the_final_name_only_at_the_end(tmp_path):
    path = tmp_path / "sub" / "x.png"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent  # the same file system, or the rename is none
        assert temporary.suffix == ".png"
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "x.txt"
    path.write_text("old")

    def fail() -> None:
        with files.replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_replacing_keeps_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("x")
    with files.replacing(tmp_path / "x") as temporary:
        temporary.write_text("x")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "x")]
    assert modes[0] == modes[1]


def test_json_round_trip_is_rounded(tmp_path):
    content = {"b": [0.12345678, (1.0, 2)], "a": {"é": 1 / 3, 3: True}, "none": None}
    files.write_json(tmp_path / "x.json", content)
    expected = {"b": [0.123457, [1.0, 2]], "a": {"é": 0.333333, "3": True}, "none": None}
    assert files.read_json(tmp_path / "x.json", "stats") == expected
    assert list(json.loads((tmp_path / "x.json").read_text())) == ["b", "a", "none"]
    assert (tmp_path / "x.json").read_text().endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("nan")])
def test_json_refuses_what_is_no_number(tmp_path, value):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"a": [{"b": value}]})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_names_survive_a_table_and_na_is_missing_elsewhere(tmp_path):
    count = len(NAMES)
    labels = pd.array([1, 0, pd.NA] * 3 + [1], dtype="Int8")
    texts = [None] + ["text"] * (count - 1)
    table = pd.DataFrame({"image": NAMES, "attr_1": labels, "share": [np.nan] + [0.1] * (count - 1), "text": texts})
    files.write_table(tmp_path / "t.csv", table)
    found = files.read_table(tmp_path / "t.csv", "validate")
    assert list(found["image"]) == NAMES
    np.testing.assert_array_equal(found["attr_1"].to_numpy(float), [1, 0, np.nan] * 3 + [1])
    np.testing.assert_array_equal(found["share"].to_numpy(float), [np.nan] + [0.1] * (count - 1))
    assert found["text"].isna().tolist() == [True] + [False] * (count - 1)
    lines = (tmp_path / "t.csv").read_bytes().split(b"\n")
    assert lines[0] == b"image,attr_1,share,text"
    assert lines[1] == b"NA,1,NA,NA"


def test_only_na_is_missing(tmp_path):
    (tmp_path / "t.csv").write_text("image,value\na,NA\nb,null\nc,None\n")
    found = files.read_table(tmp_path / "t.csv", "validate")
    assert found["value"].isna().tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["a\nb.jpg", "a\rb.jpg", "a\tb.jpg"])
def test_control_characters_in_a_name_survive(tmp_path, name):
    files.write_table(tmp_path / "t.csv", pd.DataFrame({"image": ["x.jpg", name], "x": [1, 2]}))
    assert list(files.read_table(tmp_path / "t.csv", "validate")["image"]) == ["x.jpg", name]


@pytest.mark.parametrize("read", [files.read_json, files.read_table])
def test_missing_file_names_the_stage(tmp_path, read):
    with pytest.raises(UserError, match=r"x is missing; the stats stage writes it: run 'dvc repro stats'"):
        read(tmp_path / "x", "stats")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1, 2]"])
def test_damaged_json(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="dvc repro --force stats"):
        files.read_json(tmp_path / "x", "stats")


@pytest.mark.parametrize("content", [b"", b"image,x\na,1\nb,2,3,4\n", b"image,x\n\xff,1\n", b"\xff\xfe,x\n1,2\n"])
def test_damaged_table(tmp_path, content):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UserError, match="dvc repro --force stats"):
        files.read_table(tmp_path / "x", "stats")


def test_fingerprint(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert files.fingerprint(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
