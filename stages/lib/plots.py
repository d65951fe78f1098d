"""Figures for people, as PNG; the tables behind them are what `dvc plots` draws."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, or looked for

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from stages.lib import files

DPI = 110


def loss_curve(path: Path, iterations: pd.DataFrame, epochs: pd.DataFrame, constant: float) -> None:
    """Iteration against training loss, with the validation loss per epoch and the kept epoch marked.

    `constant` is the validation loss of the best constant. Folds are drawn over each other.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.axhline(constant, color="0.4", linestyle=":", label="constant (validation)")
    for number, (fold, rows) in enumerate(iterations.groupby("fold")):
        once = number == 0
        axes.plot(rows["iteration"], rows["loss"], color="tab:blue", alpha=0.25, linewidth=0.8)
        smooth = rows["loss"].ewm(span=max(2, len(rows) // 20)).mean()
        axes.plot(rows["iteration"], smooth, color="tab:blue", label="training, smoothed" if once else None)
        own = epochs[epochs["fold"] == fold]
        last = rows.groupby("epoch")["iteration"].max().reindex(own["epoch"]).to_numpy()
        axes.plot(last, own["val_loss"], "o-", color="tab:orange", markersize=4, label="validation" if once else None)
        best = int(np.argmin(own["val_loss"].to_numpy()))
        label = f"kept: epoch {own['epoch'].iloc[best]}" if iterations["fold"].nunique() == 1 else "kept" if once else None
        axes.plot(last[best], own["val_loss"].iloc[best], "*", color="tab:red", markersize=15, label=label)
    axes.set(xlabel="iteration", ylabel="weighted loss", title="Loss while training")
    # One wild batch must not flatten the rest.
    axes.set_ylim(0, max(1.5 * constant, iterations["loss"].quantile(0.99)))
    axes.legend(frameon=False)
    _save(figure, path)


def curves(path: Path, table: pd.DataFrame, x: str, y: str, attributes: pd.DataFrame, score: str, title: str) -> None:
    """One line per attribute (the first ten) from long-form `table`; `attributes` gives each one's `score`."""
    figure, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    values = attributes.set_index("attribute")[score]
    for name in list(pd.unique(table["attribute"]))[:10]:
        rows = table[table["attribute"] == name]
        axes.plot(rows[x], rows[y], label=f"{name}  {values[name]:.2f}", drawstyle="steps-post" if x == "recall" else None)
    if score == "roc_auc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if len(table):
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def confusion(path: Path, table: pd.DataFrame) -> None:
    """A 2 x 2 panel of counts per attribute, at most twelve."""
    names = list(pd.unique(table["attribute"]))[:12]
    across = min(4, len(names))
    down = -(-len(names) // across)
    figure, panels = plt.subplots(down, across, figsize=(2.6 * across, 3.0 * down), layout="constrained", squeeze=False)
    for panel in panels.flat[len(names) :]:
        panel.axis("off")
    for name, panel in zip(names, panels.flat, strict=False):
        counts = table[table["attribute"] == name]["images"].to_numpy().reshape(2, 2)
        shares = table[table["attribute"] == name]["share"].to_numpy().reshape(2, 2)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            panel.text(column, row, str(count), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black")
        panel.set(title=name, xticks=[0, 1], yticks=[0, 1], xticklabels=["present", "absent"], yticklabels=["present", "absent"])
        panel.tick_params(length=0)
        panel.set_yticklabels(["present", "absent"], rotation=90, va="center")
    figure.supxlabel("decided")
    figure.supylabel("actual")
    _save(figure, path)


def _save(figure: plt.Figure, path: Path) -> None:
    with files.replacing(path) as temporary:
        # Without metadata the same data gives the same bytes.
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
