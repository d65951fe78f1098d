"""Read labels.txt or a CSV into one row per image name, with every fault named; counts and pos_weight.

Inside the project a label is 1.0 (present), 0.0 (absent) or NaN (unknown), in arrays of shape
(n_images, n_attributes); in files it is 1, 0 or NA.
"""

from __future__ import annotations

import codecs
import csv
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib.errors import UserError
from stages.lib.faults import Fault, shown, unfit
from stages.lib.files import MISSING

TOKENS = {"1": 1.0, "0": 0.0, MISSING: np.nan}
# What spreadsheets and pandas make of 1, 0 and NA when they save a CSV; equal in value, so nothing is guessed.
CSV_TOKENS = TOKENS | {"1.0": 1.0, "0.0": 0.0, "": np.nan, "NaN": np.nan, "nan": np.nan}
NAME_COLUMNS = ("image", "images", "file", "filename", "name", "path")  # what people call the first column
RESERVED = ("image", "group", "part", "line")  # columns of this project's own tables


@dataclass(frozen=True)
class Labels:
    """`table` has the columns line, image and one per attribute; one row per distinct image name."""

    attributes: list[str]
    table: pd.DataFrame
    faults: list[Fault]
    n_rows: int  # data rows in the file, the faulty and the repeated ones included
    damaged: set[str]  # images that lost a label to a bad token or a contradiction


def read(path: Path) -> Labels:
    """Read a labels file: white-space separated, or comma separated where the name ends in .csv.

    The first row is a header if its first cell is a usual name for a column of images, or if no cell after
    the first is a label and the first does not look like a file; without one the attributes are attr_1..n.
    Blank lines and lines that start with # are passed over.
    A cell that is not 1, 0 or NA becomes NA; a row with the wrong number of columns is set aside; rows
    that repeat an image are merged: known beats NA, and where they contradict each other the cell is NA.

    Raises UserError for a file that can't be read as a table at all.
    """
    faults: list[Fault] = []
    is_csv = path.suffix.lower() == ".csv"
    rows = list(_csv_rows(path, faults) if is_csv else _plain_rows(path, faults))
    tokens = CSV_TOKENS if is_csv else TOKENS
    if not rows:
        raise UserError(f"{path} holds no rows; expected lines such as 'photo.jpg 1 0 NA'")
    header = rows.pop(0) if _is_header(rows[0][1], tokens) else None
    attributes = _attributes(path, header, rows)
    width = len(attributes) + 1
    lines, names, cells = [], [], []
    for line, row in rows:
        if len(row) != width:
            faults.append(_wrong_columns(path, line, row, width, is_csv))
            continue
        lines.append(line)
        names.append(row[0])
        cells.append([_cell(path, line, a, token, tokens, faults) for a, token in zip(attributes, row[1:], strict=True)])
    values = np.array(cells, dtype=float).reshape(len(cells), len(attributes))
    bad_lines = {fault.line for fault in faults if fault.kind == "bad_token"}
    table, contradicted = _merged(path, lines, names, values, attributes, faults)
    damaged = contradicted | set(table["image"][table["line"].isin(bad_lines)])
    return Labels(attributes, table, faults, len(rows), damaged)


def _decoded(path: Path, faults: list[Fault]) -> str:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"labels file {path} does not exist; set data.labels in params.yaml") from None
    except IsADirectoryError:
        raise UserError(f"labels file {path} is a folder; set data.labels in params.yaml to a file") from None
    except OSError as error:
        raise UserError(f"labels file {path} can't be read: {error.strerror}") from None
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise UserError(f"{path} is UTF-16 text; save it as UTF-8")
    if raw.startswith(codecs.BOM_UTF8):
        faults.append(Fault("byte_order_mark", str(path), 1, "", "", "byte order mark at the start: passed over"))
        raw = raw[len(codecs.BOM_UTF8) :]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{raw[error.start]:02x}"
        raise UserError(f"{path}, line {line}: {found} is not UTF-8 text; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: a NUL byte; the file is not plain text, or was damaged")
    return text


def _lines(path: Path, faults: list[Fault]) -> Iterator[tuple[int, str]]:
    # Only \n and \r end a line: str.splitlines would also cut at characters such as U+2028.
    text = _decoded(path, faults).replace("\r\n", "\n").replace("\r", "\n")
    return enumerate(text.split("\n"), start=1)


