"""Positives and images above each threshold, and what follows from them: AP, ROC-AUC, and the two curves.

One sort of the scores serves any number of weightings of the images: once each for the score of a sample, as often as they
were drawn for those of its resamples (resampling).
"""

from __future__ import annotations

import numpy as np


def above(truth: np.ndarray, score: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Weight of the positives and of all images at or above each different score, each (n_weightings, 1 + n_scores).

    `truth` (1 or 0) and `score` have shape (n,), `weights` (n_weightings, n); without them every image counts once. Scores
    descend, and equal ones are one threshold. The first column is 0: nothing is above the highest score.
    """
    if weights is None:
        weights = np.ones((1, len(truth)), dtype=np.uint8)
    order, ends = descending(score)
    ordered = weights[:, order]
    # Small counts become wide enough to be summed; whole numbers stay exact.
    kind = np.int32 if np.issubdtype(weights.dtype, np.integer) else np.float64
    start = np.zeros((len(weights), 1), kind)
    called = np.cumsum(ordered, axis=1, dtype=kind)[:, ends]
    hits = np.cumsum(ordered * truth[order].astype(weights.dtype), axis=1, dtype=kind)[:, ends]
    return np.hstack([start, hits]), np.hstack([start, called])


def descending(score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order from the highest score to the lowest, and where in it each run of equal scores ends."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True)) if len(score) else np.empty(0, int)
    return order, ends


def ap(hits: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Sum over thresholds of (recall gained) * precision, shape (n_weightings,); NaN without a positive or a negative.

    Both arguments are of `above`.
    """
    positive, total = hits[:, -1], called[:, -1]
    gained = np.diff(hits, axis=1)
    area = (gained * (hits[:, 1:] / np.maximum(called[:, 1:], 1e-300))).sum(axis=1)
    return divided(area, np.where(positive < total, positive, 0))


def auc(hits: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Share of pairs that are in order, a tied one half; shapes and NaN as in `ap`."""
    misses = called - hits
    pairs = (np.diff(misses, axis=1) * (hits[:, 1:] + hits[:, :-1]).astype(float)).sum(axis=1) / 2
    return divided(pairs, hits[:, -1].astype(float) * misses[:, -1])


def precision_recall(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall at each different score, and that score, from the highest down, each of shape (n_scores,)."""
    (hits,), (called,) = above(truth, score)
    order, ends = descending(score)
    return hits[1:] / called[1:], hits[1:] / hits[-1], score[order][ends]


def roc(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rate of false and of true positives from nothing called to everything, without points halfway between their neighbours."""
    (hits,), (called,) = above(truth, score)
    misses = called - hits
    turns = np.concatenate([[True], (np.diff(misses, 2) != 0) | (np.diff(hits, 2) != 0), [True]])
    return misses[turns] / misses[-1], hits[turns] / hits[-1]


def divided(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
