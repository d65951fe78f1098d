"""Score the model on rows it has never seen, beside a constant; choose the thresholds that decisions use.

    python -m stages.evaluate

Reads   models/model.pth, data/clean/{labels.csv, pixels.npy, splits.csv}, metrics/stats.json,
        params.yaml (folds, train.device, evaluate)
Writes  models/decision.json       a threshold per attribute, tuned on rows that are not scored with it
        metrics/evaluation.json    macro scores beside the constant's, AP per attribute
        metrics/attributes.csv     every score per attribute, with supports
        metrics/predictions.csv    label, probability and decision of every scored row
        metrics/{pr,roc,confusion}.{csv,png}

With one split the scored rows are the test rows; with folds every row is scored by the model that has not
seen it (out of fold).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.lib import decisions, files, inference, labels, loss, memory, metrics, params, pixels, plots, splits
from stages.lib import model as models
from stages.lib.errors import UserError, run_stage

READS = ("folds", "train.device", "evaluate")


@dataclass(frozen=True)
class Inputs:
    """The model and the rows: `targets` (n, n_attributes) with NaN for unknown, `parts` (n,), `store` the pixels."""

    saved: models.Saved
    store: pixels.Store
    names: list[str]
    targets: np.ndarray
    parts: np.ndarray
    stats: dict[str, Any]


@dataclass(frozen=True)
class Scored:
    """Rows with the outputs of models that have not seen them; arrays are (n_rows, n_attributes).

    `log_odds` are corrected for pos_weight, `losses` and `constant_losses` are weighted, NaN where unknown.
    """

    rows: np.ndarray
    log_odds: np.ndarray
    losses: np.ndarray
    constant_losses: np.ndarray


def main() -> None:
    args = arguments()
    memory.keep_freed()
    settings = params.load(args.params, READS)
    inputs = read_inputs(args, settings.folds)
    device = inference.device_of(settings.train.device)
    networks = inputs.saved.networks()
    tested = joined([score(inputs, networks, settings.folds, fold, "test", device) for fold in range(settings.folds)])
    targets = inputs.targets[tested.rows]
    probabilities = decisions.probabilities(tested.log_odds)
    if settings.folds == 1:
        tuning = score(inputs, networks, 1, 0, "val", device)
        chosen = tune(inputs.targets[tuning.rows], decisions.probabilities(tuning.log_odds), settings.evaluate)
        decided = probabilities >= chosen
    else:
        chosen = tune(targets, probabilities, settings.evaluate)
        decided = decided_out_of_fold(targets, probabilities, inputs.parts[tested.rows].astype(int), settings.evaluate)
    table = metrics.attribute_table(
        inputs.saved.attributes, targets, probabilities, decided.astype(float), tested.losses, tested.constant_losses
    )
    table["threshold"] = chosen
    by_fold = ap_by_fold(targets, probabilities, inputs.parts[tested.rows]) if settings.folds > 1 else np.empty(0)
    write_outputs(args, inputs, tested, targets, probabilities, decided, table, by_fold, settings.evaluate.threshold)
    print(summary(table, len(tested.rows), by_fold))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, default=Path("data/clean"), help="folder that validate and stats have filled")
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--decision", type=Path, default=Path("models/decision.json"), help="where the thresholds go")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for figures, and of stats.json")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def read_inputs(args: argparse.Namespace, folds: int) -> Inputs:
    saved = models.load(args.model)
    table = files.read_table(args.clean / "labels.csv", "validate")
    split = files.read_table(args.clean / "splits.csv", "stats")
    store = pixels.read(args.clean / "pixels.npy")
    rows_agree = list(split["image"]) == list(table["image"]) and len(store) == len(table)
    if saved.attributes != labels.attributes_of(table) or len(saved.members) != folds or not rows_agree:
        raise UserError(f"{args.model} was trained on other attributes, folds or images; run 'dvc repro'")
    targets = table[saved.attributes].to_numpy(float)
    stats = files.read_json(args.metrics / "stats.json", "stats")
    return Inputs(saved, store, list(table["image"]), targets, split["part"].to_numpy(), stats)


def score(inputs: Inputs, networks: list[models.Tagger], folds: int, fold: int, role: str, device: torch.device) -> Scored:
    """Member `fold` on its rows of `role`."""
    rows = np.flatnonzero(splits.roles(inputs.parts, folds, fold) == role)
    logits = inference.logits(networks[fold].to(device), inputs.store, rows, inputs.saved.preprocessing, device)
    shift = inputs.saved.log_pos_weight(fold)
    weight = np.exp(shift)
    constant = np.broadcast_to(loss.constant_of(inputs.stats["models"][fold], inputs.saved.attributes), logits.shape)
    targets = inputs.targets[rows]
    return Scored(
        rows, decisions.corrected(logits, shift), loss.cells(logits, targets, weight), loss.cells(constant, targets, weight)
    )


def joined(parts: list[Scored]) -> Scored:
    """The rows of several members, in the order of the table."""
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    names = ("rows", "log_odds", "losses", "constant_losses")
    return Scored(*(np.concatenate([getattr(part, name) for part in parts])[order] for name in names))


def tune(targets: np.ndarray, probabilities: np.ndarray, settings: params.Evaluate) -> np.ndarray:
    return decisions.thresholds(targets, probabilities, settings.threshold, settings.fixed_threshold)


def decided_out_of_fold(
    targets: np.ndarray, probabilities: np.ndarray, fold_of: np.ndarray, settings: params.Evaluate
) -> np.ndarray:
    """Decisions on each fold by thresholds tuned on the others: no row is scored with a threshold it has shaped."""
    decided = np.zeros(targets.shape, dtype=bool)
    for fold in np.unique(fold_of):
        own = fold_of == fold
        decided[own] = probabilities[own] >= tune(targets[~own], probabilities[~own], settings)
    return decided


def write_outputs(
    args: argparse.Namespace,
    inputs: Inputs,
    tested: Scored,
    targets: np.ndarray,
    probabilities: np.ndarray,
    decided: np.ndarray,
    table: pd.DataFrame,
    by_fold: np.ndarray,
    rule: str,
) -> None:
    attributes = inputs.saved.attributes
    fingerprint = files.fingerprint(args.model)
    decisions.write(args.decision, fingerprint, dict(zip(attributes, map(float, table["threshold"]), strict=True)), rule)
    files.write_json(args.metrics / "evaluation.json", figures(table, tested, by_fold))
    files.write_table(args.metrics / "attributes.csv", table.round(4))
    names = [inputs.names[row] for row in tested.rows]
    files.write_table(args.metrics / "predictions.csv", long_predictions(names, attributes, targets, probabilities, decided))
    pr, roc = metrics.curves(attributes, targets, probabilities)
    files.write_table(args.metrics / "pr.csv", pr.round(4))
    files.write_table(args.metrics / "roc.csv", roc.round(4))
    plots.curves(args.metrics / "pr.png", pr, "recall", "precision", table, "ap", "Precision and recall, with AP")
    plots.curves(
        args.metrics / "roc.png",
        roc,
        "false_positive_rate",
        "true_positive_rate",
        table,
        "roc_auc",
        "ROC, with the area under it",
    )
    confusion = metrics.confusion(attributes, targets, decided.astype(float))
    files.write_table(args.metrics / "confusion.csv", confusion)
    plots.confusion(args.metrics / "confusion.png", confusion)


def ap_by_fold(targets: np.ndarray, probabilities: np.ndarray, fold_of: np.ndarray) -> np.ndarray:
    """Macro AP of each fold's rows by themselves, shape (n_folds,)."""
    each = [fold_of == fold for fold in np.unique(fold_of)]
    return np.array([metrics.macro(metrics.average_precision(targets[rows], probabilities[rows])) for rows in each])


