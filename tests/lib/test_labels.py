import re
from pathlib import Path

import numpy as np
import pytest

from stages.lib import labels
from stages.lib.errors import UserError

NAN = float("nan")


def read(tmp_path: Path, content: str | bytes, name: str = "labels.txt") -> labels.Labels:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return labels.read(path)


def values(found: labels.Labels) -> list[list[float]]:
    return found.table[found.attributes].to_numpy(float).tolist()


def refusal(tmp_path: Path, content: str | bytes, name: str = "labels.txt") -> str:
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, name)
    return str(caught.value)


def test_without_header(tmp_path):
    found = read(tmp_path, "a.jpg 1 NA\nb.jpg 0 1\n")
    assert found.attributes == ["attr_1", "attr_2"]
    np.testing.assert_array_equal(values(found), [[1, NAN], [0, 1]])
    assert list(found.table["line"]) == [1, 2]


def test_with_header(tmp_path):
    found = read(tmp_path, "image striped logo\na.jpg 1 NA\n")
    assert found.attributes == ["striped", "logo"]
    assert list(found.table["line"]) == [2]
    assert found.n_rows == 1


def test_first_row_with_bad_tokens_is_no_header(tmp_path):
    found = read(tmp_path, "a.jpg yes no\nb.jpg 1 0\n")
    assert found.attributes == ["attr_1", "attr_2"]
    assert [fault.kind for fault in found.faults] == ["bad_token", "bad_token"]


def test_csv_with_spaces_quotes_and_empty_cells(tmp_path):
    found = read(tmp_path, 'image,striped,logo\n"my photo, 1.jpg",1.0,\nb.jpg,nan,0\n', "labels.csv")
    assert list(found.table["image"]) == ["my photo, 1.jpg", "b.jpg"]
    np.testing.assert_array_equal(values(found), [[1, NAN], [NAN, 0]])
    assert not found.faults


def test_one_and_many_attributes(tmp_path):
    assert read(tmp_path, "a.jpg 1\nb.jpg 0\n").attributes == ["attr_1"]
    many = read(tmp_path, "a.jpg " + "1 " * 3000 + "\nb.jpg " + "0 " * 3000)
    assert len(many.attributes) == 3000
    assert not many.faults


def test_bad_token_becomes_unknown_and_is_reported(tmp_path):
    found = read(tmp_path, "image a b\nx.jpg 1 0mobilenet\ny.jpg 0 1\n")
    np.testing.assert_array_equal(values(found), [[1, NAN], [0, 1]])
    (fault,) = found.faults
    assert (fault.kind, fault.line, fault.column, fault.value) == ("bad_token", 2, "b", "0mobilenet")
    assert "'0mobilenet' is not 1, 0 or NA: taken as NA" in fault.message


@pytest.mark.parametrize("token", ["na", "1.0", "-1", "2", "nan", "?", "01"])
def test_nothing_is_guessed_in_plain_text(tmp_path, token):
    found = read(tmp_path, f"x.jpg 1 {token}\ny.jpg 0 1\n")
    assert [fault.value for fault in found.faults] == [token]
    assert np.isnan(values(found)[0][1])


def test_wrong_number_of_columns_sets_the_row_aside(tmp_path):
    found = read(tmp_path, "a.jpg 1\nb.jpg 1 0\nc.jpg 0 1\nmy photo.jpg 1 0\n")
    assert list(found.table["image"]) == ["b.jpg", "c.jpg"]
    assert [(fault.kind, fault.line) for fault in found.faults] == [("wrong_columns", 1), ("wrong_columns", 4)]
    assert "2 columns where 3 are expected" in found.faults[0].message
    assert "a name with spaces needs a .csv file" in found.faults[1].message
    assert found.n_rows == 4


def test_equal_rows_merge(tmp_path):
    found = read(tmp_path, "a.jpg 1 0\nb.jpg 0 0\na.jpg 1 0\n")
    assert list(found.table["image"]) == ["a.jpg", "b.jpg"]
    (fault,) = found.faults
    assert (fault.kind, fault.line) == ("repeated_row", 3)
    assert "image 'a.jpg' stands in line 1 and again in line 3" in fault.message


def test_known_beats_unknown_in_repeated_rows(tmp_path):
    found = read(tmp_path, "a.jpg 1 NA\na.jpg NA 0\n")
    assert values(found) == [[1, 0]]
    assert [fault.kind for fault in found.faults] == ["repeated_row"]


def test_conflict_makes_the_cell_unknown_even_if_a_third_row_takes_sides(tmp_path):
    found = read(tmp_path, "a.jpg 1 0\na.jpg 0 0\na.jpg 1 0\n")
    np.testing.assert_array_equal(values(found), [[NAN, 0]])
    conflicts = [fault for fault in found.faults if fault.kind == "conflicting_labels"]
    assert (conflicts[0].line, conflicts[0].column, conflicts[0].value) == (2, "attr_1", "1 and 0")


