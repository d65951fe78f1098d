"""Which images are asked for: named one by one, in a folder, or in a list."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.lib import folder
from stages.lib.errors import UserError

STDIN = "-"
HEADINGS = ("image", "path", "file", "filename")  # of the column that holds the paths, in a CSV with a header


@dataclass(frozen=True)
class Source:
    """`names` in the order of the input, as the table shows them: relative to `base`, or absolute."""

    title: str
    base: Path
    names: list[str]


def of_images(paths: Sequence[str]) -> Source:
    return Source(paths[0] if len(paths) == 1 else f"{len(paths)} images", Path(), list(paths))


def of_folder(base: Path, recursive: bool, own: Sequence[Path]) -> Source:
    """All files of a folder, in order of their names.

    What this command writes itself (`own`, and the parts and shards beside them) is left out: an unfinished run must find
    the same input again when its results lie in the same folder.
    """
    names = folder.all_files(base, recursive)
    root, ours = os.path.abspath(base), [os.path.abspath(path) for path in own]
    if any(path.startswith(root + os.sep) for path in ours):
        beside = tuple(f"{path}.{kind}" for path in ours for kind in ("parts", "shard-"))
        full = {name: os.path.join(root, name) for name in names}
        names = [name for name in names if full[name] not in ours and not full[name].startswith(beside)]
    return Source(str(base), base, names)


def of_list(place: str) -> Source:
    """The paths in a text file, one a line, or in a CSV; relative ones lie beside the list. "-" is standard input.

    In text every line that is not empty is a path, whatever it starts with; paths may be parted by NUL bytes instead
    (`find -print0`). A name that is not UTF-8 is kept as the bytes it is.
    """
    if place == STDIN:
        return Source("standard input", Path(), _lines(sys.stdin.buffer.read()))
    path = Path(place)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"list {path} can't be read: {error.strerror}; --list takes a text file, a .csv, or -") from None
    names = _column(content, path) if path.suffix.lower() == ".csv" else _lines(content)
    return Source(str(path), path.parent, names)


def _text(content: bytes) -> str:
    return os.fsdecode(content.removeprefix(b"\xef\xbb\xbf"))


def _lines(content: bytes) -> list[str]:
    # Not splitlines(), which also parts names at form feeds and at line separators of Unicode.
    parts = _text(content).split("\0") if b"\0" in content else _text(content).split("\n")
    return [name for name in (part.removesuffix("\r") for part in parts) if name.strip()]


def _column(content: bytes, path: Path) -> list[str]:
    """The column under one of HEADINGS, or, where the first row has none of them, the first of every row."""
    try:
        rows = [row for row in csv.reader(io.StringIO(_text(content), newline=""), strict=True) if any(row)]
    except csv.Error as error:
        raise UserError(
            f"list {path} is not CSV ({error}); a list that does not end in .csv is read as one path a line"
        ) from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    named = [heading for heading in HEADINGS if heading in header]
    column = header.index(named[0]) if named else 0
    for number, row in enumerate(rows, start=1):
        if len(row) <= column or not row[column].strip():
            raise UserError(f"list {path}: row {number} has no path in column {column + 1}")
    return [row[column] for row in rows[1 if named else 0 :]]
