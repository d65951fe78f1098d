"""What the numbers allow one to say about an attribute, in words: learned, weak evidence, no signal, or too few to tell."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import special

LEARNED = "learned"
WEAK = "weak evidence"
NOTHING = "no evidence of signal"
TOO_FEW = "too few examples to tell"

SURE, LIKELY = 0.01, 0.05  # adjusted p up to which the labels are learned, and up to which the evidence is weak
CLEAR = 0.85  # a ROC-AUC that a test must be able to see before its silence counts as an answer
POWER = 0.8  # with this probability
FEWEST = 5  # of each class: below, one lucky image decides


def verdict(p: float, auc_low: float, positives: int, negatives: int, n_attributes: int) -> str:
    """One of the four words for an attribute, from rows the model has not seen.

    `p` is the permutation test's, adjusted for the `n_attributes` that were tested (NaN where it is undefined);
    `auc_low` the lower end of the 95 % interval of ROC-AUC. Silence is "no evidence of signal" only where the test
    would have seen a clear signal (ROC-AUC 0.85) four times out of five.
    """
    if min(positives, negatives) < FEWEST or math.isnan(p):
        return TOO_FEW
    if p <= SURE and auc_low > 0.5:
        return LEARNED
    if p <= LIKELY:
        return WEAK
    return NOTHING if power_of(positives, negatives, n_attributes) >= POWER else TOO_FEW


def power_of(positives: int, negatives: int, n_attributes: int, auc: float = CLEAR) -> float:
    """Probability that a one-sided test at 0.05 / n_attributes sees a true ROC-AUC of `auc`.

    Normal approximation, with the variances of the Mann-Whitney statistic: the exact one without signal, and that
    of Hanley and McNeil (1982) for exponential scores under `auc`.
    """
    if min(positives, negatives) < 1:
        return 0.0
    pairs = positives * negatives
    without = (positives + negatives + 1) / (12 * pairs)
    both_positive, both_negative = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    of_positives = (positives - 1) * (both_positive - auc**2)
    of_negatives = (negatives - 1) * (both_negative - auc**2)
    within = (auc * (1 - auc) + of_positives + of_negatives) / pairs
    critical = 0.5 - special.ndtri(LIKELY / max(1, n_attributes)) * math.sqrt(without)
    return float(special.ndtr((auc - critical) / math.sqrt(within)))


def rows_needed(positives: int, negatives: int, n_attributes: int) -> int:
    """Known labels, in this mix, from which a test can tell; a class that was never seen counts as once."""
    positives, negatives = max(1, positives), max(1, negatives)
    rarer, total = min(positives, negatives), positives + negatives

    def enough(rows: int) -> bool:
        of_each = (round(rows * positives / total), round(rows * negatives / total))
        return min(of_each) >= FEWEST and power_of(*of_each, n_attributes) >= POWER

    rows = math.ceil(FEWEST * total / rarer)
    while not enough(rows):
        rows += max(1, rows // 50)
    return rows


def explained(word: str, positives: int, negatives: int, n_attributes: int) -> str:
    """The word, and for too few examples how many would do, in the mix that was found."""
    if word != TOO_FEW:
        return word
    found = f"{word}: {positives} present and {negatives} absent among the scored images"
    if min(positives, negatives) == 0:
        return f"{found}; it takes {FEWEST} of each at least"
    needed = max(rows_needed(positives, negatives, n_attributes), positives + negatives + 1)
    return f"{found}; about {needed} labels among them would do"


def some_signal(words: pd.Series) -> np.ndarray:
    """Which attributes show at least weak evidence, shape (n_attributes,), bool."""
    return words.isin([LEARNED, WEAK]).to_numpy()


def counts(words: np.ndarray) -> dict[str, int]:
    """How many attributes got each word."""
    return {word: int((words == word).sum()) for word in (LEARNED, WEAK, NOTHING, TOO_FEW)}
