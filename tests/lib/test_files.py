import hashlib
import json
import pickle
import stat
import struct

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


def test_a_table_is_parsed_from_text_as_from_a_file(tmp_path):
    """How a table of another revision is read, which git hands over as text."""
    table = pd.DataFrame({"image": NAMES, "copy": NAMES, "x": [np.nan] + [0.5] * (len(NAMES) - 1)})
    files.write_table(tmp_path / "t.csv", table)
    text = (tmp_path / "t.csv").read_bytes().decode()
    pd.testing.assert_frame_equal(files.parse_table(text, "t.csv", "stats"), files.read_table(tmp_path / "t.csv", "stats"))
    found = files.parse_table(text, "t.csv", "stats")
    assert list(found["image"]) == list(found["copy"]) == NAMES
    np.testing.assert_array_equal(found["x"].to_numpy(float), table["x"])


def test_a_table_of_no_rows_is_parsed():
    found = files.parse_table("image,x\n", "t.csv", "stats")
    assert list(found) == ["image", "x"]
    assert found.empty


@pytest.mark.parametrize("text", ["", "\n", "image,x\na,1\nb,2,3,4\n", 'image,x\n"a,1\n'])
def test_text_that_is_no_table_is_named(text):
    with pytest.raises(UserError, match=r"(?s)t\.csv of HEAD~1 is not a table \(.*\); run 'dvc repro --force stats'"):
        files.parse_table(text, "t.csv of HEAD~1", "stats")


# Arrays.

ARRAYS = {
    "features": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "log_odds": np.array([[0.1, np.nan], [np.inf, -1e-300]]),
    "split": np.frombuffer(b"a digest", dtype=np.uint8),
    "empty": np.empty((0, 3), np.uint8),
    "one": np.array([True]),
}


def test_arrays_survive_a_file(tmp_path):
    files.write_arrays(tmp_path / "sub" / "x.st", **ARRAYS)
    for names in (list(ARRAYS), list(reversed(ARRAYS)), ["split"], []):
        found = files.read_arrays(tmp_path / "sub" / "x.st", "train", *names)
        assert len(found) == len(names)
        for name, array in zip(names, found, strict=True):
            np.testing.assert_array_equal(array, ARRAYS[name])
            assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["x.st"]


def test_equal_arrays_are_equal_bytes(tmp_path):
    """In any order of the arguments, and not only in this process: the file holds names, shapes and numbers alone."""
    files.write_arrays(tmp_path / "one.st", **ARRAYS)
    files.write_arrays(tmp_path / "two.st", **dict(reversed(ARRAYS.items())))
    assert (tmp_path / "one.st").read_bytes() == (tmp_path / "two.st").read_bytes()
    (length,) = struct.unpack("<Q", (tmp_path / "one.st").read_bytes()[:8])
    header = json.loads((tmp_path / "one.st").read_bytes()[8 : 8 + length])
    assert {name: set(entry) for name, entry in header.items()} == {key: {"dtype", "shape", "data_offsets"} for key in ARRAYS}
    files.write_arrays(tmp_path / "two.st", **ARRAYS | {"one": np.array([False])})
    assert (tmp_path / "one.st").read_bytes() != (tmp_path / "two.st").read_bytes()


def test_an_array_that_is_a_view_is_written_as_it_is_seen(tmp_path):
    turned = np.arange(12.0).reshape(3, 4).T[::2]
    files.write_arrays(tmp_path / "x.st", x=turned)
    np.testing.assert_array_equal(files.read_arrays(tmp_path / "x.st", "train", "x")[0], turned)


def test_objects_are_not_written_and_the_old_file_stays(tmp_path):
    files.write_arrays(tmp_path / "x.st", one=np.ones(2))
    before = (tmp_path / "x.st").read_bytes()
    with pytest.raises(Exception, match="object"):
        files.write_arrays(tmp_path / "x.st", one=np.array([{"a": 1}, None], dtype=object))
    assert (tmp_path / "x.st").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["x.st"]


class Dangerous:
    """Unpickling it fails the test."""

    def __reduce__(self):
        return pytest.fail, ("something in the file was executed",)


def test_nothing_in_a_file_is_executed(tmp_path):
    (tmp_path / "x.st").write_bytes(pickle.dumps(Dangerous()))
    with pytest.raises(UserError, match=r"x\.st is damaged"):
        files.read_arrays(tmp_path / "x.st", "train", "one")


def test_missing_arrays_name_the_stage(tmp_path):
    with pytest.raises(UserError, match=r"x\.st is missing; the train stage writes it: run 'dvc repro train'"):
        files.read_arrays(tmp_path / "x.st", "train", "features")


def test_an_array_that_is_not_there_is_named(tmp_path):
    files.write_arrays(tmp_path / "x.st", features=np.ones(2))
    with pytest.raises(UserError, match=r"x\.st is damaged \(.*log_odds.*\); run 'dvc repro --force train'"):
        files.read_arrays(tmp_path / "x.st", "train", "features", "log_odds")


def bytes_of(tmp_path, **arrays) -> bytes:
    files.write_arrays(tmp_path / "whole.st", **arrays)
    return (tmp_path / "whole.st").read_bytes()


def refused_or_right(path, content: bytes) -> bool:
    """Whether a damaged file is refused with a UserError, or read as if nothing had happened to it."""
    path.write_bytes(content)
    try:
        (found,) = files.read_arrays(path, "train", "x")
    except UserError as error:
        return "run 'dvc repro --force train'" in str(error)
    return np.array_equal(found, np.arange(6))


@pytest.mark.parametrize("content", [b"", b"PK", b"{}", b"\x80\x04N.", b"\x93NUMPY"])
def test_what_are_no_arrays(tmp_path, content):
    (tmp_path / "x.st").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.st is damaged \(.+\); run 'dvc repro --force train'"):
        files.read_arrays(tmp_path / "x.st", "train", "x")


def test_a_single_array_and_a_folder_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones(2))
    for path in (tmp_path / "x.npy", tmp_path):
        with pytest.raises(UserError, match="is damaged"):
            files.read_arrays(path, "train", "x")


def test_arrays_cut_short_at_any_place_are_refused(tmp_path):
    whole = bytes_of(tmp_path, x=np.arange(6))
    for length in range(len(whole)):
        assert refused_or_right(tmp_path / "x.st", whole[:length]), length


def test_fingerprint(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert files.fingerprint(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()