def _plain_rows(path: Path, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    for line, content in _lines(path, faults):
        row = content.split()
        if row and not row[0].startswith("#"):
            yield line, row


def _csv_rows(path: Path, faults: list[Fault]) -> Iterator[tuple[int, list[str]]]:
    # Line by line: a quote that is never closed must cost its own row, and not swallow those that follow.
    for line, content in _lines(path, faults):
        try:
            row = [cell.strip() for cell in next(csv.reader([content], strict=True), [])]
        except csv.Error:
            row = [content]  # reported as a row with the wrong number of columns
        if any(row) and not row[0].startswith("#"):
            yield line, row


def _is_header(row: list[str], tokens: dict[str, float]) -> bool:
    if row[0].lower() in NAME_COLUMNS:
        return True  # also where the attributes are called 0, 1, 2
    looks_like_file = re.search(r"\.[A-Za-z]{3,4}$", row[0]) is not None
    return not looks_like_file and not any(cell in tokens for cell in row[1:] if cell)


def _attributes(path: Path, header: tuple[int, list[str]] | None, rows: list[tuple[int, list[str]]]) -> list[str]:
    if not rows:
        raise UserError(f"{path} holds a header and no rows; expected lines such as 'photo.jpg 1 0 NA'")
    if header is None:
        # The most common width, not the first row's: that row may be the faulty one.
        width = Counter(len(row) for _, row in rows).most_common(1)[0][0]
        names = [f"attr_{i}" for i in range(1, width)]
    else:
        names = header[1][1:]
    if not names:
        raise UserError(f"{path} names images but no attribute; expected lines such as 'photo.jpg 1 0 NA'")
    times = Counter(names)
    for position, name in enumerate(names, start=2):
        of_other = name.removesuffix("_probability")
        why = (
            "is empty"
            if not name
            else "is reserved"
            if name in RESERVED
            else "stands there twice"
            if times[name] > 1
            else f"is what predictions call the probability of '{shown(of_other)}'"
            if of_other != name and of_other in times
            else unfit(name)
        )
        if why:
            where = f"line {header[0] if header else 1}, column {position}"
            raise UserError(f"{path}, {where}: attribute name '{shown(name)}' {why}; rename it")
    return names


def _wrong_columns(path: Path, line: int, row: list[str], width: int, is_csv: bool) -> Fault:
    found = shown((", " if is_csv else " ").join(row))
    hint = "" if is_csv else "; a name with spaces needs a .csv file"
    message = f"{len(row)} columns where {width} are expected: row set aside{hint}"
    return Fault("wrong_columns", str(path), line, "", found, message)


def _cell(path: Path, line: int, column: str, token: str, tokens: dict[str, float], faults: list[Fault]) -> float:
    if token not in tokens:
        message = f"'{shown(token)}' is not 1, 0 or NA: taken as NA"
        faults.append(Fault("bad_token", str(path), line, column, shown(token), message))
    return tokens.get(token, np.nan)


def _merged(
    path: Path, lines: list[int], names: list[str], values: np.ndarray, attributes: list[str], faults: list[Fault]
) -> tuple[pd.DataFrame, set[str]]:
    """One row per image name, at the place of its first row, and the images whose rows contradict each other."""
    first: dict[str, int] = {}
    contradicted = np.zeros(values.shape, dtype=bool)
    # './a.jpg' and 'a.jpg' are one picture. Names that leave the folder stay as they are, to be reported so.
    names = [name if os.path.normpath(name).startswith(os.pardir) else os.path.normpath(name) for name in names]
    for row, (line, name) in enumerate(zip(lines, names, strict=True)):
        if name not in first:
            first[name] = row
            continue
        kept = first[name]
        where = f"image '{shown(name)}' stands in line {lines[kept]} and again in line {line}"
        differ = (values[kept] != values[row]) & ~np.isnan(values[kept]) & ~np.isnan(values[row])
        for column in np.flatnonzero(differ):
            found = f"{values[kept, column]:.0f} and {values[row, column]:.0f}"
            message = f"{where} with the other label: taken as NA"
            faults.append(Fault("conflicting_labels", str(path), line, attributes[column], found, message))
        if not differ.any():
            faults.append(Fault("repeated_row", str(path), line, "", shown(name), f"{where}: merged into one row"))
        values[kept] = np.where(np.isnan(values[kept]), values[row], values[kept])
        contradicted[kept] |= differ  # a third row must not decide between the two
    values[contradicted] = np.nan
    rows = list(first.values())
    table = pd.DataFrame({"line": np.array(lines, dtype=int)[rows], "image": list(first)})
    table = table.join(pd.DataFrame(values[rows], columns=attributes, index=table.index))
    return table, {name for name, row in first.items() if contradicted[row].any()}


def attributes_of(table: pd.DataFrame) -> list[str]:
    """The attribute columns of a clean table."""
    return [column for column in table.columns if column not in RESERVED]


def positives(targets: np.ndarray) -> np.ndarray:
    """Known positives per attribute, shape (n_attributes,)."""
    return (targets == 1).sum(axis=0)


def negatives(targets: np.ndarray) -> np.ndarray:
    """Known negatives per attribute, shape (n_attributes,)."""
    return (targets == 0).sum(axis=0)


def pos_weight(targets: np.ndarray, rule: str, low: float, high: float) -> np.ndarray:
    """Weight of a positive per attribute, shape (n_attributes,), from known labels alone.

    `balanced` is negatives / positives, `sqrt` its square root, `none` is 1; clipped to [low, high].
    An attribute without a known positive or without a known negative has nothing to balance: weight 1.
    """
    n_positive, n_negative = positives(targets), negatives(targets)
    defined = (n_positive > 0) & (n_negative > 0)
    ratio = np.where(defined, n_negative / np.maximum(n_positive, 1), 1.0)
    power = {"balanced": 1.0, "sqrt": 0.5, "none": 0.0}[rule]
    return np.where(defined, np.clip(ratio**power, low, high), 1.0)
