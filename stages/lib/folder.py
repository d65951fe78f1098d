"""What the labels file names against what the images folder holds: the faults of names, before any file is opened."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pandas as pd

from stages.lib.errors import UserError
from stages.lib.faults import Fault, shown
from stages.lib.images import SUFFIXES, inside


def image_files(folder: Path) -> list[str]:
    """Names of all files below `folder` that end like an image, relative to it, sorted. Links are not entered."""
    return [name for name in all_files(folder) if os.path.splitext(name)[1].lower() in SUFFIXES]


def all_files(folder: Path, recursive: bool = True) -> list[str]:
    """Names of all files below `folder` but hidden ones, relative to it, sorted; without `recursive`, of those in it."""
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise UserError(f"images folder {folder} {what}; set data.images (or predict.images) in params.yaml")
    names = []
    for parent, _, files in os.walk(folder):
        for name in files:
            if not name.startswith("."):
                names.append(os.path.relpath(os.path.join(parent, name), folder))
        if not recursive:
            break
    return sorted(names)


def name_faults(table: pd.DataFrame, folder: Path, labels_file: str, present: list[str]) -> list[Fault]:
    """Faults of the names in `table` (columns line, image), and images that no row names."""
    faults = []
    twins = _case_twins(table["image"])
    for line, name in zip(table["line"], table["image"], strict=True):
        if inside(folder, name) is None:
            message = f"'{shown(name)}' leads out of the images folder: row set aside"
            faults.append(Fault("outside_folder", labels_file, int(line), "", shown(name), message))
        elif name in twins:
            message = f"'{shown(name)}' and '{shown(twins[name])}' differ only in case: two files here, one on other systems"
            faults.append(Fault("case_twins", labels_file, int(line), "", shown(name), message))
    named = {os.path.normpath(name) for name in table["image"]}
    for name in present:
        if name not in named:
            faults.append(
                Fault("unlabelled_image", shown(name, 200), 0, "", "", f"'{shown(name)}' has no row in the labels file")
            )
    return faults


def near_name(name: str, present_by_lower: dict[str, str]) -> str:
    """A hint for a missing image: the file whose name differs only in case, if there is one."""
    other = present_by_lower.get(os.path.normpath(name).lower())
    return f" (there is '{shown(other)}': the case differs)" if other else ""


def _case_twins(names: pd.Series) -> dict[str, str]:
    """Names that equal another but for case -> that other; the first of each set is not a fault."""
    by_lower = defaultdict(list)
    for name in names:
        by_lower[name.lower()].append(name)
    return {other: same[0] for same in by_lower.values() for other in same[1:]}
