"""Do the probabilities mean what they say: temperature scaling, calibration error, Brier score, reliability tables.

`targets` are 1, 0 or NaN (unknown), shape (n_images, n_attributes), as are log-odds and probabilities; every
figure is over known cells. The log loss of each cell is `loss.cells` with a pos_weight of 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from stages.lib import loss, splits

# Temperatures that are tried, 0.2 to 10 in steps of 2 %, 1 among them: half a step costs nothing that can be measured.
LOG_GRID = 0.02 * np.arange(-80, 116)
GRID = np.exp(LOG_GRID)
UNSCALED = int(np.flatnonzero(LOG_GRID == 0)[0])
# Standard deviation of an attribute's log temperature around the shared one. In the simulations of `temperatures` 0.2 did
# as well, 0.15 and 0.5 a little worse.
SPREAD = 0.3
FOLDS = 5


def temperatures(targets: np.ndarray, log_odds: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Temperature T of every attribute, shape (n_attributes,), in [0.2, 10]: log_odds / T is to be better calibrated.

    Temperature scaling (Guo et al., 2017) lowers the log loss of these rows. Three candidates:

    none      1 everywhere
    shared    the best single T, over the known cells of all attributes
    shrunken  a T per attribute: the lowest (sum of log losses) + (log T - log shared)^2 / (2 * 0.3^2), so that
              few labels stay near the shared T and many have their own

    The candidate with the lowest log loss in a 5-fold cross-validation on these rows is fitted on all of them.
    `groups` (n_images,) holds equal integers for near-duplicates, which stay in one fold. An attribute without
    both classes gets the shared T; where no attribute has both, or all rows are one group, every T is 1.

    In simulations of 8 attributes with 70 % of the labels known (7 and 30 % positive, true T 0.5 to 3, equal
    or not), log loss on new rows, with the calibration error (ECE) in brackets, was

              unscaled      shared        own           shrunken      this
    100 rows  0.405 (.064)  0.339 (.025)  0.341 (.029)  0.336 (.024)  0.336 (.022)
    500 rows  0.404 (.064)  0.338 (.023)  0.333 (.018)  0.333 (.017)  0.333 (.016)

    "own" is without the penalty. Where the log-odds were right to begin with, this cost 0.002 (100 rows) and
    0.001 (500 rows). To accept or refuse scaling attribute by attribute was worse: too few labels to tell.
    One number scales towards a probability of 0.5: where log-odds were too far from the base rate and not from
    0, the loss fell too, but the ECE of rare attributes rose (7 % positive, T 3, 100 rows: .098 to .115).
    """
    fold = splits.deal(targets, groups, [str(group) for group in groups], [1 / FOLDS] * FOLDS, seed=0)
    costs = np.stack([_costs(targets[fold == part], log_odds[fold == part]) for part in range(FOLDS)])
    held_out = np.zeros(3)
    for part in range(FOLDS):
        fitted = _candidates(costs.sum(axis=0) - costs[part], _both_classes(targets[fold != part]))
        held_out += [np.take_along_axis(costs[part], index[None], axis=0).sum() for index in fitted]
    # The first of equals: no scaling where it does not help.
    return GRID[_candidates(costs.sum(axis=0), _both_classes(targets))[int(np.argmin(held_out))]]


def ece(targets: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> np.ndarray:
    """Expected calibration error per attribute, shape (n_attributes,); NaN where nothing is known.

    Mean over known cells of |mean probability - share of positives| of the cell's bin. Bins hold equal
    numbers of cells (the adaptive bins of Nixon et al., 2019), except that equal probabilities share a bin.
    With few cells it is above 0 for perfect probabilities too: about 0.1 with 100 cells and a rate of 0.3.
    """
    found = np.full(targets.shape[1], np.nan)
    for column in range(targets.shape[1]):
        truth, probability, number = _binned(targets[:, column], probabilities[:, column], bins)
        if len(truth):
            # In a bin of m cells, m * |difference of means| = |difference of sums|.
            found[column] = np.abs(np.bincount(number, probability - truth)).sum() / len(truth)
    return found


def brier(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Mean of (probability - target)^2 over known cells per attribute, shape (n_attributes,); NaN where none is known."""
    known = ~np.isnan(targets)
    squares = np.where(known, (probabilities - targets) ** 2, 0).sum(axis=0)
    count = known.sum(axis=0)
    return np.where(count > 0, squares / np.maximum(count, 1), np.nan)


def reliability(attributes: list[str], targets: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """One row per attribute and bin of `ece`, bins numbered from 1 by rising probability; none where nothing is known.

    `predicted` is the mean probability, `observed` the share of positives, `low` and `high` the interval of `wilson`.
    """
    rows = []
    for column, name in enumerate(attributes):
        truth, probability, number = _binned(targets[:, column], probabilities[:, column], bins)
        for place, value in enumerate(np.unique(number), start=1):
            inside = number == value
            positive, images = int(truth[inside].sum()), int(inside.sum())
            low, high = wilson(positive, images)
            rows.append((name, place, images, probability[inside].mean(), positive / images, low, high))
    return pd.DataFrame(rows, columns=["attribute", "bin", "images", "predicted", "observed", "low", "high"])


def wilson(positive: int, images: int) -> tuple[float, float]:
    """95 % interval of a share: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927."""
    z = -special.ndtri(0.025)
    share, widened = positive / images, 1 + z**2 / images
    centre = (share + z**2 / (2 * images)) / widened
    reach = z * np.sqrt(share * (1 - share) / images + z**2 / (4 * images**2)) / widened
    # With none or all positive one end is exact, and rounding would put it on the wrong side.
    return float(centre - reach) if positive else 0.0, float(centre + reach) if positive < images else 1.0


def _costs(targets: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """Sum of the log loss over known cells at each temperature of the grid, shape (n_grid, n_attributes)."""
    weight = np.ones(targets.shape[1])
    return np.stack([np.nansum(loss.cells(log_odds / t, targets, weight), axis=0) for t in GRID])


def _both_classes(targets: np.ndarray) -> np.ndarray:
    """Whether a positive and a negative are known, shape (n_attributes,)."""
    return (targets == 1).any(axis=0) & (targets == 0).any(axis=0)


def _candidates(costs: np.ndarray, both_classes: np.ndarray) -> list[np.ndarray]:
    """None, shared and shrunken as indices into the grid, each of shape (n_attributes,); `costs` is of `_costs`."""
    none = np.full(costs.shape[1], UNSCALED)
    if not both_classes.any():
        return [none] * 3
    shared = np.full(costs.shape[1], np.argmin(costs.sum(axis=1)))
    penalty = (LOG_GRID - LOG_GRID[shared[0]]) ** 2 / (2 * SPREAD**2)
    own = np.argmin(costs + penalty[:, None], axis=0)
    return [none, shared, np.where(both_classes, own, shared)]


def _binned(truth: np.ndarray, probability: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets, probabilities and bin of the known cells of one attribute, each of shape (n_known,).

    The bin follows from the rank, and equal probabilities have one rank, so some bins may stay empty.
    """
    known = ~np.isnan(truth)
    label, value = truth[known], probability[known]
    rank = np.searchsorted(np.sort(value), value)
    return label, value, rank * bins // max(len(value), 1)
