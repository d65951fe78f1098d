"""Before the first epoch: do the labels carry a signal that the pretrained network can see?

Logistic regression on the frozen features, cross-validated over all rows but the test rows, takes seconds. Where it
is no better than a constant, hours of fine-tuning seldom are, and the user should know before they are spent.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from stages.lib import evidence, findings, loss, probe, splits, verdicts
from stages.lib.faults import shown

FOLDS = 5


def folds_of(parts: np.ndarray, folds: int, targets: np.ndarray, groups: np.ndarray, names: list[str], seed: int) -> np.ndarray:
    """Fold of every row for the cross-validation, shape (n_images,): those of the run, or five of its own; -1 for test rows."""
    if folds > 1:
        return np.asarray(parts).astype(int)
    found = np.full(len(parts), -1)
    rows = np.flatnonzero(np.asarray(parts) != "test")
    n_folds = min(FOLDS, len(np.unique(groups[rows])))
    shares = [1 / n_folds] * n_folds
    found[rows] = splits.deal(targets[rows], groups[rows], [names[row] for row in rows], shares, seed)
    return found


def listen(
    attributes: list[str], features: np.ndarray, targets: np.ndarray, groups: np.ndarray, fold_of: np.ndarray, seed: int
) -> tuple[pd.DataFrame, np.ndarray]:
    """Table of `evidence.assess` for the cross-validated regression, and its log-odds (n_images, n_attributes).

    Rows of fold -1 take no part; their log-odds are NaN.
    """
    rows = np.flatnonzero(fold_of >= 0)
    log_odds = np.full(targets.shape, np.nan)
    log_odds[rows] = probe.cross_validated(features[rows], targets[rows], fold_of[rows])
    rates = loss.base_rates(targets[rows])
    constant = np.broadcast_to(loss.best_constant(np.nan_to_num(rates, nan=0.5), np.array(1.0)), targets[rows].shape)
    heard = evidence.Outcome(targets[rows], log_odds[rows], log_odds[rows] >= 0, constant, groups[rows])
    table, _ = evidence.assess(attributes, heard, seed)
    table["ap_constant"] = rates
    return table, log_odds


def text(table: pd.DataFrame, n_images: int, seconds: float, random_weights: bool) -> str:
    """What was heard, in a few lines, with a plain warning where it was nothing."""
    lines = [
        f"early word: logistic regression on frozen features{' of RANDOM weights' if random_weights else ''}, "
        f"cross-validated over {n_images} images ({seconds:.0f} s)",
        f"  {'attribute':<20} {'AP':>5} (constant)  {'ROC-AUC [95 %]':<20} verdict",
    ]
    for row in table.head(20).to_dict("records"):
        word = verdicts.explained(row["verdict"], row["positives"], row["negatives"], int(table["p"].notna().sum()))
        auc = findings.ranged(row, "roc_auc")
        ap, constant = findings.number(row["ap"]), findings.number(row["ap_constant"])
        lines.append(f"  {shown(row['attribute'], 20):<20} {ap:>5} ({constant:>4})      {auc:<20} {word}")
    if len(table) > 20:
        lines.append(f"  and {len(table) - 20} more in metrics/early_word.csv")
    return "\n".join([*lines, *warning(table, random_weights)])


def warning(table: pd.DataFrame, random_weights: bool) -> list[str]:
    """Nothing where something is learned; else what the user should weigh before training."""
    if random_weights:
        return ["  features of random weights say little: what training makes of them is another matter"]
    if (table["verdict"] == verdicts.LEARNED).any():
        return []
    if (table["verdict"] == verdicts.WEAK).any():
        return ["  WARNING: at best weak evidence that the labels carry a signal: look at some of them before training for long"]
    if (table["verdict"] == verdicts.NOTHING).any():
        return [
            "  WARNING: on no attribute is this better than a constant. Fine-tuning seldom finds what features don't show:",
            "  look at some labelled pictures and at metrics/duplicates.csv (do copies agree?) before training for long",
        ]
    return ["  WARNING: too few known labels of both classes to tell whether there is a signal: label more"]
