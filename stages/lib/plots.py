"""Figures for people, as PNG; the tables behind them are what `dvc plots` draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no display is needed, or looked for

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from stages.lib import files

DPI = 110
HALVES = [0, 0.5, 1]  # ticks of small panels; labels of ticks are most of the work of a figure


DASHES = ("-", "--", "-.", ":")


def loss_curve(path: Path, iterations: pd.DataFrame, epochs: pd.DataFrame, constant: float, kept: Sequence[int]) -> None:
    """Iteration against training loss, with the validation loss per epoch and the kept epoch marked.

    `kept` is the epoch of each fit (every network of every fold), 0 for one that was best before it was trained, which no
    point stands for.
    `constant` is the validation loss of the best constant. Fits are drawn over each other, with dashes of their own.
    """
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.axhline(constant, color="0.4", linestyle=":", label="constant (validation)")
    starred = 0
    for number, (fit, rows) in enumerate(iterations.groupby("fit")):
        once, dashes = number == 0, DASHES[number % len(DASHES)]
        axes.plot(rows["iteration"], rows["loss"], color="tab:blue", alpha=0.25, linewidth=0.8)
        smooth = rows["loss"].ewm(span=max(2, len(rows) // 20)).mean()
        axes.plot(rows["iteration"], smooth, dashes, color="tab:blue", label="training, smoothed" if once else None)
        own = epochs[epochs["fit"] == fit]
        last = rows.groupby("epoch")["iteration"].max().reindex(own["epoch"]).to_numpy()
        axes.plot(last, own["val_loss"], f"o{dashes}", color="tab:orange", markersize=4, label="validation" if once else None)
        if kept[number]:
            label = f"kept: epoch {kept[number]}" if len(kept) == 1 else None if starred else "kept"
            starred += 1
            best = int(np.flatnonzero(own["epoch"] == kept[number])[0])
            axes.plot(last[best], own["val_loss"].iloc[best], "*", color="tab:red", markersize=15, label=label)
    axes.set(
        xlabel="iteration",
        ylabel="weighted loss",
        title=f"Loss while training{'; dashes tell the networks apart' * (1 < len(kept) <= len(DASHES))}",
    )
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
        # The score first: a label that begins with an underscore would be left out of the legend.
        label = f"{values[name]:.2f}  {_plain(name)}"
        axes.plot(rows[x], rows[y], label=label, drawstyle="steps-post" if x == "recall" else None)
    if score == "roc_auc":
        axes.plot([0, 1], [0, 1], color="0.6", linestyle=":")
    axes.set(xlabel=x.replace("_", " "), ylabel=y.replace("_", " "), title=title, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if len(table):
        axes.legend(frameon=False, fontsize=9)
    _save(figure, path)


def confusion(path: Path, table: pd.DataFrame) -> None:
    """A 2 x 2 panel of counts per attribute."""
    figure, panels = _panels(table, width=2.6, height=3.0)
    for name, panel in panels:
        counts = table[table["attribute"] == name]["images"].to_numpy().reshape(2, 2)
        shares = table[table["attribute"] == name]["share"].to_numpy().reshape(2, 2)
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(counts):
            panel.text(column, row, str(count), ha="center", va="center", color="white" if shares[row, column] > 0.5 else "black")
        panel.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["present", "absent"])
        panel.tick_params(length=0)
        panel.set_yticklabels(["present", "absent"], rotation=90, va="center")
    figure.supxlabel("decided")
    figure.supylabel("actual")
    _save(figure, path)


def scores(path: Path, table: pd.DataFrame, most: int = 30) -> None:
    """AP and ROC-AUC of each attribute with their intervals, beside a constant and regression on frozen features.

    `table` is attributes.csv; the verdict stands beside the name.
    """
    shown = table.head(most).iloc[::-1]
    height = 1.6 + 0.5 * max(1, len(shown))
    figure, panels = plt.subplots(1, 2, figsize=(10, height), layout="constrained", sharey=True)
    for panel, name, title in ((panels[0], "ap", "AP"), (panels[1], "roc_auc", "ROC-AUC")):
        draw_score(panel, shown, name, title)
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    _save(figure, path)


def draw_score(panel: plt.Axes, rows: pd.DataFrame, name: str, title: str) -> None:
    """One score of the attributes in `rows` of attributes.csv, from below, with intervals and reference points."""
    at = np.arange(len(rows))
    value, low, high = (rows[column].to_numpy(float) for column in (name, f"{name}_low", f"{name}_high"))
    # An interval that is corrected for bias need not hold the point itself: it is drawn as a line of its own.
    panel.hlines(at, low, high, color="tab:blue", linewidth=3, alpha=0.45, label="95 % interval")
    panel.plot(value, at, "o", color="tab:blue", label="this model")
    panel.plot(rows[f"{name}_features"], at, "D", color="tab:orange", markersize=5, label="regression on frozen features")
    panel.plot(rows[f"{name}_constant"], at, "|", color="black", markersize=14, label="a constant")
    panel.set(xlabel=title, xlim=(-0.02, 1.02), ylim=(-0.6, max(1, len(rows)) - 0.4))
    panel.set_yticks(at, [f"{_plain(row.attribute)}\n{row.verdict}" for row in rows.itertuples()], fontsize=9)
    panel.grid(axis="x", color="0.9")
    panel.set_axisbelow(True)


def reliability(path: Path, before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Predicted probability against the share of positives, before and after calibration, a panel per attribute.

    Both tables are of calibration.reliability; the bars are 95 % intervals of the share.
    """
    figure, panels = _panels(after, width=2.8, height=2.9)
    for number, (name, panel) in enumerate(panels):
        panel.plot([0, 1], [0, 1], color="0.6", linestyle=":")
        rows = before[before["attribute"] == name]
        panel.plot(rows["predicted"], rows["observed"], "o-", color="0.6", markersize=3, linewidth=1, label="uncorrected")
        rows = after[after["attribute"] == name]
        # Rounding can leave an end of the interval on the wrong side of the share itself.
        reach = np.maximum(0, [rows["observed"] - rows["low"], rows["high"] - rows["observed"]])
        label = "corrected and scaled"
        panel.errorbar(
            rows["predicted"],
            rows["observed"],
            yerr=reach,
            fmt="o-",
            color="tab:blue",
            markersize=4,
            linewidth=1.2,
            elinewidth=0.8,
            label=label,
        )
        panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=HALVES, yticks=HALVES)
        if number == 0:
            panel.legend(frameon=False, fontsize=8)
    figure.supxlabel("predicted probability")
    figure.supylabel("share present")
    _save(figure, path)


