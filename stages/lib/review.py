"""The labeller's to-do list: known labels that the models contradict, unknown ones of which they are sure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.lib import decisions, loss

SUSPECT, CLEAR = "label contradicted", "unknown but clear"
CONFIDENT = 0.9  # probability of an unknown label, one way or the other, from which it is called clear
MOST = 500  # rows of either kind
COLUMNS = ["kind", "image", "attribute", "label", "probability", "seen_by"]


def table(
    names: Sequence[str],
    attributes: Sequence[str],
    targets: np.ndarray,
    log_odds: np.ndarray,
    seen_by: np.ndarray,
    worth: np.ndarray,
) -> pd.DataFrame:
    """Cells to look at, those first that a person's time serves most.

    `targets` (NaN for unknown) and `log_odds` have shape (n_images, n_attributes); the log-odds must come from models
    that have not learned from the row (`seen_by` (n_images,) says which), NaN where there are none. `worth`
    (n_images, n_attributes) is False where the models of this row have shown no signal for the attribute: there their doubts
    mean nothing, and none are listed.

    A known label is contradicted where the models give it less than 0.5 and less than the base rate does, and comes the earlier
    the less that is. An unknown label is clear where they give 0.9 or more to one side; those come first that the base rate
    would not have told.
    """
    probability = decisions.probabilities(log_odds)
    of_label = np.where(targets == 1, probability, 1 - probability)
    usable = ~np.isnan(log_odds) & worth
    known = ~np.isnan(targets)
    rate = np.nan_to_num(loss.base_rates(targets), nan=0.5)
    beyond = log_odds - loss.best_constant(rate, np.array(1.0))  # what the picture adds to the base rate
    against = np.where(targets == 1, -beyond, beyond)
    with np.errstate(invalid="ignore"):
        suspect = known & usable & (of_label < 0.5) & (against > 0)
        clear = ~known & usable & (np.abs(probability - 0.5) >= CONFIDENT - 0.5)
    found = [(SUSPECT, cell) for cell in _first(suspect, of_label)] + [(CLEAR, cell) for cell in _first(clear, -np.abs(beyond))]
    rows = []
    for kind, (row, column) in found:
        label = pd.NA if np.isnan(targets[row, column]) else int(targets[row, column])
        rows.append((kind, names[row], attributes[column], label, round(float(probability[row, column]), 4), seen_by[row]))
    return pd.DataFrame(rows, columns=COLUMNS).astype({"label": "Int8"})


def _first(which: np.ndarray, rank: np.ndarray) -> np.ndarray:
    """The cells of `which` by rising rank, at most MOST; equal ranks in the order of the table."""
    cells = np.argwhere(which)
    return cells[np.argsort(rank[which], kind="stable")][:MOST]
