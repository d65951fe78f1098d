"""What evaluate tells: no undefined figure in JSON, and lines that say what a reader needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from stages.lib import files, findings, verdicts

RANGED = ("ap", "roc_auc", "skill")
NAN = float("nan")


def table_of(*words: str, **changes: Any) -> pd.DataFrame:
    """A row per verdict, of the columns that the summary and the JSON files are made of."""
    row: dict[str, Any] = {"known": 100, "positives": 40, "negatives": 60, "p": 0.004}
    row |= {"ap": 0.756, "ap_low": 0.6, "ap_high": 0.9, "ap_constant": 0.4, "ap_features": 0.55}
    row |= {"roc_auc": 0.81, "roc_auc_low": 0.7, "roc_auc_high": 0.88, "skill": -0.125, "skill_low": -0.3, "skill_high": 0.05}
    row |= {"f1": 0.66, "threshold": 0.3, "goal_reached": True} | changes
    return pd.DataFrame([{"attribute": f"attr_{number}", "verdict": word} | row for number, word in enumerate(words, 1)])


def macro_of(**changes: float) -> dict[str, float]:
    macro = {"ap": 0.71, "ap_low": 0.61, "ap_high": 0.81, "ap_constant": 0.41, "ap_features": 0.51, "f1": 0.62, "ece": 0.03}
    macro |= {"roc_auc": 0.79, "roc_auc_low": 0.69, "roc_auc_high": 0.89, "skill": 0.21, "skill_low": 0.11, "skill_high": 0.31}
    macro |= {"loss": 0.6, "loss_constant": 0.7, "ece_raw": 0.13, "brier": 0.18, "brier_raw": 0.22, "optimism": 0.07}
    macro |= {"ap_gain_features": 0.2, "ap_gain_features_low": -0.02, "ap_gain_features_high": 0.42}
    return macro | {"goal_tuned": 0.77, "goal_tested": 0.7} | changes


UNDEFINED = {name: NAN for score in RANGED for name in (score, f"{score}_low", f"{score}_high")} | {"p": NAN, "f1": NAN}


def summary_of(table: pd.DataFrame, macro: dict[str, float]) -> list[str]:
    return findings.summary(table, macro, "99 test images", "best F1").splitlines()


# For machines.


def test_figures_hold_everything_but_what_is_undefined(tmp_path: Path) -> None:
    table = table_of(verdicts.LEARNED, verdicts.TOO_FEW)
    table.loc[1, ["ap", "f1", "p"]] = NAN
    found = findings.figures(table, macro_of(ece=NAN), 77)
    files.write_json(tmp_path / "evaluation.json", found)
    read = json.loads((tmp_path / "evaluation.json").read_text())
    assert read["images"] == 77
    assert read["verdicts"] == {verdicts.LEARNED: 1, verdicts.WEAK: 0, verdicts.NOTHING: 0, verdicts.TOO_FEW: 1}
    assert set(macro_of()) - set(read["macro"]) == {"ece"}
    assert read["macro"]["ap"] == 0.71
    assert list(read["attributes"]) == ["attr_1", "attr_2"]
    columns = set(table) - {"attribute"}
    assert set(read["attributes"]["attr_1"]) == columns
    assert columns - set(read["attributes"]["attr_2"]) == {"ap", "f1", "p"}
    for name, value in read["attributes"]["attr_1"].items():
        assert value == table.loc[0, name]


def test_scores_are_few_and_defined(tmp_path: Path) -> None:
    words = (verdicts.LEARNED, verdicts.NOTHING, verdicts.LEARNED, verdicts.WEAK)
    found = findings.scores(table_of(*words), macro_of(f1=NAN, brier=NAN))
    files.write_json(tmp_path / "scores.json", found)
    read = json.loads((tmp_path / "scores.json").read_text())
    assert read["learned"] == 2
    assert "f1" not in read
    assert "ap_fold_mean" not in read
    kept = ("ap", "ap_low", "ap_high", "ap_constant", "ap_features", "roc_auc", "skill")
    assert {name: read[name] for name in kept} == {name: macro_of()[name] for name in kept}
    assert set(read) == {*kept, "learned"}


def test_scores_of_folds_are_there_where_there_are_folds() -> None:
    found = findings.scores(table_of(verdicts.LEARNED), macro_of(ap_fold_mean=0.7, ap_fold_std=0.04))
    assert (found["ap_fold_mean"], found["ap_fold_std"]) == (0.7, 0.04)


def test_nothing_defined_at_all_can_be_written(tmp_path: Path) -> None:
    table, macro = table_of(verdicts.TOO_FEW, **UNDEFINED), dict.fromkeys(macro_of(), NAN)
    for name, content in (("a", findings.figures(table, macro, 3)), ("b", findings.scores(table, macro))):
        files.write_json(tmp_path / f"{name}.json", content)
    assert json.loads((tmp_path / "a.json").read_text())["macro"] == {}
    assert json.loads((tmp_path / "b.json").read_text()) == {"learned": 0}
    assert len(summary_of(table, macro)) == 8


def test_numbers_of_numpy_can_be_written(tmp_path: Path) -> None:
    macro = {name: np.float64(value) for name, value in macro_of(ece=NAN).items()}
    found = findings.figures(table_of(verdicts.LEARNED), macro, 3)
    files.write_json(tmp_path / "x.json", found)
    assert "ece" not in found["macro"]


# For people.


def test_the_summary_line_by_line() -> None:
    lines = summary_of(table_of(verdicts.LEARNED, verdicts.WEAK), macro_of())
    assert len(lines) == 8
    assert lines[0].startswith("scores on 99 test images; [95 % intervals]")
    shown = "100 40 0.76 [0.60, 0.90] 0.40 0.55 0.81 [0.70, 0.88] -0.12 [-0.30, 0.05]"
    assert lines[2].split() == ["attr_1", *shown.split(), *verdicts.LEARNED.split()]
    assert lines[3].split() == ["attr_2", *shown.split(), *verdicts.WEAK.split()]
    shown = "0.71 [0.61, 0.81] 0.41 0.51 0.79 [0.69, 0.89] 0.21 [0.11, 0.31]"
    assert lines[4].split() == ["macro", *shown.split(), "1", "learned,", "1", "weak", "evidence"]
    assert "Fine-tuning beside the features: AP +0.20 [-0.02, +0.42]" in lines[5]
    assert lines[7].strip().startswith("calibration error (ECE) 0.13 uncorrected, 0.03 corrected and scaled")
    assert lines[7].endswith("Brier score 0.22 and 0.18")


def test_columns_stand_below_each_other() -> None:
    table = table_of(verdicts.LEARNED, verdicts.LEARNED)
    table.loc[0, list(UNDEFINED)] = NAN
    lines = summary_of(table, macro_of())
    at = lines[1].index("verdict")
    assert lines[2][at:] == lines[3][at:] == verdicts.LEARNED
    assert lines[4][at:].startswith("2 learned")


def test_goal_numbers() -> None:
    lines = findings.summary(table_of(verdicts.LEARNED), macro_of(), "x", "recall of at least 0.9").splitlines()
    expected = "thresholds for recall of at least 0.9: 0.77 on the images they were tuned on, 0.70 on these (optimism +0.07)"
    assert lines[5].strip() == expected
    lines = summary_of(table_of(verdicts.LEARNED), macro_of(goal_tuned=NAN, goal_tested=NAN, optimism=NAN))
    assert lines[5].strip() == "thresholds for best F1: - on the images they were tuned on, - on these (optimism -)"


def test_undefined_scores_are_named_so() -> None:
    lines = summary_of(table_of(verdicts.TOO_FEW, **UNDEFINED, ap_constant=NAN, ap_features=NAN), macro_of())
    assert lines[2].count("undefined") == 3
    assert lines[2].split()[3:6] == ["undefined", "-", "-"]
    assert "nan" not in "\n".join(lines)


def test_an_undefined_interval_is_left_out() -> None:
    lines = summary_of(table_of(verdicts.TOO_FEW, ap_low=NAN, ap_high=NAN), macro_of())
    assert lines[2].split()[3:6] == ["0.76", "0.40", "0.55"]


def test_too_few_labels_say_how_many_would_do() -> None:
    table = table_of(verdicts.LEARNED, verdicts.TOO_FEW)
    table.loc[1, ["positives", "negatives", "p"]] = [2, 3, NAN]
    needed = verdicts.rows_needed(2, 3, 1)  # one attribute has a p, and so was tested
    line = summary_of(table, macro_of())[5]
    assert f"attr_2: {verdicts.TOO_FEW}: 2 present and 3 absent among the scored images; about {needed} labels" in line


@pytest.mark.parametrize(("count", "more"), [(20, 0), (21, 1), (45, 25)])
def test_more_than_twenty_attributes_are_cut(count: int, more: int) -> None:
    lines = summary_of(table_of(*[verdicts.LEARNED] * count), macro_of())
    assert len([line for line in lines if line.strip().startswith("attr_")]) == 20
    assert ([line.strip() for line in lines if "more in" in line]) == (
        [f"and {more} more in metrics/attributes.csv"] if more else []
    )
    (macro,) = (line for line in lines if line.strip().startswith("macro "))
    assert macro.endswith(f"{count} learned")  # of all


def test_long_names_are_cut() -> None:
    table = table_of(verdicts.LEARNED)
    table["attribute"] = "x" * 30
    assert summary_of(table, macro_of())[2].split()[0] == "x" * 19 + "…"


def test_folds_have_a_line_of_their_own() -> None:
    without = summary_of(table_of(verdicts.LEARNED), macro_of())
    lines = summary_of(table_of(verdicts.LEARNED), macro_of(ap_fold_mean=0.7, ap_fold_std=0.0416))
    assert lines[:-1] == without
    assert lines[-1].strip().startswith("macro AP of each fold by itself: 0.70 ± 0.04;")


def test_a_goal_that_was_not_reached_is_named() -> None:
    table = table_of(verdicts.LEARNED, verdicts.LEARNED)
    assert not any("NOT reached" in line for line in summary_of(table, macro_of()))
    table["goal_reached"] = [True, False]
    (line,) = [line for line in summary_of(table, macro_of()) if "NOT reached" in line]
    assert line.endswith("by: attr_2")
