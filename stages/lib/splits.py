"""Splits and folds that keep groups together and spread positives, negatives and NAs of every attribute.

A greedy form of iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011), with NA as a third class
of each attribute, dealt in blocks of rows so that a split stays put when rows are added.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

HOLD_OUT = ("train", "val", "test")
BLOCK = 100  # rows settled at once


def deal(targets: np.ndarray, groups: np.ndarray, names: Sequence[str], shares: Sequence[float], seed: int) -> np.ndarray:
    """Part of every row, shape (n_images,), an index into `shares` (which sum to 1).

    `targets` has shape (n_images, n_attributes) with NaN for unknown; rows of one group get one part.

    Rows are dealt in blocks of 100, in the order given. Within a block the groups with the rarest labels
    come first, the seed decides between equals, and each goes where it lowers the chi-square distance
    from the wanted counts most. Guaranteed: the same input and seed give the same parts on any machine;
    rows added at the end leave every full block as it was (a new near-duplicate joins its group's part).
    Where a new image links two old groups, the rows of the later one may move.
    """
    classes = _classes(targets)
    wanted = np.asarray(shares, dtype=float)
    counts = np.zeros((len(wanted), classes.shape[1]))
    part_of_group: dict[int, int] = {}
    parts = np.empty(len(targets), dtype=int)
    for start in range(0, len(targets), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(targets)))
        totals = counts.sum(axis=0) + classes[rows].sum(axis=0)
        members: dict[int, list[int]] = {}
        for row in rows:
            members.setdefault(int(groups[row]), []).append(int(row))
        for group in sorted(members, key=lambda g: _turn(g, members[g], part_of_group, classes, totals, names, seed)):
            added = classes[members[group]].sum(axis=0)
            part = part_of_group.setdefault(group, _best_part(counts, added, totals, wanted))
            counts[part] += added
            parts[members[group]] = part
    return parts


def roles(parts: np.ndarray, folds: int, fold: int) -> np.ndarray:
    """'train', 'val' or 'test' for every row, shape (n_images,), as model number `fold` sees it.

    With `folds` 1 the parts are the roles. Otherwise part `fold` is the test part, the next one serves
    early stopping, the rest trains: no row is tested by a model that chose its epoch with it.
    """
    parts = np.asarray(parts, dtype=object)
    if folds == 1:
        return parts.astype(str)
    numbers = parts.astype(int)
    named = np.where(numbers == fold, "test", np.where(numbers == (fold + 1) % folds, "val", "train"))
    return named.astype(str)


def fingerprint(names: Sequence[str], parts: np.ndarray) -> np.ndarray:
    """SHA-256, as 32 numbers (uint8), of which image is in which part: two stages that agree on it speak of the same split."""
    lines = "".join(f"{len(name)}:{name}={part}\n" for name, part in zip(names, parts, strict=True))
    return np.frombuffer(hashlib.sha256(lines.encode("utf-8", "surrogateescape")).digest(), dtype=np.uint8)


def _classes(targets: np.ndarray) -> np.ndarray:
    """One-hot of (absent, present, unknown) per attribute, and a column of ones that counts the rows."""
    states = [targets == 0, targets == 1, np.isnan(targets), np.ones((len(targets), 1), dtype=bool)]
    return np.concatenate(states, axis=1).astype(float)


def _turn(
    group: int,
    members: list[int],
    placed: dict[int, int],
    classes: np.ndarray,
    totals: np.ndarray,
    names: Sequence[str],
    seed: int,
) -> tuple[bool, float, bytes]:
    """Sort key: groups that already have a part, then those with the rarest label, then the seed's choice."""
    carried = classes[members].any(axis=0)
    # A hash and not a random generator: a row's place must not depend on how many rows there are.
    chance = hashlib.blake2b(f"{seed}:{names[members[0]]}".encode(), digest_size=8).digest()
    return group not in placed, float(totals[carried].min()), chance


def _best_part(counts: np.ndarray, added: np.ndarray, totals: np.ndarray, wanted: np.ndarray) -> int:
    expected = np.outer(wanted, totals)
    over = counts - expected
    change = added * (added + 2 * over) / np.maximum(expected, 1e-9)
    return int(np.argmin(change.sum(axis=1)))
