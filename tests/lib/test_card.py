"""The model card: the numbers of the run, a use for every verdict, no NaN, and no name that breaks a table."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from stages.lib import card, verdicts
from stages.lib.preprocessing import Preprocessing
from tests.lib.test_findings import NAN, UNDEFINED, macro_of, table_of

WORDS = (verdicts.LEARNED, verdicts.WEAK, verdicts.NOTHING, verdicts.TOO_FEW)
MORE = {"precision": 0.611, "recall": 0.722, "ece": 0.055, "f1_low": 0.6, "f1_high": 0.711}


def subject(n_attributes: int, **changes: object) -> card.Subject:
    targets = np.full((6, n_attributes), np.nan)
    targets[:3], targets[3] = 1, 0
    settings = {"weights": "pretrained", "freeze": "layer3", "lr": 0.001, "epochs": 8, "seed": 7, "train": {"side": 3}}
    groups = np.array([0, 0, 1, 2, 3, 4])
    seen = Preprocessing(256, "pad", 224, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    of_rows = ("data/labels.txt", targets, groups, 99, 1, "the best F1", 1, 0.0)
    made = card.Subject("0123456789abcdef", "resnet18", seen, settings, *of_rows)
    return replace(made, **changes)


def card_of(*words: str, names: tuple[str, ...] = (), changes: dict[str, object] | None = None, **columns: object) -> str:
    table = table_of(*words, **(MORE | columns))
    if names:
        table["attribute"] = names
    return card.text(subject(len(words), **(changes or {})), table, macro_of())


def rows_of(text: str, heading: str) -> dict[str, list[str]]:
    """First cell -> the others, of the table under a heading."""
    (section,) = [part for part in text.split("\n## ") if part.startswith(heading)]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows[2:]}


def test_a_regression_that_has_a_say_is_named_with_its_share() -> None:
    assert "regression on the features of" not in card_of(verdicts.LEARNED)
    text = card_of(verdicts.LEARNED, changes={"share": 0.25})
    assert "; beside it, with a share of 0.25, a regression on the features of the pretrained network" in text


def test_every_section_holds_the_numbers_of_the_run() -> None:
    text = card_of(verdicts.LEARNED, verdicts.WEAK)
    assert re.findall(r"^##? (.+)$", text, re.MULTILINE) == [
        *("Model card", "Intended use", "Data", "Scores", "Decisions", "Limitations", "How to run"),
    ]
    assert "`0123456789ab`" in text
    assert "weights pretrained, freeze layer3, epochs 8, lr 0.001, seed 7" in text
    assert "6 usable images of `data/labels.txt`. Near-copies of others among them: 1" in text
    assert rows_of(text, "Data") == {r"attr\_1": ["3", "1", "2"], r"attr\_2": ["3", "1", "2"]}
    scores = rows_of(text, "Scores")
    assert scores[r"attr\_1"] == ["40 of 100", "0.76 [0.60, 0.90]", "0.40", "0.55", "0.81 [0.70, 0.88]", "-0.12 [-0.30, 0.05]"]
    assert scores["macro"] == ["", "0.71 [0.61, 0.81]", "0.41", "0.51", "0.79 [0.69, 0.89]", "0.21 [0.11, 0.31]"]
    assert rows_of(text, "Decisions")[r"attr\_1"] == ["0.300", "0.61", "0.72", "0.66 [0.60, 0.71]", "0.06"]
    assert "Thresholds for the best F1" in text
    assert "Its mean is 0.03, and 0.13 before the probabilities are corrected" in text
    assert "any picture, made a square of 256 px (with white beside it) and scored at 224 px" in text


@pytest.mark.parametrize("word", WORDS)
def test_every_verdict_says_what_to_do(word: str) -> None:
    text = card_of(word)
    assert rows_of(text, "Intended use") == {r"attr\_1": [word, card.USES[word]]}
    assert ("labels among them would do" in text) == (word == verdicts.TOO_FEW)


def test_a_tag_that_the_features_rank_as_well_is_a_limitation() -> None:
    assert "regression on frozen features does no worse here (AP 0.80)" in card_of(verdicts.LEARNED, ap_features=0.8)
    assert "no worse" not in card_of(verdicts.LEARNED, ap_features=0.7)


def test_it_counts_the_networks() -> None:
    assert "), one network, backbone" in card_of(verdicts.LEARNED)
    assert "), 2 networks, averaged, backbone" in card_of(verdicts.LEARNED, changes={"n_networks": 2})
    assert "), 10 networks, 2 per fold, backbone" in card_of(verdicts.LEARNED, changes={"n_networks": 10, "folds": 5})


def test_folds_are_said_to_be_folds() -> None:
    assert "each scored by the model that has not seen it" in card_of(verdicts.LEARNED, changes={"folds": 5})
    assert "5 networks, one per fold" in card_of(verdicts.LEARNED, changes={"folds": 5, "n_networks": 5})
    assert "that training has not seen" in card_of(verdicts.LEARNED)


def test_what_is_undefined_is_never_nan() -> None:
    table = table_of(
        verdicts.TOO_FEW, **(MORE | UNDEFINED | {"precision": NAN, "ece": NAN, "ap_constant": NAN, "ap_features": NAN})
    )
    text = card.text(subject(1, targets=np.full((6, 1), np.nan)), table, dict.fromkeys(macro_of(), NAN))
    assert "nan" not in text.lower()
    assert rows_of(text, "Scores")[r"attr\_1"][1] == "undefined"
    assert rows_of(text, "Data") == {r"attr\_1": ["0", "0", "6"]}


def test_no_attribute_at_all() -> None:
    empty = table_of(verdicts.LEARNED, **MORE).iloc[:0]
    assert rows_of(card.text(subject(0), pd.DataFrame(empty), macro_of()), "Data") == {}


def test_names_can_not_break_the_tables() -> None:
    text = card_of(verdicts.LEARNED, names=("a|b`c\n<img>",))
    (row,) = rows_of(text.replace(r"\|", "!"), "Intended use")
    assert row == r"a!b\`c\\n\<img\>"
    assert len([line for line in text.splitlines() if line.startswith("| a")]) == 4


def test_paths_stand_as_they_are() -> None:
    assert "of `my_data/a'b|c.csv`." in card_of(verdicts.LEARNED, changes={"labels": "my_data/a`b|c.csv"})
