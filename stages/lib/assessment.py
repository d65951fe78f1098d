"""All scores of evaluate in one table: intervals, verdicts, reference points, calibration, thresholds and their optimism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stages.lib import calibration, contrast, decisions, evidence, goals, metrics, splits
from stages.lib.held_out import Inputs, Scored

# Columns of the table whose macro score is the plain mean over attributes; those with an interval have one of their own.
AVERAGED = (
    *("ap_constant", "roc_auc_constant", "f1_constant", "precision", "recall"),
    *("ece_raw", "ece", "brier_raw", "brier", "goal_tuned", "goal_tested", "optimism"),
)


def assessed(
    inputs: Inputs,
    settings: Any,
    tested: Scored,
    tuned: Scored,
    outcome: evidence.Outcome,
    chosen: decisions.Decision,
    goal: decisions.Goal,
    regression: np.ndarray,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Every score per attribute, and the macro scores: intervals, verdicts, reference points, calibration, optimism.

    `regression` is of `features_log_odds`.
    """
    attributes = inputs.saved.attributes
    probabilities = decisions.probabilities(outcome.log_odds)
    table = metrics.attribute_table(
        attributes, outcome.targets, probabilities, outcome.decided.astype(float), tested.losses, tested.constant_losses
    )
    sure, macro = evidence.assess(attributes, outcome, settings.seed)
    table = table.assign(**{name: sure[name] for name in sure if name != "attribute"})
    raw = decisions.probabilities(tested.logits)
    table["ece_raw"], table["ece"] = (calibration.ece(outcome.targets, p) for p in (raw, probabilities))
    table["brier_raw"], table["brier"] = (calibration.brier(outcome.targets, p) for p in (raw, probabilities))
    table["temperature"], table["threshold"], table["goal_reached"] = chosen.temperature, chosen.threshold, chosen.reached
    table["goal_tuned"] = goals.achieved(inputs.targets[tuned.rows], chosen.decided(tuned.log_odds), goal.name)
    table["goal_tested"] = goals.achieved(outcome.targets, outcome.decided, goal.name)
    table["optimism"] = table["goal_tuned"] - table["goal_tested"]
    macro |= {name: metrics.macro(table[name].to_numpy(float)) for name in AVERAGED}
    asked = regression[tested.rows]
    by_features = evidence.Outcome(outcome.targets, asked, asked >= 0, outcome.constant, outcome.groups)
    beside = contrast.contrast(attributes, outcome, by_features, settings.seed).set_index("score")
    for name in ("ap", "roc_auc", "skill"):
        found = beside.loc[name, "other"].to_numpy(float)
        table[f"{name}_features"], macro[f"{name}_features"] = found[:-1], float(found[-1])
    known = ~np.isnan(tested.losses)
    macro["loss"], macro["loss_constant"] = (
        float(values[known].mean()) if known.any() else float("nan") for values in (tested.losses, tested.constant_losses)
    )
    table["next_to_features"] = beside.loc["ap", "word"].to_numpy()[:-1]
    gain = beside.loc["ap"].iloc[-1]
    macro |= {
        f"ap_gain_features{end}": float(gain[name]) for end, name in (("", "difference"), ("_low", "low"), ("_high", "high"))
    }
    if settings.folds > 1:
        by_fold = ap_by_fold(outcome, tested.member)
        macro |= {"ap_fold_mean": float(by_fold.mean()), "ap_fold_std": float(by_fold.std(ddof=1))}
    return table, macro


def features_log_odds(inputs: Inputs, folds: int) -> np.ndarray:
    """Log-odds (n_images, n_attributes) of logistic regression on the frozen features, fitted on the rows that each network
    was fitted on, for the rows that this network is tested on; NaN for rows that are tested by none."""
    log_odds = np.full(inputs.targets.shape, np.nan)
    for fold, regression in enumerate(inputs.regressions):
        rows = splits.roles(inputs.parts, folds, fold) == "test"
        log_odds[rows] = regression.log_odds(inputs.features[rows])
    return log_odds


def ap_by_fold(outcome: evidence.Outcome, member: np.ndarray) -> np.ndarray:
    """Macro AP of each fold's rows by themselves, shape (n_folds,), over the attributes that are defined in all folds."""
    each = [member == number for number in np.unique(member)]
    scores = np.array([metrics.average_precision(outcome.targets[rows], outcome.log_odds[rows]) for rows in each])
    everywhere = ~np.isnan(scores).any(axis=0)
    return scores[:, everywhere].mean(axis=1) if everywhere.any() else np.full(len(each), np.nan)
