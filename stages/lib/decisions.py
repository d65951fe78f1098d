"""From logits to probabilities and decisions: prior correction and thresholds; decision.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import precision_recall_curve

from stages.lib import files
from stages.lib.errors import UserError


def corrected(logits: np.ndarray, log_pos_weight: np.ndarray) -> np.ndarray:
    """Logits of a network trained with pos_weight w -> log-odds: logit - log(w), same shape.

    Weighting positives by w moves the optimum of the loss from log(p / (1 - p)) by log(w).
    """
    return logits - log_pos_weight


def probabilities(log_odds: np.ndarray) -> np.ndarray:
    """Sigmoid, without overflow."""
    return np.exp(-np.logaddexp(0, -log_odds))


def best_f1_threshold(targets: np.ndarray, scores: np.ndarray, fallback: float) -> float:
    """Threshold on `scores`, shape (n_images,), whose decisions `score >= threshold` have the best F1.

    Halfway to the next lower score, so that it does not sit on one picture's score. `fallback` where no
    positive or no negative is known.
    """
    known = ~np.isnan(targets)
    truth, score = targets[known], scores[known]
    if truth.sum() in (0, len(truth)):
        return fallback
    precision, recall, candidates = precision_recall_curve(truth, score)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    best = candidates[np.argmax(f1[:-1])]
    below = score[score < best]
    halfway = (best + below.max()) / 2 if len(below) else best
    # Between neighbouring floats there is nothing halfway.
    return float(halfway if not len(below) or halfway > below.max() else best)


def thresholds(targets: np.ndarray, scores: np.ndarray, rule: str, fixed: float) -> np.ndarray:
    """Threshold of every attribute, shape (n_attributes,), by the rule `f1` or `fixed`."""
    if rule == "fixed":
        return np.full(targets.shape[1], fixed)
    return np.array([best_f1_threshold(t, s, fixed) for t, s in zip(targets.T, scores.T, strict=True)])


def write(path: Path, model: str, chosen: Mapping[str, float], rule: str) -> None:
    """Write decision.json; `model` is the fingerprint of the model file that the thresholds belong to."""
    files.write_json(path, {"model": model, "rule": rule, "thresholds": dict(chosen)}, exact=True)


def read(path: Path, model: str, attributes: list[str]) -> np.ndarray:
    """Thresholds in the order of `attributes`; UserError where the file belongs to another model."""
    content: dict[str, Any] = files.read_json(path, "evaluate")
    if content.get("model") != model:
        raise UserError(f"{path} belongs to another model file; run 'dvc repro evaluate'")
    found = content.get("thresholds")
    if not isinstance(found, dict) or set(found) != set(attributes):
        raise UserError(f"{path} does not name the model's attributes; run 'dvc repro --force evaluate'")
    wrong = [name for name in attributes if not isinstance(found[name], int | float) or isinstance(found[name], bool)]
    if wrong:
        raise UserError(f"{path}: the threshold of '{wrong[0]}' is {found[wrong[0]]!r}, not a number; run 'dvc repro evaluate'")
    return np.array([float(found[name]) for name in attributes])
