"""Scores over known labels only, per attribute and macro, each beside what a constant would get."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from stages.lib import loss, ranking

SCORES = ("ap", "roc_auc", "precision", "recall", "f1", "loss")


def average_precision(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """AP per attribute, shape (n_attributes,); NaN where one class only is known: any score would be right."""
    return _per_attribute(ranking.ap, targets, scores)


def roc_auc(targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """ROC-AUC per attribute, shape (n_attributes,); NaN where one class only is known."""
    return _per_attribute(ranking.auc, targets, scores)


def macro(values: np.ndarray) -> float:
    """Mean over the attributes where the score is defined; NaN where it is nowhere."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def mean_loss(logits: np.ndarray, targets: np.ndarray, pos_weight: np.ndarray) -> float:
    """Weighted loss over all known cells of a split: summed once, divided once. NaN where none is known."""
    cells = loss.cells(logits, targets, pos_weight)
    known = ~np.isnan(cells)
    return float(cells[known].sum() / known.sum()) if known.any() else float("nan")


def attribute_table(
    attributes: list[str],
    targets: np.ndarray,
    probabilities: np.ndarray,
    decisions: np.ndarray,
    losses: np.ndarray,
    constant_losses: np.ndarray,
) -> pd.DataFrame:
    """One row per attribute: supports, each score, and beside it the constant's.

    All arrays have shape (n_images, n_attributes); unknown targets and their losses are NaN, decisions are
    0 or 1. The constant gives every image the same probability: its AP is the share of positives, its
    ROC-AUC 0.5, its best F1 that of calling everything present, 2p / (1 + p).
    """
    rows = []
    ap, auc = average_precision(targets, probabilities), roc_auc(targets, probabilities)
    for column, name in enumerate(attributes):
        known = ~np.isnan(targets[:, column])
        truth, decided = targets[known, column], decisions[known, column]
        positive = int(truth.sum())
        row: dict[str, object] = {"attribute": name, "known": int(known.sum()), "positives": positive}
        row |= {"ap": ap[column], "ap_constant": _share(positive, known.sum())}
        row |= {"roc_auc": auc[column], "roc_auc_constant": 0.5 if not np.isnan(auc[column]) else np.nan}
        row |= _decision_scores(truth, decided)
        row["loss"] = _mean(losses[known, column])
        row["loss_constant"] = _mean(constant_losses[known, column])
        rows.append(row)
    return pd.DataFrame(rows)


def curves(attributes: list[str], targets: np.ndarray, scores: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Precision-recall and ROC points per attribute, long form; attributes where they are undefined are left out."""
    pr, roc = [], []
    for column, name in enumerate(attributes):
        known = ~np.isnan(targets[:, column])
        truth, score = targets[known, column], scores[known, column]
        if truth.sum() > 0:
            # Where nothing is called present, precision is drawn as 1.
            precision, recall, _ = ranking.precision_recall(truth, score)
            precision, recall = np.append(1, precision), np.append(0, recall)
            # `step` keeps the points in the order of the curve: a viewer would sort them by x.
            pr.append(pd.DataFrame({"attribute": name, "step": np.arange(len(recall)), "recall": recall, "precision": precision}))
        if 0 < truth.sum() < len(truth):
            false_rate, true_rate = ranking.roc(truth, score)
            points = {"step": np.arange(len(false_rate)), "false_positive_rate": false_rate, "true_positive_rate": true_rate}
            roc.append(pd.DataFrame({"attribute": name} | points))
    empty = pd.DataFrame(columns=["attribute"])
    return pd.concat(pr or [empty]), pd.concat(roc or [empty])


def confusion(attributes: list[str], targets: np.ndarray, decisions: np.ndarray) -> pd.DataFrame:
    """Counts of (actual, decided) per attribute over known labels, four rows each; `share` is of the actual ones."""
    words = {1: "present", 0: "absent"}
    rows = []
    for column, name in enumerate(attributes):
        for actual in (1, 0):
            for decided in (1, 0):
                count = int(((targets[:, column] == actual) & (decisions[:, column] == decided)).sum())
                of_actual = int((targets[:, column] == actual).sum())
                rows.append((name, words[actual], words[decided], count, count / max(of_actual, 1)))
    return pd.DataFrame(rows, columns=["attribute", "actual", "decided", "images", "share"])


def sweep(attributes: list[str], targets: np.ndarray, probabilities: np.ndarray, chosen: np.ndarray) -> pd.DataFrame:
    """Precision, recall and F1 per attribute at the thresholds 0, 0.01, ... 1, and at `chosen` (n_attributes,); long form.

    `targets` (NaN for unknown) and `probabilities` have shape (n_images, n_attributes). Attributes without a known positive
    are left out, and so is precision where nothing is called present. `chosen` is 1 in the rows of the threshold in use.
    """
    grid = np.arange(101) / 100
    rows: list[tuple[str, float, str, float, int]] = []
    for column, name in enumerate(attributes):
        known = ~np.isnan(targets[:, column])
        truth, score = targets[known, column], probabilities[known, column]
        if not truth.sum():
            continue
        for threshold, is_chosen in sorted([*((at, 0) for at in grid), (float(chosen[column]), 1)]):
            found = _decision_scores(truth, (score >= threshold).astype(float))
            values = ((what, found[what]) for what in ("precision", "recall", "f1"))
            rows += [(name, threshold, what, value, is_chosen) for what, value in values if not np.isnan(value)]
    return pd.DataFrame(rows, columns=["attribute", "threshold", "score", "value", "chosen"])


def histogram(attributes: list[str], targets: np.ndarray, probabilities: np.ndarray, bins: int = 20) -> pd.DataFrame:
    """Cells per attribute, label (present, absent, unknown) and bin of probability, long form; `share` is of the label's cells.

    Both arrays have shape (n_images, n_attributes), NaN for an unknown target.
    """
    edges = np.linspace(0, 1, bins + 1)
    rows = []
    for column, name in enumerate(attributes):
        target = targets[:, column]
        for label, inside in (("present", target == 1), ("absent", target == 0), ("unknown", np.isnan(target))):
            counts, _ = np.histogram(probabilities[inside, column], edges)
            rows += [(name, label, low, count, count / max(1, inside.sum())) for low, count in zip(edges, counts, strict=False)]
    return pd.DataFrame(rows, columns=["attribute", "label", "from", "cells", "share"])


def _per_attribute(score: Callable[[np.ndarray, np.ndarray], np.ndarray], targets: np.ndarray, scores: np.ndarray) -> np.ndarray:
    found = np.full(targets.shape[1], np.nan)
    for column in range(targets.shape[1]):
        known = ~np.isnan(targets[:, column])
        found[column] = score(*ranking.above(targets[known, column], scores[known, column]))[0]
    return found


def _decision_scores(truth: np.ndarray, decided: np.ndarray) -> dict[str, float]:
    """Precision, recall and F1; NaN where there is no positive (recall, F1) or none was decided (precision)."""
    hits, positive, called = (truth * decided).sum(), truth.sum(), decided.sum()
    rate = _share(positive, len(truth))
    f1 = 2 * hits / (positive + called) if positive else np.nan
    return {
        "precision": _share(hits, called),
        "recall": _share(hits, positive),
        "f1": f1,
        "f1_constant": 2 * rate / (1 + rate) if positive else np.nan,
    }


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
