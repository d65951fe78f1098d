"""Write-then-rename, JSON and table writers, fingerprints.

A file under its final name is always whole: writers fill a neighbour with a temporary name, flush it to
disk and rename it. A kill or a full disk leaves the earlier file as it was.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from stages.lib.errors import SPACE, UserError, first_line
from stages.lib.faults import FORMULA

MISSING = "NA"  # how an unknown value is written in every table of this project
# Columns that are never numbers.
TEXT = ("image", "copy", "attribute", "sha256", "hash", "mirrored_hash", "recipe", "compared", "model", "reason")
NAMES = ("image", "copy", "file")  # columns of files' names


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; rename it to `path` once the block ends without an error.

    An OSError, such as that of a full disk, names `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        # The ending stays: savers such as matplotlib choose the format by it.
        temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _flush_folder(path.parent)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)
        raise


def _flush_folder(folder: Path) -> None:
    """Without this a power loss may undo a rename. Not every file system lets a folder be flushed."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_writable(path: Path) -> None:
    """Raise UserError where no file can be written at `path`; makes the folder that it is to lie in."""
    if path.is_dir():
        raise UserError(f"{path} is a folder, not a file that can be written")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from None


def check_space(folder: Path, needed: int, what: str) -> None:
    """Raise UserError where the disk that `folder` lies on has fewer than `needed` free bytes for `what`."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        found = f"{what} needs about {needed / 2**20:,.0f} MiB, and the disk of {folder} has {free / 2**20:,.0f} MiB left"
        raise UserError(f"{found}; {SPACE}")


def remove_leftovers(path: Path) -> None:
    """Remove temporary neighbours of `path` that killed processes of this machine left."""
    ours = re.compile(rf"\.{re.escape(path.stem)}\.(\d+){re.escape(path.suffix)}")
    for neighbour in path.parent.glob(".*"):
        if (found := ours.fullmatch(neighbour.name)) and not _runs(int(found[1])):
            neighbour.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # somebody else's
        return True
    return process != os.getpid()  # a file with our own number is from before: a process writes one after the other


def write_json(path: Path, content: Mapping[str, Any], exact: bool = False) -> None:
    """Write indented JSON; floats are rounded to 6 decimals unless `exact`.

    Raises ValueError for a NaN or an infinity: DVC can't compare them, so undefined figures are left out.
    """
    write_text(path, json.dumps(content if exact else _rounded(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return round(value, 6)
    return value


def read_json(path: Path, made_by: str) -> dict[str, Any]:
    """Read a JSON object; `made_by` names the stage that writes it, for the error message."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the {made_by} stage writes it: run 'dvc repro {made_by}'") from None
    except (ValueError, RecursionError) as error:  # also no UTF-8, 5,000 digits, brackets in brackets without end
        raise UserError(f"{path} is not JSON ({first_line(error)}); run 'dvc repro --force {made_by}'") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; run 'dvc repro --force {made_by}'")
    return content


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without an index; unknown values are written as NA, texts as `harmless` makes them."""
    with replacing(path) as temporary:
        names = table.select_dtypes(["object", "string"]).columns
        table = table.assign(**{name: table[name].map(lambda cell, name=name: harmless(cell, name)) for name in names})
        # Python's writer leaves a lone carriage return bare, and readers end the row there.
        returns = any(table[name].astype(str).str.contains("\r", regex=False).any() for name in names)
        quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL
        table.to_csv(temporary, index=False, na_rep=MISSING, lineterminator="\n", quoting=quoting)


def harmless(cell: Any, column: str) -> Any:
    """A text as no spreadsheet takes it for a formula: a file's name with ./ before it, which is the same file; others quoted."""
    if isinstance(cell, str) and cell.startswith(FORMULA):
        return f"./{cell}" if column in NAMES else f"'{cell}"
    return cell


def _as_it_was(cell: Any) -> Any:
    """A file's name before `harmless`."""
    return cell[2:] if isinstance(cell, str) and cell.startswith("./") and cell[2:].startswith(FORMULA) else cell


def read_table(path: Path, made_by: str) -> pd.DataFrame:
    """Read a CSV of `write_table`; names and digests stay text even where all look like numbers, or a name is 'NA'."""
    try:
        return parse_table(path.read_bytes().decode("utf-8"), str(path), made_by)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the {made_by} stage writes it: run 'dvc repro {made_by}'") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table ({error}); run 'dvc repro --force {made_by}'") from None


def parse_table(text: str, name: str, made_by: str) -> pd.DataFrame:
    """The content of a CSV of `write_table`; `name` is for the error message."""
    try:
        columns = pd.read_csv(io.StringIO(text), nrows=0).columns
        marks = {column: [MISSING] for column in columns if column not in TEXT}
        table = pd.read_csv(io.StringIO(text), dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=marks)
        return table.assign(**{name: table[name].map(_as_it_was) for name in NAMES if name in table})
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(f"{name} is not a table ({first_line(error)}); run 'dvc repro --force {made_by}'") from None


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Write named arrays of numbers as one safetensors file; equal arrays are equal bytes, unlike those of a zip archive,
    which depend on Python's version."""
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with replacing(path) as temporary:
        temporary.write_bytes(content)  # by Python, whose error for a full disk is an OSError


def read_arrays(path: Path, made_by: str, *names: str) -> list[np.ndarray]:
    """The arrays `names` of a file of `write_arrays`; nothing in it is executed."""
    try:
        content = load_file(path)
        return [content[name] for name in names]
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the {made_by} stage writes it: run 'dvc repro {made_by}'") from None
    except (SafetensorError, KeyError, ValueError, TypeError, AttributeError, OSError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); run 'dvc repro --force {made_by}'") from None


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
