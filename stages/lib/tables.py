"""The table of predictions, row by row into CSV, JSON lines or Parquet: one row per image, in the order of the input.

    image, per attribute <name>_probability and <name> (1 present, 0 absent), model, reason

An image that could not be read has no probabilities and a reason; `model` is the start of the model file's SHA-256.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from stages.lib import files
from stages.lib.errors import UserError

ENDINGS = (".csv", ".jsonl", ".parquet")
ROW_GROUP = 20_000  # rows of a Parquet file that are in memory together


class Row(NamedTuple):
    """The answer for one image: probabilities and decisions per attribute, or a reason and two empty lists."""

    image: str
    probabilities: list[float]
    decisions: list[int]
    reason: str


def columns(attributes: Sequence[str]) -> list[str]:
    """Names of all columns, each once: an attribute may be called like another column, which then gets a `_`."""
    found = ["image"]
    for name in [*(form for attribute in attributes for form in (f"{attribute}_probability", attribute)), "model", "reason"]:
        while name in found:
            name += "_"
        found.append(name)
    return found


def check_ending(path: Path) -> None:
    """Raise UserError where the table can't be written under such a name, before any work is done."""
    if path.suffix.lower() not in ENDINGS:
        raise UserError(f"--out {path}: its ending must be one of {', '.join(ENDINGS)}")
    if path.suffix.lower() == ".parquet":
        _pyarrow()


def write(path: Path, attributes: Sequence[str], model: str, rows: Iterable[Row]) -> None:
    """Write the table in the format of the ending of `path`; few rows are in memory at a time."""
    writers: dict[str, Callable[..., None]] = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    named = columns(attributes)
    with files.replacing(path) as temporary:
        writers[path.suffix.lower()](temporary, named, (_cells(row, model, len(attributes)) for row in rows))


def _cells(row: Row, model: str, n_attributes: int) -> list[Any]:
    if row.reason:
        return [row.image, *[None] * (2 * n_attributes), model, row.reason]
    pairs = zip(row.probabilities, row.decisions, strict=True)
    return [row.image, *(cell for pair in pairs for cell in pair), model, None]


def _csv(path: Path, named: list[str], rows: Iterator[list[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        writer.writerow(named)
        for cells in rows:
            # No reason is no text; a number that is not there is written as in every table of this project.
            name, *others = cells[:-1]
            cells_as_text = (files.MISSING if cell is None else cell for cell in others)
            writer.writerow([files.harmless(name, "image"), *cells_as_text, cells[-1] or ""])


def _jsonl(path: Path, named: list[str], rows: Iterator[list[Any]]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as opened:
        for cells in rows:
            opened.write(json.dumps(dict(zip(named, cells, strict=True)), ensure_ascii=False) + "\n")


def _parquet(path: Path, named: list[str], rows: Iterator[list[Any]]) -> None:
    pyarrow, parquet = _pyarrow()
    inner = [pyarrow.float64(), pyarrow.int8()] * ((len(named) - 3) // 2)
    kinds = [pyarrow.string(), *inner, pyarrow.string(), pyarrow.string()]
    schema = pyarrow.schema(list(zip(named, kinds, strict=True)))
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            arrays = [pyarrow.array(column, kind) for column, kind in zip(zip(*group, strict=True), kinds, strict=True)]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))


def _pyarrow() -> tuple[Any, Any]:
    """Imported on demand: it takes half a second, and only Parquet needs it."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("a .parquet table needs the package pyarrow: pip install pyarrow, or choose .csv or .jsonl") from None
    return pyarrow, pyarrow.parquet