def histogram(path: Path, table: pd.DataFrame, attributes: pd.DataFrame) -> None:
    """How the probabilities of present, absent and unknown cells are spread, with the threshold, a panel per attribute."""
    figure, panels = _panels(table, width=2.8, height=2.6)
    threshold = attributes.set_index("attribute")["threshold"]
    for number, (name, panel) in enumerate(panels):
        for label, colour in (("present", "tab:blue"), ("absent", "tab:orange"), ("unknown", "0.4")):
            rows = table[(table["attribute"] == name) & (table["label"] == label)]
            if rows["cells"].sum():
                edges = [*rows["from"], 1.0]
                filled = label != "unknown"
                panel.stairs(rows["share"], edges, color=colour, label=label, fill=filled, alpha=0.55 if filled else 1.0)
        panel.axvline(threshold[name], color="black", linestyle="--", linewidth=1, label="threshold")
        panel.set(xlim=(0, 1), xticks=HALVES)
        panel.yaxis.set_major_locator(MaxNLocator(3))
        if number == 0:
            panel.legend(frameon=False, fontsize=8)
    figure.supxlabel("probability")
    figure.supylabel("share of the label's cells")
    _save(figure, path)


def sweep(path: Path, table: pd.DataFrame) -> None:
    """Precision, recall and F1 against the threshold, with the one in use, a panel per attribute; `table` is of metrics.sweep."""
    figure, panels = _panels(table, width=2.8, height=2.6)
    for number, (name, panel) in enumerate(panels):
        own = table[table["attribute"] == name]
        for score, colour in (("precision", "tab:blue"), ("recall", "tab:orange"), ("f1", "tab:green")):
            rows = own[own["score"] == score]
            panel.plot(rows["threshold"], rows["value"], color=colour, label="F1" if score == "f1" else score)
        panel.axvline(
            own.loc[own["chosen"] == 1, "threshold"].iloc[0], color="black", linestyle="--", linewidth=1, label="in use"
        )
        panel.set(xlim=(0, 1), ylim=(-0.03, 1.03), xticks=HALVES, yticks=HALVES)
        if number == 0:
            panel.legend(frameon=False, fontsize=8)
    figure.supxlabel("threshold")
    figure.supylabel("score")
    _save(figure, path)


def _panels(table: pd.DataFrame, width: float, height: float, most: int = 12) -> tuple[plt.Figure, list[tuple[str, plt.Axes]]]:
    """A figure with a titled panel for each attribute of `table` (the first twelve), four across; sizes in inches."""
    names = list(pd.unique(table["attribute"]))[:most]
    across = min(4, max(1, len(names)))
    down = max(1, -(-len(names) // across))
    figure, grid = plt.subplots(down, across, figsize=(width * across, height * down), layout="constrained", squeeze=False)
    for panel in grid.flat[len(names) :]:
        panel.axis("off")
    for name, panel in zip(names, grid.flat, strict=False):
        panel.set_title(_plain(name), fontsize=11)
    return figure, list(zip(names, grid.flat, strict=False))


def _plain(name: str) -> str:
    """A name as matplotlib shows it letter by letter: a dollar sign would start a formula."""
    return str(name).replace("$", r"\$")


def _save(figure: plt.Figure, path: Path) -> None:
    if engine := figure.get_layout_engine():
        figure.set_dpi(DPI)
        engine.execute(figure)
        figure.set_layout_engine(None)  # while it has one, savefig draws everything twice
    with files.replacing(path) as temporary:
        # Without metadata the same data gives the same bytes.
        figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
