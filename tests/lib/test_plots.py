"""Figures: a PNG of some size, the same bytes for the same data, and no failure on what is degenerate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from stages.lib import metrics, plots

Draw = Callable[[Path], None]


def losses(folds: int, epochs: int = 4, per_epoch: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    iterations, rows = [], []
    for fold in range(folds):
        for epoch in range(1, epochs + 1):
            rows.append({"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 0.5 + abs(epoch - 2) / 10, "fold": fold})
            for step in range(per_epoch):
                number = (epoch - 1) * per_epoch + step + 1
                iterations.append({"iteration": number, "epoch": epoch, "loss": 1 / number, "fold": fold})
    return pd.DataFrame(iterations), pd.DataFrame(rows)


def scored(n_attributes: int, unknown: bool = False) -> tuple[list[str], np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    targets = chance.integers(0, 2, (30, n_attributes)).astype(float)
    if unknown:
        targets[:, 0] = np.nan
    return [f"attr_{i}" for i in range(1, n_attributes + 1)], targets, chance.random((30, n_attributes))


def draw_loss(folds: int, epochs: int = 4, per_epoch: int = 5) -> Draw:
    return lambda path: plots.loss_curve(path, *losses(folds, epochs, per_epoch), 0.7)


def draw_curve(kind: str, n_attributes: int, unknown: bool = False) -> Draw:
    names, targets, scores = scored(n_attributes, unknown)
    table = pd.DataFrame({"attribute": names, "ap": metrics.average_precision(targets, scores)})
    table["roc_auc"] = metrics.roc_auc(targets, scores)
    pr, roc = metrics.curves(names, targets, scores)
    if kind == "pr":
        return lambda path: plots.curves(path, pr, "recall", "precision", table, "ap", "title")
    return lambda path: plots.curves(path, roc, "false_positive_rate", "true_positive_rate", table, "roc_auc", "title")


def draw_confusion(n_attributes: int, unknown: bool = False) -> Draw:
    names, targets, scores = scored(n_attributes, unknown)
    return lambda path: plots.confusion(path, metrics.confusion(names, targets, (scores > 0.5).astype(float)))


FIGURES = {
    "loss": draw_loss(1),
    "loss of three folds": draw_loss(3),
    "loss of one iteration": draw_loss(1, epochs=1, per_epoch=1),
    "pr": draw_curve("pr", 3),
    "pr of twelve": draw_curve("pr", 12),
    "pr with an unknown": draw_curve("pr", 2, unknown=True),
    "pr of nothing known": draw_curve("pr", 1, unknown=True),
    "roc": draw_curve("roc", 3),
    "roc of nothing known": draw_curve("roc", 1, unknown=True),
    "confusion": draw_confusion(3),
    "confusion of fourteen": draw_confusion(14),
    "confusion of nothing known": draw_confusion(1, unknown=True),
}


@pytest.mark.parametrize("draw", FIGURES.values(), ids=FIGURES.keys())
def test_a_figure_is_a_png_and_nothing_else_is_left(tmp_path: Path, draw: Draw) -> None:
    draw(tmp_path / "deeper" / "figure.png")
    with Image.open(tmp_path / "deeper" / "figure.png") as image:
        image.load()
        assert image.format == "PNG"
        assert min(image.size) > 200
        assert len(image.convert("RGB").getcolors(1 << 24)) > 10  # it is not blank
    assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["figure.png"]
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", ["loss", "pr", "roc", "confusion"])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    for path in ("one.png", "two.png"):
        FIGURES[name](tmp_path / path)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_other_data_give_another_figure(tmp_path: Path) -> None:
    draw_loss(1, epochs=4)(tmp_path / "one.png")
    draw_loss(1, epochs=5)(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()
