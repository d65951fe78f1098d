"""Thresholds for a goal: best F1, a wanted precision, a wanted recall, or a fixed one; what decisions achieve of it."""

from __future__ import annotations

import numpy as np

from stages.lib import ranking
from stages.lib.params import GOALS

BELOW_ONE = float(np.nextafter(1, 0))


def threshold_for(truth: np.ndarray, scores: np.ndarray, goal: str, minimum: float, fallback: float) -> tuple[float, bool]:
    """Threshold of one attribute, and whether it reaches the goal on these rows; decisions are `score >= threshold`.

    `truth` has shape (n_images,), NaN for unknown; `scores` are probabilities of the same shape. The goals:

    f1         the best F1; `minimum` plays no part
    precision  the highest recall among the thresholds whose precision is at least `minimum`; where none is,
               the best precision, not reached
    recall     the highest threshold whose recall is at least `minimum`
    fixed      `fallback`, always reached

    The threshold is in (0, 1), halfway to the next lower score, so that it does not sit on one image's score.
    `fallback`, not reached, where no positive or no negative is known. A score of 0 is never called present.
    """
    if goal not in GOALS:
        raise ValueError(f"goal is {goal!r}, not one of {', '.join(GOALS)}")
    if goal == "fixed":
        return fallback, True
    known = ~np.isnan(truth)
    # A threshold below 1 cannot tell 1 from its neighbour: they count as one score.
    label, score = truth[known], np.minimum(scores[known].astype(float), BELOW_ONE)
    if label.sum() in (0, len(label)) or not (score > 0).any():
        return fallback, False
    precision, recall, candidates = (found[::-1] for found in ranking.precision_recall(label, score))
    usable = candidates > 0
    best, reached = _best(precision[usable], recall[usable], goal, minimum)
    return _placed(candidates[usable][best], score), reached


def thresholds(
    targets: np.ndarray, scores: np.ndarray, goal: str, minimum: float, fallback: float
) -> tuple[np.ndarray, np.ndarray]:
    """`threshold_for` of every attribute: thresholds and whether they reach the goal, both of shape (n_attributes,).

    `targets` and `scores` have shape (n_images, n_attributes), NaN for an unknown target.
    """
    columns = zip(targets.T, scores.T, strict=True)
    found = [threshold_for(truth, score, goal, minimum, fallback) for truth, score in columns]
    return np.array([threshold for threshold, _ in found], dtype=float), np.array([reached for _, reached in found], dtype=bool)


def achieved(targets: np.ndarray, decided: np.ndarray, goal: str) -> np.ndarray:
    """The goal's own score of decisions over known cells, shape (n_attributes,): F1, precision or recall; F1 for `fixed`.

    Both arrays have shape (n_images, n_attributes), NaN for an unknown target. NaN where the score is not
    defined: F1 and recall without a positive, precision where nothing was called present.
    """
    known = ~np.isnan(targets)
    present, called = known & (targets == 1), known & decided.astype(bool)
    hits, positives, calls = (present & called).sum(axis=0), present.sum(axis=0), called.sum(axis=0)
    part, whole = {"precision": (hits, calls), "recall": (hits, positives)}.get(goal, (2 * hits, positives + calls))
    defined = calls > 0 if goal == "precision" else positives > 0
    return np.where(defined, part / np.maximum(whole, 1), np.nan)


def _best(precision: np.ndarray, recall: np.ndarray, goal: str, minimum: float) -> tuple[int, bool]:
    """Index of the candidate that serves the goal, and whether it reaches it; candidates ascend, so recall descends.

    Between equals: of one F1 or of one best precision the lowest (more is found), of one recall the highest
    (fewer false alarms).
    """
    if goal == "f1":
        f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return int(np.argmax(f1)), True
    enough = np.flatnonzero((precision if goal == "precision" else recall) >= minimum)
    if goal == "recall":
        # Only a positive with a score of 0, or a minimum above 1, leaves none: then the lowest finds most.
        return (int(enough[-1]), True) if len(enough) else (0, False)
    if len(enough):
        return int(enough[recall[enough] == recall[enough].max()][-1]), True
    return int(np.argmax(precision)), False


def _placed(best: float, score: np.ndarray) -> float:
    """Halfway from the lowest score that is to be called present to the next lower one; shape of `score` (n_known,)."""
    below = score[score < best]
    if not len(below):
        return float(best)
    halfway = (best + below.max()) / 2
    # Between neighbouring floats there is nothing halfway.
    return float(halfway if halfway > below.max() else best)
