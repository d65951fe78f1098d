"""Figures: a PNG of some size, the same bytes for the same data, and no failure on what is degenerate."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from stages.lib import calibration, metrics, plots, verdicts

Draw = Callable[[Path], None]


def losses(folds: int, epochs: int = 4, per_epoch: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    iterations, rows = [], []
    for fold in range(folds):
        for epoch in range(1, epochs + 1):
            rows.append({"epoch": epoch, "train_loss": 1 / epoch, "val_loss": 0.5 + abs(epoch - 2) / 10, "fit": fold})
            for step in range(per_epoch):
                number = (epoch - 1) * per_epoch + step + 1
                iterations.append({"iteration": number, "epoch": epoch, "loss": 1 / number, "fit": fold})
    return pd.DataFrame(iterations), pd.DataFrame(rows)


def scored(n_attributes: int, unknown: bool = False) -> tuple[list[str], np.ndarray, np.ndarray]:
    chance = np.random.default_rng(0)
    targets = chance.integers(0, 2, (30, n_attributes)).astype(float)
    if unknown:
        targets[:, 0] = np.nan
    return [f"attr_{i}" for i in range(1, n_attributes + 1)], targets, chance.random((30, n_attributes))


def draw_loss(folds: int, epochs: int = 4, per_epoch: int = 5, kept: int = 1) -> Draw:
    return lambda path: plots.loss_curve(path, *losses(folds, epochs, per_epoch), 0.7, [kept] * folds)


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


def attributes_table(names: list[str], undefined: bool = False) -> pd.DataFrame:
    """The columns of attributes.csv that figures are made of; `undefined` leaves nothing but the constants."""
    chance = np.random.default_rng(1)
    table = pd.DataFrame({"attribute": names})
    for score in ("ap", "roc_auc"):
        table[score] = chance.uniform(0.5, 0.9, len(names))
        # The first interval lies above its own score: one that is corrected for bias may.
        table[f"{score}_low"], table[f"{score}_high"] = table[score] - 0.1, table[score] + 0.1
        table.loc[:0, f"{score}_low"] = table.loc[:0, score] + 0.02
        table[f"{score}_constant"], table[f"{score}_features"] = 0.5, 0.6
        if undefined:
            table[[score, f"{score}_low", f"{score}_high", f"{score}_features"]] = np.nan
    table["threshold"] = np.linspace(0.2, 0.8, len(names))
    words = (verdicts.LEARNED, verdicts.WEAK, verdicts.NOTHING, verdicts.TOO_FEW)
    table["verdict"] = [words[number % 4] for number in range(len(names))]
    return table


def draw_scores(n_attributes: int, undefined: bool = False) -> Draw:
    return lambda path: plots.scores(path, attributes_table(scored(n_attributes)[0], undefined))


def draw_reliability(n_attributes: int, unknown: bool = False) -> Draw:
    names, targets, scores = scored(n_attributes, unknown)
    before, after = (calibration.reliability(names, targets, values) for values in (scores, (scores + 1) / 3))
    return lambda path: plots.reliability(path, before, after)


def draw_histogram(n_attributes: int, unknown: bool = False) -> Draw:
    names, targets, scores = scored(n_attributes, unknown)
    table = metrics.histogram(names, targets, scores)
    return lambda path: plots.histogram(path, table, attributes_table(names))


def draw_sweep(n_attributes: int, unknown: bool = False) -> Draw:
    names, targets, scores = scored(n_attributes, unknown)
    table = metrics.sweep(names, targets, scores, np.linspace(0.2, 0.8, n_attributes))
    return lambda path: plots.sweep(path, table)


def draw_all_named(name: str) -> list[Draw]:
    """Every figure with a panel, a line or a row for one attribute of this name."""
    _, targets, values = scored(1)
    table, pr = attributes_table([name]), metrics.curves([name], targets, values)[0]
    before = calibration.reliability([name], targets, values)
    confusion = metrics.confusion([name], targets, (values > 0.5).astype(float))
    return [
        lambda path: plots.curves(path, pr, "recall", "precision", table, "ap", "title"),
        lambda path: plots.confusion(path, confusion),
        lambda path: plots.scores(path, table),
        lambda path: plots.reliability(path, before, before),
        lambda path: plots.histogram(path, metrics.histogram([name], targets, values), table),
        lambda path: plots.sweep(path, metrics.sweep([name], targets, values, np.array([0.5]))),
    ]


FIGURES = {
    "loss": draw_loss(1),
    "loss of three folds": draw_loss(3),
    "loss of a network that was best untrained": draw_loss(1, kept=0),
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
    "confusion of no attribute": draw_confusion(0),
    "scores": draw_scores(3),
    "scores of one": draw_scores(1),
    "scores of thirteen": draw_scores(13),
    "scores of forty": draw_scores(40),
    "scores that are undefined": draw_scores(2, undefined=True),
    "scores of no attribute": draw_scores(0),
    "reliability": draw_reliability(3),
    "reliability of one": draw_reliability(1),
    "reliability of thirteen": draw_reliability(13),
    "reliability with an unknown": draw_reliability(2, unknown=True),
    "reliability of nothing known": draw_reliability(1, unknown=True),
    "histogram": draw_histogram(3),
    "histogram of one": draw_histogram(1),
    "histogram of thirteen": draw_histogram(13),
    "histogram of nothing known": draw_histogram(1, unknown=True),
    "histogram of no attribute": draw_histogram(0),
    "sweep": draw_sweep(3),
    "sweep of thirteen": draw_sweep(13),
    "sweep with an unknown": draw_sweep(2, unknown=True),
    "sweep of nothing known": draw_sweep(1, unknown=True),
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


@pytest.mark.parametrize("name", ["loss", "pr", "roc", "confusion", "scores", "reliability", "histogram", "sweep"])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, name: str) -> None:
    for path in ("one.png", "two.png"):
        FIGURES[name](tmp_path / path)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("name", ["loss", "scores", "sweep"])
def test_a_figure_is_laid_out_and_drawn_once(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    for kind, what, word in ((Figure, "draw", "drawn"), (ConstrainedLayoutEngine, "execute", "laid out")):
        done = getattr(kind, what)
        monkeypatch.setattr(kind, what, lambda *given, done=done, word=word: (drawn.append(word), done(*given))[1])
    FIGURES[name](tmp_path / "one.png")
    assert drawn == ["laid out", "drawn"]


def test_other_data_give_another_figure(tmp_path: Path) -> None:
    draw_loss(1, epochs=4)(tmp_path / "one.png")
    draw_loss(1, epochs=5)(tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() != (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize(
    ("draw", "most"),
    [(draw_confusion, 12), (draw_histogram, 12), (draw_reliability, 12), (draw_sweep, 12), (draw_scores, 30)],
)
def test_what_does_not_fit_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: Callable[[int], Draw], most: int
) -> None:
    heights = []

    def measuring(figure: plt.Figure, path: Path) -> None:
        heights.append(figure.get_figheight())
        plt.close(figure)

    monkeypatch.setattr(plots, "_save", measuring)
    for count in (most - 4, most, most + 1):
        draw(count)(tmp_path / "x.png")
    assert heights[0] < heights[1] == heights[2]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text of the figures that are drawn, as it stands in them; formulas come without their dollar signs."""
    texts: list[str] = []
    save = plots._save

    def reading(figure: plt.Figure, path: Path) -> None:
        for text in figure.findobj(match=lambda artist: isinstance(artist, plt.Text)):
            drawn, formula = text._preprocess_math(text.get_text())
            texts.append(f"formula {drawn}" if formula else drawn)
        save(figure, path)

    monkeypatch.setattr(plots, "_save", reading)
    return texts