def figures(table: pd.DataFrame, tested: Scored, by_fold: np.ndarray) -> dict[str, float]:
    """Macro scores, the loss over all known cells, each beside the constant's, and AP per attribute.

    A score that is defined for no attribute is left out; `attributes_scored` counts those that have an AP.
    """
    names = ("ap", "ap_constant", "roc_auc", "precision", "recall", "f1", "f1_constant")
    found: dict[str, float] = {name: metrics.macro(table[name].to_numpy(float)) for name in names}
    known = ~np.isnan(tested.losses)
    if known.any():
        found["loss"] = float(tested.losses[known].mean())
        found["loss_constant"] = float(tested.constant_losses[known].mean())
    found |= {"images": len(tested.rows), "attributes_scored": int(table["ap"].notna().sum())}
    if len(by_fold):
        found |= {"ap_fold_mean": float(np.nanmean(by_fold)), "ap_fold_std": float(np.nanstd(by_fold, ddof=1))}
    found |= {f"ap_{row.attribute}": row.ap for row in table.itertuples()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def long_predictions(
    names: list[str], attributes: list[str], targets: np.ndarray, probabilities: np.ndarray, decided: np.ndarray
) -> pd.DataFrame:
    """One row per image and attribute."""
    shape = targets.shape
    columns = {
        "image": np.repeat(names, shape[1]),
        "attribute": np.tile(attributes, shape[0]),
        "label": pd.array(targets.ravel(), dtype="Int8"),
        "probability": probabilities.ravel().round(6),
        "decision": decided.ravel().astype(int),
    }
    return pd.DataFrame(columns)


def summary(table: pd.DataFrame, n_images: int, by_fold: np.ndarray) -> str:
    """Scores per attribute, each with what a constant gets in brackets."""
    where = f"{n_images} images, each by the model that has not seen it" if len(by_fold) else f"{n_images} test images"
    lines = [f"scores on {where}; in brackets what a constant gets"]
    lines.append(f"  {'attribute':<20} {'known':>5} {'present':>7}  {'AP':<13} {'ROC-AUC':<13} {'F1':<13} {'loss':<13} threshold")
    for row in table.head(20).itertuples():
        pairs = (
            (row.ap, row.ap_constant),
            (row.roc_auc, row.roc_auc_constant),
            (row.f1, row.f1_constant),
            (row.loss, row.loss_constant),
        )
        cells = "".join(f"{beside(*pair):<14}" for pair in pairs)
        lines.append(f"  {row.attribute[:20]:<20} {row.known:>5} {row.positives:>7}  {cells}{row.threshold:.2f}")
    if len(table) > 20:
        lines.append(f"  and {len(table) - 20} more in metrics/attributes.csv")
    means = [metrics.macro(table[name].to_numpy(float)) for name in ("ap", "ap_constant", "roc_auc", "f1", "f1_constant")]
    lines.append(f"  macro: AP {beside(means[0], means[1])}, ROC-AUC {beside(means[2], 0.5)}, F1 {beside(means[3], means[4])}")
    if len(by_fold):
        lines.append(f"  macro AP over {len(by_fold)} folds: {np.nanmean(by_fold):.3f} ± {np.nanstd(by_fold, ddof=1):.3f}")
    return "\n".join(lines)


def beside(score: float, constant: float) -> str:
    return "undefined" if np.isnan(score) else f"{score:.3f} ({constant:.3f})"


if __name__ == "__main__":
    run_stage(main)
