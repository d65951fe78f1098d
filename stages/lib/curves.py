"""The tables that `dvc plots` draws from evaluate's scores, and the pictures of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from stages.lib import calibration, decisions, files, metrics, plots
from stages.lib.evidence import Outcome


def write(folder: Path, attributes: list[str], logits: np.ndarray, outcome: Outcome, table: pd.DataFrame) -> None:
    """Write {pr,roc,confusion,reliability,histogram,sweep}.{csv,png} and scores.png.

    `logits` (n_rows, n_attributes) are what the network says of the rows of `outcome`, `table` is attributes.csv.
    """
    probabilities = decisions.probabilities(outcome.log_odds)
    pr, roc = metrics.curves(attributes, outcome.targets, probabilities)
    confusion = metrics.confusion(attributes, outcome.targets, outcome.decided.astype(float))
    before, after = (
        calibration.reliability(attributes, outcome.targets, p).assign(probabilities=when)
        for when, p in (("uncorrected", decisions.probabilities(logits)), ("corrected and scaled", probabilities))
    )
    histogram = metrics.histogram(attributes, outcome.targets, probabilities)
    sweep = metrics.sweep(attributes, outcome.targets, probabilities, table["threshold"].to_numpy(float))
    tables = {"pr": pr, "roc": roc, "confusion": confusion, "reliability": pd.concat([before, after])}
    for name, content in (tables | {"histogram": histogram, "sweep": sweep}).items():
        files.write_table(folder / f"{name}.csv", content.round(4))
    plots.scores(folder / "scores.png", table)
    plots.curves(folder / "pr.png", pr, "recall", "precision", table, "ap", "Precision and recall, with AP")
    title = "ROC, with the area under it"
    plots.curves(folder / "roc.png", roc, "false_positive_rate", "true_positive_rate", table, "roc_auc", title)
    plots.confusion(folder / "confusion.png", confusion)
    plots.reliability(folder / "reliability.png", before, after)
    plots.histogram(folder / "histogram.png", histogram, table)
    plots.sweep(folder / "sweep.png", sweep)