@pytest.mark.parametrize("name", ["$", "a$b", "$a$", "$\\frac$", r"back\$slash", "a_b^c", "%d {x}", "50 %"])
def test_names_are_shown_letter_by_letter(tmp_path: Path, shown: list[str], name: str) -> None:
    for number, draw in enumerate(draw_all_named(name)):
        shown.clear()
        draw(tmp_path / f"{number}.png")
        assert any(name in text for text in shown), number
        assert not any(text.startswith("formula") for text in shown)


def test_a_name_that_begins_with_an_underscore_stands_in_the_legend(tmp_path: Path, shown: list[str]) -> None:
    draw_all_named("_hidden")[0](tmp_path / "x.png")
    assert any("_hidden" in text for text in shown)


def test_scores_stand_beside_their_verdict_in_the_order_of_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    table = attributes_table(["collar", "logo"])
    plots.scores(tmp_path / "x.png", table)
    (figure,) = seen
    left, right = figure.axes
    labels = {label.get_text(): height for label, height in zip(left.get_yticklabels(), left.get_yticks(), strict=True)}
    assert list(labels) == [f"logo\n{verdicts.WEAK}", f"collar\n{verdicts.LEARNED}"]  # from the bottom: the first is on top
    assert labels[f"collar\n{verdicts.LEARNED}"] > labels[f"logo\n{verdicts.WEAK}"]
    for panel, score in ((left, "ap"), (right, "roc_auc")):
        own, features, constant = (line.get_xdata() for line in panel.get_lines())
        np.testing.assert_array_equal(own, table[score][::-1])
        np.testing.assert_array_equal(features, table[f"{score}_features"][::-1])
        np.testing.assert_array_equal(constant, table[f"{score}_constant"][::-1])
        ends = [sorted(segment[:, 0]) for segment in panel.collections[0].get_segments()]
        np.testing.assert_allclose(ends, table[[f"{score}_low", f"{score}_high"]][::-1])
    plt.close(figure)


def test_the_threshold_in_use_stands_in_its_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    draw_sweep(3)(tmp_path / "x.png")
    (figure,) = seen
    for panel, threshold in zip(figure.axes, (0.2, 0.5, 0.8), strict=False):
        assert len(panel.get_lines()) == 4  # precision, recall, F1, the threshold
        assert list(panel.get_lines()[-1].get_xdata()) == pytest.approx([threshold, threshold])
    plt.close(figure)


@pytest.mark.parametrize(("kept", "stars"), [([2, 3], 2), ([0, 3], 1), ([3, 0, 1], 2)])
def test_networks_have_dashes_of_their_own_and_kept_epochs_a_star(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: list[int], stars: int
) -> None:
    seen: list[plt.Figure] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: seen.append(figure))
    plots.loss_curve(tmp_path / "x.png", *losses(len(kept)), 0.7, kept)
    lines = seen[0].axes[0].get_lines()
    assert len([line for line in lines if line.get_marker() == "*"]) == stars
    assert len({line.get_linestyle() for line in lines if line.get_marker() == "o"}) == len(kept)
    legend = [text.get_text() for text in seen[0].axes[0].get_legend().get_texts()]
    assert legend == ["constant (validation)", "training, smoothed", "validation", "kept"]
    plt.close(seen[0])
