"""The faults that data can have: their names, and what happens to the row, cell or run that has one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

# What a fault does. "row": the row is set aside and counts towards validate.max_rejected;
# "cell": the cell becomes NA and the row is kept; "note": reported, nothing is lost.
ROW, CELL, NOTE = "row", "cell", "note"

EFFECTS = {
    "missing_image": ROW,
    "dangling_link": ROW,
    "outside_folder": ROW,
    "unreadable_file": ROW,
    "empty_file": ROW,
    "not_an_image": ROW,
    "damaged_image": ROW,
    "too_many_pixels": ROW,
    "extreme_aspect": ROW,
    "wrong_columns": ROW,
    "labels_unusable": ROW,
    "bad_token": CELL,
    "conflicting_labels": CELL,
    "repeated_row": NOTE,
    "no_known_label": NOTE,
    "case_twins": NOTE,
    "animated": NOTE,
    "one_class_only": NOTE,
    "unlabelled_image": NOTE,
    "byte_order_mark": NOTE,
}

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes a cell for a formula by
LONGEST_NAME = 200  # characters of an attribute


@dataclass(frozen=True)
class Fault:
    """One fault; `line` counts from 1 (0: no line), `column` is an attribute or empty, `value` what was found."""

    kind: str
    file: str
    line: int
    column: str
    value: str
    message: str

    @property
    def effect(self) -> str:
        return EFFECTS[self.kind]


def shown(text: object, longest: int = 60) -> str:
    """`text` safe for a terminal and a table: control characters escaped, long values clipped."""
    plain = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def unfit(name: str) -> str:
    """Why `name` can't be an attribute's, or nothing: it stands in headings of tables, in figures and on terminals."""
    if not name.isprintable():
        return "holds a control character"
    if name.startswith(FORMULA):
        return "starts like a formula, which a spreadsheet would run"
    return f"is longer than {LONGEST_NAME} characters" if len(name) > LONGEST_NAME else ""


def attribute_names(content: Any) -> list[str]:
    """The attributes that a model file names, which may be anything. ValueError for what no labels file could have named."""
    if not isinstance(content, list) or not content or not all(isinstance(name, str) and name for name in content):
        raise ValueError("its attributes are no list of names")
    times = Counter(content)
    for name in content:
        if why := unfit(name) or ("stands there twice" if times[name] > 1 else ""):
            raise ValueError(f"attribute name '{shown(name)}' {why}")
    return content


def table(faults: Iterable[Fault]) -> pd.DataFrame:
    """The faults as a table, one row each, in the order of `faults`."""
    rows = [{**asdict(fault), "effect": fault.effect} for fault in faults]
    columns = ["kind", "effect", "file", "line", "column", "value", "message"]
    return pd.DataFrame(rows, columns=columns)


def counts(faults: Iterable[Fault]) -> dict[str, int]:
    """Number of faults per kind, for kinds that occur, in the order of EFFECTS."""
    found = Counter(fault.kind for fault in faults)
    return {kind: found[kind] for kind in EFFECTS if found[kind]}
