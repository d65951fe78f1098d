"""All scores of evaluate in one table: intervals, verdicts, reference points, calibration, thresholds and their optimism."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stages.lib import calibration, contrast, decisions, evidence, goals, metrics, probe, splits
from stages.lib.held_out import Inputs, Scored


def assessed(
    inputs: Inputs,
    settings: Any,
    tested: Scored,
    tuned: Scored,
    outcome: evidence.Outcome,
    chosen: decisions.Decision,
    goal: decisions.Goal,
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Every score per attribute, and the macro scores: intervals, verdicts, reference points, calibration, optimism."""
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
    beside = beside_features(inputs, tested, outcome, settings)
    for name in ("ap", "roc_auc", "skill"):
        each = beside[(beside["score"] == name) & ~beside["macro"]]
        table[f"{name}_features"] = each["other"].to_numpy()
    own = [name for name in table if name not in macro and name not in ("attribute", "verdict", "p", "goal_reached")]
    macro |= {name: metrics.macro(table[name].to_numpy(float)) for name in own if name not in ("known", "positives", "negatives")}
    known = ~np.isnan(tested.losses)
    macro["loss"], macro["loss_constant"] = (
        float(values[known].mean()) if known.any() else float("nan") for values in (tested.losses, tested.constant_losses)
    )
    gain = beside[(beside["score"] == "ap") & beside["macro"]].iloc[0]
    macro |= {
        f"ap_gain_features{end}": float(gain[name]) for end, name in (("", "difference"), ("_low", "low"), ("_high", "high"))
    }
    if settings.folds > 1:
        by_fold = ap_by_fold(outcome, tested.member)
        macro |= {"ap_fold_mean": float(np.nanmean(by_fold)), "ap_fold_std": float(np.nanstd(by_fold, ddof=1))}
    return table, macro


def beside_features(inputs: Inputs, tested: Scored, outcome: evidence.Outcome, settings: Any) -> pd.DataFrame:
    """The model against logistic regression on the frozen features, fitted and scored on the same rows."""
    log_odds = np.full(inputs.targets.shape, np.nan)
    for fold in range(settings.folds):
        roles = splits.roles(inputs.parts, settings.folds, fold)
        log_odds[roles == "test"] = probe.tested(inputs.features, inputs.targets, roles)
    found = log_odds[tested.rows]
    regression = evidence.Outcome(outcome.targets, found, found >= 0, outcome.constant, outcome.groups)
    return contrast.contrast(inputs.saved.attributes, outcome, regression, settings.seed)


def ap_by_fold(outcome: evidence.Outcome, member: np.ndarray) -> np.ndarray:
    """Macro AP of each fold's rows by themselves, shape (n_folds,)."""
    each = [member == number for number in np.unique(member)]
    return np.array([metrics.macro(metrics.average_precision(outcome.targets[rows], outcome.log_odds[rows])) for rows in each])