def test_bom_crlf_tabs_blank_lines_and_comments(tmp_path):
    found = read(tmp_path, b"\xef\xbb\xbfimage\ta\tb\r\n\r\n# note\r\n  x.jpg \t 1  NA \r\n   \r\ny.jpg\t0\t1")
    assert found.attributes == ["a", "b"]
    assert list(found.table["line"]) == [4, 6]
    assert [fault.kind for fault in found.faults] == ["byte_order_mark"]


def test_odd_line_separators_do_not_cut_names(tmp_path):
    found = read(tmp_path, "a\u2028b.jpg,1\nc.jpg,0\n", "labels.csv")
    assert list(found.table["image"]) == ["a\u2028b.jpg", "c.jpg"]


def test_long_values_are_clipped_and_escapes_made_harmless(tmp_path):
    found = read(tmp_path, f"a.jpg 1 {'x' * 100_000}\nb.jpg 1 \x1b[31m\n")
    assert all(len(fault.message) < 200 for fault in found.faults)
    assert "\x1b" not in found.faults[1].message + found.faults[1].value


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("", "holds no rows"),
        ("\n# only a comment\n", "holds no rows"),
        ("image a b\n", "a header and no rows"),
        ("a.jpg\nb.jpg\n", "no attribute"),
        (b"a.jpg 1\nb.jpg \xe9 1\n", "line 2: byte 0xe9 is not UTF-8"),
        ("a.jpg 1\n".encode("utf-16"), "UTF-16"),
        (b"a.jpg 1\nb.jpg 1\0\n", "line 2: a NUL byte"),
        ("image a a\nx.jpg 1 0\n", "'a' stands there twice"),
        ("image group\nx.jpg 1\n", "'group' is reserved"),
    ],
)
def test_files_that_are_no_table(tmp_path, content, part):
    assert part in refusal(tmp_path, content)


def test_empty_attribute_name_in_csv(tmp_path):
    assert "column 3: attribute name '' is empty" in refusal(tmp_path, "image,a,\nx.jpg,1,0\n", "l.csv")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(UserError, match=r"does not exist; set data\.labels"):
        labels.read(tmp_path / "none.txt")
    with pytest.raises(UserError, match="is a folder"):
        labels.read(tmp_path)


def test_line_too_long_for_a_csv_costs_its_own_row(tmp_path):
    found = read(tmp_path, f"image,a\n{'x' * 200_000},1\nb.jpg,0\n", "l.csv")
    assert list(found.table["image"]) == ["b.jpg"]
    assert [(fault.kind, fault.line) for fault in found.faults] == [("wrong_columns", 2)]
    assert len(found.faults[0].value) < 100


def test_header_is_named_by_its_own_line(tmp_path):
    assert "line 4, column 3: attribute name 'a'" in refusal(tmp_path, "# by me\n\n\nimage b a a\nx.jpg 1 0 1\n")


@pytest.mark.parametrize("spoilt", [(50,), (50, 60)], ids=["one", "two"])
def test_unclosed_quotation_mark_swallows_no_rows(tmp_path, spoilt):
    """Either the file is refused by line, or all hundred rows are accounted for; none may vanish."""
    lines = ["image,a,b"] + [f"{line}.jpg,{line % 2},{line % 3 % 2}" for line in range(2, 102)]
    for line in spoilt:
        lines[line - 1] = '"' + lines[line - 1]
    try:
        found = read(tmp_path, "\n".join(lines) + "\n", "l.csv")
        rows, named = found.n_rows, [fault.line for fault in found.faults]
    except UserError as error:
        rows, named = 100, [int(number) for number in re.findall(r"line (\d+)", str(error))]
    assert rows == 100
    assert named[0] == 50


@pytest.mark.parametrize("other", ["./a.jpg", "sub/../a.jpg", ".//a.jpg"])
def test_one_image_under_two_spellings_is_the_same_image(tmp_path, other):
    found = read(tmp_path, f"a.jpg 1 0\n{other} 0 0\n")
    assert len(found.table) == 1
    assert [fault.kind for fault in found.faults] == ["conflicting_labels"]


def slow_pos_weight(column: list[float], power: float, low: float, high: float) -> float:
    positive = sum(1 for value in column if value == 1)
    negative = sum(1 for value in column if value == 0)
    if not positive or not negative:
        return 1.0
    return min(max((negative / positive) ** power, low), high)


@pytest.mark.parametrize(("rule", "power"), [("balanced", 1), ("sqrt", 0.5), ("none", 0)])
def test_pos_weight_against_a_loop(rule, power):
    rng = np.random.default_rng(0)
    targets = rng.choice([0.0, 1.0, NAN], size=(60, 7), p=[0.6, 0.2, 0.2])
    targets[:, 3], targets[:, 4], targets[:, 5] = NAN, 1, 0
    targets[:, 6] = np.where(np.arange(60) == 0, 1, 0)  # 59 to 1: clipped
    expected = [slow_pos_weight(column.tolist(), power, 0.5, 20) for column in targets.T]
    np.testing.assert_allclose(labels.pos_weight(targets, rule, 0.5, 20), expected)


def test_header_with_numbered_attributes(tmp_path):
    found = read(tmp_path, "image,0,1,2\na.jpg,1,0,1\n", "labels.csv")
    assert found.attributes == ["0", "1", "2"]
    assert values(found) == [[1, 0, 1]]
