"""Made outcomes of models, for the tests of scores and of their differences."""

from __future__ import annotations

import math

import numpy as np

from stages.lib.evidence import Outcome


def outcome_of(targets: np.ndarray, log_odds: np.ndarray, groups: np.ndarray | None = None) -> Outcome:
    """Decided at 0.5; the constant is the log-odds of 0.3 everywhere."""
    constant = np.full(targets.shape, math.log(0.3 / 0.7))
    return Outcome(targets, log_odds, log_odds > 0, constant, np.arange(len(targets)) if groups is None else groups)
