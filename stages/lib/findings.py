"""What evaluate tells: the table of all scores per attribute, the JSON for machines, and the lines for people."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stages.lib import verdicts
from stages.lib.faults import shown


def figures(table: pd.DataFrame, macro: dict[str, float], n_images: int) -> dict[str, Any]:
    """The content of evaluation.json: everything, undefined scores left out (DVC can't compare NaN)."""
    rows = table.set_index("attribute").to_dict("index")
    per_attribute = {str(name): _defined(row) for name, row in rows.items()}
    counts = verdicts.counts(table["verdict"].to_numpy())
    return {"images": n_images, "verdicts": counts, "macro": _defined(macro), "attributes": per_attribute}


def scores(table: pd.DataFrame, macro: dict[str, float]) -> dict[str, float]:
    """The content of scores.json: the few numbers by which experiments are compared in a narrow table."""
    names = ("ap", "ap_low", "ap_high", "ap_constant", "ap_features", "roc_auc", "f1", "skill")
    learned = int((table["verdict"] == verdicts.LEARNED).sum())
    more = [name for name in ("ap_fold_mean", "ap_fold_std") if name in macro]
    return _defined({name: macro[name] for name in (*names, *more)}) | {"learned": learned}


def _defined(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not (isinstance(value, float) and np.isnan(value))}


def summary(table: pd.DataFrame, macro: dict[str, float], where: str, goal: str, most: int = 20) -> str:
    """Scores with intervals, reference points beside them, and the verdict of each attribute."""
    lines = [
        f"scores on {where}; [95 % intervals]; beside AP that of a constant and of logistic regression on frozen features",
        f"  {'attribute':<20} {'known':>5} {'present':>7}  {'AP':<19} {'const':>5} {'feat.':>5}  "
        f"{'ROC-AUC':<19} {'skill':<20} verdict",
    ]
    for row in table.head(most).to_dict("records"):
        lines.append(
            f"  {shown(row['attribute'], 20):<20} {row['known']:>5} {row['positives']:>7}  {_cells(row)} {row['verdict']}"
        )
    if len(table) > most:
        lines.append(f"  and {len(table) - most} more in metrics/attributes.csv")
    tested = int(table["p"].notna().sum())
    counts = verdicts.counts(table["verdict"].to_numpy())
    verdict = ", ".join(f"{count} {word}" for word, count in counts.items() if count)
    lines.append(f"  {'macro':<20} {'':>5} {'':>7}  {_cells(macro)} {verdict}")
    lines += [
        f"  {shown(row['attribute'], 20)}: {verdicts.explained(row['verdict'], row['positives'], row['negatives'], tested)}"
        for row in table[table["verdict"] == verdicts.TOO_FEW].head(most).to_dict("records")
    ]
    lines.append(
        "  skill: share of the constant's log loss that is gone. "
        f"Fine-tuning beside the features: AP {_signed(macro['ap_gain_features'])} "
        f"[{_signed(macro['ap_gain_features_low'])}, {_signed(macro['ap_gain_features_high'])}]"
    )
    lines.append(
        f"  thresholds for {goal}: {number(macro['goal_tuned'])} on the images they were tuned on, "
        f"{number(macro['goal_tested'])} on these (optimism {_signed(macro['optimism'])})"
    )
    missed = [shown(name, 20) for name in table.loc[~table["goal_reached"].astype(bool), "attribute"]]
    if missed:
        lines.append(f"  the goal was NOT reached on the images they were tuned on by: {', '.join(missed[:most])}")
    lines.append(
        f"  calibration error (ECE) {number(macro['ece_raw'])} uncorrected, "
        f"{number(macro['ece'])} corrected and scaled; Brier score {number(macro['brier_raw'])} and {number(macro['brier'])}"
    )
    if "ap_fold_mean" in macro:
        spread = f"{number(macro['ap_fold_mean'])} ± {number(macro['ap_fold_std'])}"
        lines.append(f"  macro AP of each fold by itself: {spread}; above, the probabilities of all models are ranked together")
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> str:
    constant, features = number(row["ap_constant"]), number(row["ap_features"])
    return f"{ranged(row, 'ap'):<19} {constant:>5} {features:>5}  {ranged(row, 'roc_auc'):<19} {ranged(row, 'skill'):<20}"


def ranged(row: dict[str, Any], name: str) -> str:
    """A score and its interval, of a row of the table; the interval is left out where it is undefined."""
    if np.isnan(row[name]):
        return "undefined"
    ends = f" [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]" if not np.isnan(row[f"{name}_low"]) else ""
    return f"{row[name]:.2f}{ends}"


def number(value: float) -> str:
    """Two digits, or a dash where the value is undefined."""
    return "-" if np.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:+.2f}"
