"""Write a labels file from a folder per attribute: what lies in striped/ is striped.

    python -m stages.collect data/images data/labels.csv

Reads   the images folder: one folder per attribute, `striped/`, whose pictures have it; where there is one, `not_striped/`,
        whose pictures lack it; pictures that lie in none
Writes  the labels file (.csv), a row per picture, unless there is one already

A picture may be copied or linked into several folders: equal bytes are one picture, whatever the files are called, and
its row bears the first of their names. Where a picture lies in neither folder of an attribute its label is NA: that
nobody put it there may mean that nobody looked. `--absent-elsewhere` says that somebody did, and makes these labels 0.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import files, folder, labels
from stages.lib.errors import UserError, run_stage
from stages.lib.faults import shown

ABSENT = "not_"


def main() -> None:
    args = arguments()
    if args.labels.suffix.lower() != ".csv":
        raise UserError(f"{args.labels}: its ending must be .csv, so that names may hold spaces")
    if args.labels.exists() and not args.force:
        raise UserError(f"{args.labels} is there already; --force writes it anew, and what was edited in it is lost")
    table, n_copies = collected(args.images, args.absent_elsewhere)
    write(args.labels, table)
    print(summary(args.labels, table, n_copies))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path, help="folder with a folder per attribute")
    parser.add_argument("labels", type=Path, help="labels file to write, .csv")
    parser.add_argument("--absent-elsewhere", action="store_true", help="0 instead of NA for what lies in neither folder")
    parser.add_argument("--force", action="store_true", help="overwrite the labels file")
    return parser.parse_args()


def collected(images: Path, absent_elsewhere: bool) -> tuple[pd.DataFrame, int]:
    """Columns image and one per attribute (1, 0 or NaN), a row per distinct picture, in the order of their names.

    The number is that of further files with the bytes of one of them, which get no row.
    """
    copies = defaultdict(list)
    for name in folder.image_files(images):
        try:
            copies[files.fingerprint(images / name)].append(name)
        except OSError as error:
            raise UserError(f"{images / name} can't be read: {error.strerror}") from None
    tops = sorted({top_of(name) for names in copies.values() for name in names} - {""})
    attributes = sorted({top.removeprefix(ABSENT) for top in tops} - {""})
    if not attributes:
        raise UserError(f"{images} holds no folder with pictures; expected one per attribute, such as {images}/striped/photo.jpg")
    refuse_names([*attributes, *(names[0] for names in copies.values())])
    rows = []
    for names in copies.values():
        inside = {top_of(name) for name in names}
        for attribute in attributes:
            if {attribute, ABSENT + attribute} <= inside:
                both = ", ".join(f"'{shown(name)}'" for name in names)
                raise UserError(f"one picture lies in {attribute}/ and in {ABSENT}{attribute}/: {both}; take one of them away")
        rows.append((names[0], *(label_of(attribute, inside, absent_elsewhere) for attribute in attributes)))
    table = pd.DataFrame(rows, columns=["image", *attributes]).sort_values("image", ignore_index=True)
    return table, sum(map(len, copies.values())) - len(table)


def top_of(name: str) -> str:
    """The folder below the images folder that a file lies in, however deep; empty for a file that lies in none."""
    return Path(name).parts[0] if len(Path(name).parts) > 1 else ""


def label_of(attribute: str, inside: set[str], absent_elsewhere: bool) -> float:
    if attribute in inside:
        return 1.0
    return 0.0 if absent_elsewhere or ABSENT + attribute in inside else np.nan


def refuse_names(names: Sequence[str]) -> None:
    """Raises UserError for a name that a labels file can't hold, or would take for something else."""
    for name in names:
        if name in labels.RESERVED or name.startswith("#") or name != name.strip() or any(c in name for c in "\n\r\0"):
            why = "is reserved" if name in labels.RESERVED else "can't stand in a labels file"
            raise UserError(f"the name '{shown(name)}' {why}; rename the file or folder")


def write(path: Path, table: pd.DataFrame) -> None:
    """Write the table and read it back as validate will."""
    with files.replacing(path) as temporary:
        files.write_table(temporary, table.astype(dict.fromkeys(table.columns[1:], "Int8")))
        try:
            labels.read(temporary)
        except UserError as error:
            raise UserError(str(error).replace(str(temporary), str(path))) from None


def summary(path: Path, table: pd.DataFrame, n_copies: int) -> str:
    lines = [f"{len(table)} pictures -> {path}"]
    if n_copies:
        lines[0] += f"; {n_copies} more files are copies of them (validate will note these as unlabelled_image)"
    lines.append(f"  {'attribute':<20} {'1':>6} {'0':>6} {'NA':>6}")
    for name in table.columns[1:]:
        ones, zeros = int((table[name] == 1).sum()), int((table[name] == 0).sum())
        lines.append(f"  {shown(name, 20):<20} {ones:>6} {zeros:>6} {len(table) - ones - zeros:>6}")
    without = [shown(name, 20) for name in table.columns[1:] if not (table[name] == 0).any()]
    if without:
        lines.append(f"  nothing can be learned without a 0, and these have none: {', '.join(without)}")
        lines.append(f"  put pictures without it into {ABSENT}{without[0]}/, or use --absent-elsewhere where somebody has looked")
    return "\n".join(lines)


if __name__ == "__main__":
    run_stage(main)
