"""Fewer images or labels than validate and stats have left in a folder: for measurements of what is lost with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages import stats
from stages.lib import files, labels, params, pixels

MASKED, COMPLETE, ZERO = "masked", "complete rows only", "NA as 0"


class NothingLeft(Exception):
    """Where no row is complete, who leaves incomplete ones out has nothing to learn from."""


def others(clean: Path, target: Path, kept: np.ndarray) -> None:
    """What validate has written of the rows `kept` (n_images,)."""
    target.mkdir(parents=True)
    for name in ("labels.csv", "images.csv"):
        table = files.read_table(clean / name, "validate")
        attributes = labels.attributes_of(table) if name == "labels.csv" else []
        files.write_table(target / name, table[kept].astype(dict.fromkeys(attributes, "Int8")))
    store = pixels.read(clean / "pixels.npy")
    pixels.write(target / "pixels.npy", (store[int(row)] for row in np.flatnonzero(kept)), store.shape[1])


def reduce(own: Path, hidden: float, treatment: str, rows: int, seed: int) -> None:
    """Hide a share of the known training labels, or leave training images out until `rows` remain (0: all).

    `treatment` is what becomes of unknown training labels. Validation and test rows stay as they are. NothingLeft where no
    training image is left.
    """
    table, split = files.read_table(own / "clean/labels.csv", "validate"), files.read_table(own / "clean/splits.csv", "stats")
    attributes = labels.attributes_of(table)
    targets, part = table[attributes].to_numpy(float), split["part"].to_numpy(str)
    chance = np.random.default_rng(seed)
    training = part == "train"
    known = np.argwhere(~np.isnan(targets) & training[:, None])
    gone = chance.permutation(len(known))[: round(hidden * len(known))]
    targets[tuple(known[gone].T)] = np.nan
    if treatment == ZERO:
        targets[training] = np.nan_to_num(targets[training])
    unused = training & np.isnan(targets).any(axis=1) if treatment == COMPLETE else np.zeros(len(targets), bool)
    if rows:
        unused[chance.permutation(np.flatnonzero(training))[rows:]] = True
    part = np.where(unused, "unused", part)
    if not (part == "train").any():
        raise NothingLeft
    (own / "clean/labels.csv").unlink()  # it is a link to the original
    changed = table.assign(**dict(zip(attributes, targets.T, strict=True))).astype(dict.fromkeys(attributes, "Int8"))
    files.write_table(own / "clean/labels.csv", changed)
    files.write_table(own / "clean/splits.csv", split.assign(part=part))
    chosen = params.load(own / "params.yaml", stats.READS)
    files.write_json(own / "metrics/stats.json", stats.statistics(targets, part, attributes, chosen))
