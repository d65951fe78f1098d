"""Say what the labels carry, how good the model is and how sure that is; choose thresholds; show what a person should see.

    python -m stages.evaluate

Reads   models/model.pth, data/clean/{labels.csv, pixels.npy, splits.csv}, data/frozen.safetensors, metrics/stats.json,
        metrics/early_word.csv, params.yaml (seed, folds, data.labels, train.device, evaluate)
Writes  models/decision.json       all from logits to decisions, tuned on rows that are not scored with it
        models/MODEL_CARD.md       use, data, scores, thresholds and limits, for who gets the model
        metrics/evaluation.json    every score with its interval, the verdicts; metrics/scores.json: the few to compare by
        metrics/attributes.csv     the same per attribute, beside a constant and logistic regression on frozen features
        metrics/predictions.csv    label, probability and decision of every scored row
        metrics/review.csv         labels that the models contradict, and unknown ones of which they are sure
        metrics/{pr,roc,confusion,reliability,histogram,sweep}.{csv,png}, metrics/scores.png
        metrics/errors.png, metrics/uncertain.png   the cells most worth a look, with Grad-CAM

With one split the scored rows are the test rows; with folds every row is scored by the model that has not
seen it (out of fold).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stages.lib import (
    assessment,
    card,
    curves,
    decisions,
    evidence,
    files,
    findings,
    fusing,
    galleries,
    gradcam,
    held_out,
    inference,
    labels,
    memory,
    model_file,
    params,
    pixels,
    preprocessing,
    probe,
    review,
    splits,
    verdicts,
)
from stages.lib import model as models
from stages.lib.errors import UserError, run_stage

READS = ("seed", "folds", "data.labels", "train.device", "evaluate")


def main() -> None:
    args = arguments()
    memory.keep_freed()
    settings = params.load(args.params, READS)
    goal = decisions.Goal(settings.evaluate.threshold, settings.evaluate.minimum, settings.evaluate.fixed_threshold)
    inputs = read_inputs(args, settings.folds)
    device = inference.device_of(settings.train.device)
    networks = inputs.saved.networks()
    tested, tuned = scored(inputs, networks, settings.folds, device)
    chosen = decisions.tune(inputs.targets[tuned.rows], tuned.log_odds, inputs.groups[tuned.rows], goal)
    outcome = held_out.outcome_of(inputs, tested, chosen, goal, settings.folds)
    regression = assessment.features_log_odds(inputs, settings.folds)
    table, macro = assessment.assessed(inputs, settings, tested, tuned, outcome, chosen, goal, regression)

    models_shift = np.stack([inputs.saved.log_pos_weight(member) for member in range(settings.folds)])
    fingerprint = files.fingerprint(args.model)
    decisions.write(args.decision, fingerprint, inputs.saved.attributes, models_shift, chosen, goal)
    files.write_json(args.metrics / "evaluation.json", findings.figures(table, macro, len(tested.rows)))
    files.write_json(args.metrics / "scores.json", findings.scores(table, macro))
    files.write_table(args.metrics / "attributes.csv", table.round(4))
    write_predictions(args.metrics / "predictions.csv", inputs, tested, outcome)
    curves.write(args.metrics, inputs.saved.attributes, tested.logits, outcome, table)
    files.write_text(args.card, card.text(subject_of(inputs, settings, fingerprint, len(tested.rows), goal), table, macro))
    early_verdicts = files.read_table(args.metrics / "early_word.csv", "train")["verdict"]
    looked_at = tested if settings.folds > 1 else held_out.joined([tested, tuned])
    write_to_look_at(args.metrics, inputs, looked_at, chosen, table, networks, device, regression, early_verdicts)
    print(findings.summary(table, macro, where(len(tested.rows), settings.folds), goal_in_words(goal)))
    print(f"  to look at: {args.metrics}/scores.png, errors.png, uncertain.png; labels to check: {args.metrics}/review.csv")
    print(f"  what the model is good for, to hand on with it: {args.card}")


def scored(
    inputs: held_out.Inputs, networks: list[models.Network], folds: int, device: torch.device
) -> tuple[held_out.Scored, held_out.Scored]:
    """The rows that are tested, each by the model that has not seen it, and those that thresholds are tuned on."""
    parts = []
    for fold, network in enumerate(networks):
        # A copy for the time it is needed: there may be many folds.
        at_work = fusing.at_work(network, inputs.saved.preprocessing.resolution, device)
        parts.append(held_out.score(inputs, at_work, folds, fold, "test", device))
    tested = held_out.joined(parts)
    return tested, held_out.score(inputs, at_work, 1, 0, "val", device) if folds == 1 else tested


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", type=Path, default=Path("data/clean"), help="folder that validate and stats have filled")
    parser.add_argument(
        "--frozen", type=Path, default=Path("data/frozen.safetensors"), help="the frozen features that train has kept"
    )
    parser.add_argument("--model", type=Path, default=Path("models/model.pth"))
    parser.add_argument("--decision", type=Path, default=Path("models/decision.json"), help="where the thresholds go")
    parser.add_argument("--card", type=Path, default=Path("models/MODEL_CARD.md"), help="where the model card goes")
    parser.add_argument("--metrics", type=Path, default=Path("metrics"), help="folder for figures, and of stats.json")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    return parser.parse_args()


def read_inputs(args: argparse.Namespace, folds: int) -> held_out.Inputs:
    saved = model_file.load(args.model)
    table = files.read_table(args.clean / "labels.csv", "validate")
    split = files.read_table(args.clean / "splits.csv", "stats")
    store = pixels.read(args.clean / "pixels.npy")
    names = ("features", "log_odds", "weights", "bias", "split")
    features, early, weights, bias, split_then = files.read_arrays(args.frozen, "train", *names)
    rows_agree = list(split["image"]) == list(table["image"]) and len(store) == len(features) == len(early) == len(table)
    folds_agree = len(saved.members) == len(weights) == len(bias) == folds
    if saved.attributes != labels.attributes_of(table) or not folds_agree or not rows_agree:
        raise UserError(f"{args.model} was trained on other attributes, folds or images; run 'dvc repro'")
    if bytes(split_then) != bytes(splits.fingerprint(list(split["image"]), split["part"].to_numpy())):
        found = "was trained on another split, and test images may be among its training images"
        raise UserError(f"{args.model} {found}; run 'dvc repro'")
    targets, groups, parts = table[saved.attributes].to_numpy(float), split["group"].to_numpy(), split["part"].to_numpy()
    stats = files.read_json(args.metrics / "stats.json", "stats")
    regressions = [probe.Regression(*each) for each in zip(weights, bias, strict=True)]
    return held_out.Inputs(saved, store, list(table["image"]), targets, groups, parts, stats, features, early, regressions)


def subject_of(inputs: held_out.Inputs, settings: Any, fingerprint: str, n_scored: int, goal: decisions.Goal) -> card.Subject:
    saved, labelled = inputs.saved, (settings.data.labels, inputs.targets, inputs.groups)
    made = (fingerprint, saved.backbone, saved.preprocessing, saved.settings)
    share = float(np.mean([member.share for member in saved.members]))
    return card.Subject(*made, *labelled, n_scored, settings.folds, goal_in_words(goal), saved.n_networks(), share)


def write_predictions(path: Path, inputs: held_out.Inputs, tested: held_out.Scored, outcome: evidence.Outcome) -> None:
    """One row per image and attribute."""
    n_images, n_attributes = outcome.targets.shape
    columns = {
        "image": np.repeat([inputs.names[row] for row in tested.rows], n_attributes),
        "group": np.repeat(outcome.groups, n_attributes),
        "attribute": np.tile(inputs.saved.attributes, n_images),
        "label": pd.array(outcome.targets.ravel(), dtype="Int8"),
        "log_odds": outcome.log_odds.ravel().round(6),
        "probability": decisions.probabilities(outcome.log_odds).ravel().round(6),
        "decision": outcome.decided.ravel().astype(int),
        "base_rate": decisions.probabilities(outcome.constant).ravel().round(6),
    }
    files.write_table(path, pd.DataFrame(columns))


def write_to_look_at(
    folder: Path,
    inputs: held_out.Inputs,
    scored: held_out.Scored,
    chosen: decisions.Decision,
    table: pd.DataFrame,
    networks: list[models.Network],
    device: torch.device,
    regression: np.ndarray,
    early_verdicts: pd.Series,
) -> None:
    """The review table, and the two galleries. Attributes without a sign of signal are left out: doubts mean nothing there.

    Two models that err in different ways judge the held-out rows for the review: the mean of their log-odds. Training rows
    have only been kept from the cross-validated regression.
    """
    attributes = inputs.saved.attributes
    worth = verdicts.some_signal(table["verdict"])
    # Rows that only the regression judges count where the regression has found something.
    worth_of_row = np.tile(verdicts.some_signal(early_verdicts), (len(inputs.names), 1))
    worth_of_row[scored.rows] = worth
    log_odds = np.where(np.isnan(regression), inputs.early, regression)
    seen_by = np.full(len(inputs.names), "regression on frozen features", dtype=object)
    log_odds[scored.rows] = (log_odds[scored.rows] + chosen.calibrated(scored.log_odds)) / 2
    seen_by[scored.rows] = "network and regression"
    listed = review.table(inputs.names, attributes, inputs.targets, log_odds, seen_by, worth_of_row)
    files.write_table(folder / "review.csv", listed)

    targets = inputs.targets[scored.rows]
    calibrated = np.where(worth, chosen.calibrated(scored.log_odds), np.nan)
    with np.errstate(divide="ignore"):
        at_threshold = np.log(chosen.threshold) - np.log1p(-chosen.threshold)
    errors = galleries.confident_errors(np.where(worth, targets, np.nan), decisions.probabilities(calibrated))
    uncertain = galleries.least_certain(targets, calibrated, at_threshold)
    for name, cells, heading, nothing in (
        ("errors", errors, "Most confident errors: a wrong label, or something to learn from", "no confident errors"),
        ("uncertain", uncertain, "Least certain of the held-out images, unknown labels first", "no uncertain cells"),
    ):
        described = [described_cell(inputs, scored, calibrated, cell) for cell in cells]
        heat = heat_of(cells, inputs, scored, networks, device)
        galleries.sheet(folder / f"{name}.png", described, lambda row: picture(inputs, scored, row), heat, heading, nothing)


def described_cell(
    inputs: held_out.Inputs, scored: held_out.Scored, log_odds: np.ndarray, cell: tuple[int, int]
) -> galleries.Cell:
    row, column = cell
    label = inputs.targets[scored.rows[row], column]
    word = "not labelled" if np.isnan(label) else "labelled present" if label else "labelled absent"
    probability = float(decisions.probabilities(log_odds[row, column]))
    title = f"{inputs.saved.attributes[column]}: {word}, model says {probability:.0%}"
    return galleries.Cell(row, column, title, inputs.names[scored.rows[row]])


def picture(inputs: held_out.Inputs, scored: held_out.Scored, row: int) -> np.ndarray:
    return preprocessing.seen(inputs.store[scored.rows[row]][None], inputs.saved.preprocessing)[0]


def heat_of(
    cells: list[tuple[int, int]],
    inputs: held_out.Inputs,
    scored: held_out.Scored,
    networks: list[models.Network],
    device: torch.device,
) -> np.ndarray:
    """Grad-CAM of every cell by the model that has not seen its picture, shape (n_cells, resolution, resolution)."""
    how = inputs.saved.preprocessing
    heat = np.zeros((len(cells), how.resolution, how.resolution), dtype=np.float32)
    for member, network in enumerate(networks):
        own = [index for index, (row, _) in enumerate(cells) if scored.member[row] == member]
        if own:
            pictures = np.stack([inputs.store[scored.rows[cells[index][0]]] for index in own])
            heat[own] = gradcam.heatmap(network.to(device), pictures, [cells[index][1] for index in own], how, device)
    return heat


def where(n_images: int, folds: int) -> str:
    return f"{n_images} images, each by the model that has not seen it" if folds > 1 else f"{n_images} test images"


def goal_in_words(goal: decisions.Goal) -> str:
    words = {"f1": "the best F1", "fixed": f"a fixed {goal.fixed:g} (F1)"}
    return words.get(goal.name, f"a {goal.name} of at least {goal.minimum:g}")


if __name__ == "__main__":
    run_stage(main)
