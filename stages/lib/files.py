"""Write-then-rename, JSON and table writers, fingerprints.

A file under its final name is always whole: writers fill a neighbour with a temporary name, flush it to
disk and rename it. A kill or a full disk leaves the earlier file as it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from stages.lib.errors import UserError

MISSING = "NA"  # how an unknown value is written in every table of this project


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary neighbour of `path`; rename it to `path` once the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays: savers such as matplotlib choose the format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON with floats rounded to 6 decimals.

    Raises ValueError for a NaN or an infinity: DVC can't compare them, so undefined figures are left out.
    """
    with replacing(path) as temporary:
        text = json.dumps(_rounded(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


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
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not JSON ({error}); run 'dvc repro --force {made_by}'") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; run 'dvc repro --force {made_by}'")
    return content


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a CSV without an index; unknown values are written as NA."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, na_rep=MISSING, lineterminator="\n")


def read_table(path: Path, made_by: str) -> pd.DataFrame:
    """Read a CSV of `write_table`; `image` stays text even where every name is a number or 'NA'."""
    try:
        return pd.read_csv(path, dtype={"image": str}, keep_default_na=False, na_values=_missing_marks(path))
    except FileNotFoundError:
        raise UserError(f"{path} is missing; the {made_by} stage writes it: run 'dvc repro {made_by}'") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a table ({error}); run 'dvc repro --force {made_by}'") from None


def _missing_marks(path: Path) -> dict[str, list[str]]:
    columns = pd.read_csv(path, nrows=0).columns
    return {column: [MISSING] for column in columns if column != "image"}


def fingerprint(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
