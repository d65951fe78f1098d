"""Is one model better than another? Both on the same rows, attribute by attribute, with an interval for the difference."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

from stages.lib import resampling, verdicts
from stages.lib.evidence import Outcome

SCORES = ("ap", "roc_auc", "f1", "skill")
MACRO = "all together"  # what the row of the macro score is called; an attribute may be called so too
BETTER, WORSE, SAME = "better", "worse", "no difference that holds"
ROUNDING = 1e-9  # of sums of equal numbers
LEVEL = 0.05  # adjusted p up to which a difference holds


def contrast(attributes: list[str], one: Outcome, other: Outcome, seed: int) -> pd.DataFrame:
    """A row per score and attribute, then one of the macro score: `one`, `other`, `difference` with interval, `p`, `word`.

    `difference` is one - other, with `low` and `high` of its 95 % interval: the same bootstrap resamples score both
    (paired), and the interval is normal around the difference. `p` is two-sided, adjusted by Holm over the attributes.
    `word` tells what `one` is next to `other`. NaN, and no word, where a score is undefined. The bias that resampling
    adds to AP is that of both, and so not of the difference.
    """
    once = np.ones((1, len(one.groups)), dtype=np.uint8)
    n_groups = len(np.unique(one.groups))
    points, resampled = ([which.resampled(once) for which in (one, other)], [which.bootstrap(seed) for which in (one, other)])
    tables = []
    for score in SCORES:
        rows = []
        for column, name in enumerate([*attributes, MACRO]):
            first, second = (_of(found, score, column)[0] for found in points)
            values = _of(resampled[0], score, column) - _of(resampled[1], score, column)
            is_macro = column == len(attributes)
            rows.append((score, name, is_macro, first, second, *_normal(first - second, values, n_groups)))
        table = pd.DataFrame(rows, columns=["score", "attribute", "macro", "one", "other", "difference", "low", "high", "p"])
        # The macro score is one question, and the attributes are another one, asked many times.
        table.loc[~table["macro"], "p"] = resampling.holm(table["p"].to_numpy()[:-1])
        tables.append(table)
    found = pd.concat(tables, ignore_index=True)
    holds = found["p"] <= LEVEL
    better = found["difference"] > 0
    found["word"] = np.select([found["p"].isna(), holds & better, holds & ~better], ["", BETTER, WORSE], SAME)
    return found


def _of(found: dict[str, np.ndarray], score: str, column: int) -> np.ndarray:
    """Values of an attribute; of the macro score where `column` is one too many."""
    each = found[score]
    return each[:, column] if column < each.shape[1] else found[f"{score}_macro"]


def _normal(difference: float, values: np.ndarray, n_groups: int) -> tuple[float, float, float, float]:
    """Difference, its interval and its p; NaN where it, or half of the resamples, are undefined.

    Resamples of very few images (or groups of near-duplicates) differ so little that anything would hold: p is 1.
    """
    defined = values[~np.isnan(values)]
    if np.isnan(difference) or 2 * len(defined) < len(values):
        return difference, np.nan, np.nan, np.nan
    if abs(difference) < ROUNDING and np.abs(defined).max() < ROUNDING:
        return 0.0, 0.0, 0.0, 1.0
    if n_groups < verdicts.FEWEST:
        return difference, np.nan, np.nan, 1.0
    spread = defined.std()
    if spread < ROUNDING:  # the same difference in every resample, as between a perfect ranking and a constant
        return difference, difference, difference, 2 / (1 + len(defined))
    reach = -special.ndtri(0.025) * spread
    return difference, difference - reach, difference + reach, 2 * float(special.ndtr(-abs(difference) / spread))
