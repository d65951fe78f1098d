"""The word before the first epoch: folds that are honest, a signal that is heard, noise that is warned of."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from stages.lib import early_word, probe, verdicts

NAMES = ["collar", "logo"]


def drawn(n_images: int = 80, seed: int = 0, signal: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features (n_images, 5) of which the first tells of the first attribute by `signal`; targets with NaN; groups of two."""
    chance = np.random.default_rng(seed)
    targets = (chance.random((n_images, 2)) < 0.4).astype(float)
    values = chance.normal(size=(n_images, 5))
    values[:, 0] += signal * targets[:, 0]
    targets[chance.random(targets.shape) < 0.2] = np.nan
    return values, targets, np.arange(n_images) // 2


def names_of(n_images: int) -> list[str]:
    return [f"{number}.jpg" for number in range(n_images)]


# Folds.


def test_hold_out_gets_folds_of_its_own_without_the_test_rows() -> None:
    _, targets, groups = drawn()
    parts = np.repeat(["train", "val", "test", "train"], 20)
    found = early_word.folds_of(parts, 1, targets, groups, names_of(80), 0)
    assert found.shape == (80,)
    assert (found[parts == "test"] == -1).all()
    assert set(found[parts != "test"]) == {0, 1, 2, 3, 4}
    for group in np.unique(groups):
        assert len(set(found[groups == group])) == 1
    sizes = np.bincount(found[found >= 0])
    assert sizes.max() - sizes.min() <= 4  # 60 rows in groups of two


def test_labels_of_test_rows_do_not_shape_the_folds() -> None:
    _, targets, groups = drawn()
    parts = np.repeat(["train", "val", "test", "train"], 20)
    before = early_word.folds_of(parts, 1, targets, groups, names_of(80), 0)
    targets[parts == "test"] = 1
    np.testing.assert_array_equal(early_word.folds_of(parts, 1, targets, groups, names_of(80), 0), before)


@pytest.mark.parametrize("parts", [["2", "0", "1", "0"], [2, 0, 1, 0]], ids=["text", "numbers"])
def test_folds_of_the_run_are_used_where_it_has_some(parts: list[object]) -> None:
    found = early_word.folds_of(np.array(parts), 3, np.ones((4, 1)), np.arange(4), names_of(4), 0)
    np.testing.assert_array_equal(found, [2, 0, 1, 0])
    assert np.issubdtype(found.dtype, np.integer)


@pytest.mark.parametrize("n_groups", [2, 3, 4])
def test_fewer_groups_than_folds(n_groups: int) -> None:
    """No fold may be empty, and none may hold everything: a fit needs rows."""
    values, targets, _ = drawn(n_images=24)
    groups = np.arange(24) % n_groups
    parts = np.array(["train"] * 23 + ["val"])
    fold_of = early_word.folds_of(parts, 1, targets, groups, names_of(24), 0)
    assert set(fold_of) == set(range(n_groups))
    for group in range(n_groups):
        assert len(set(fold_of[groups == group])) == 1
    _, log_odds = early_word.listen(NAMES, values, targets, groups, fold_of, 0)
    assert np.isfinite(log_odds).all()


def test_two_groups_of_very_different_size_make_two_folds() -> None:
    groups = np.repeat([0, 1], [150, 1])
    fold_of = early_word.folds_of(np.array(["train"] * 151), 1, np.ones((151, 1)), groups, names_of(151), 0)
    assert set(fold_of) == {0, 1}


# Listening.


def test_a_signal_in_the_features_is_learned_and_only_where_it_is() -> None:
    values, targets, groups = drawn(signal=3.0)
    fold_of = np.where(np.arange(80) < 10, -1, groups % 5)
    table, log_odds = early_word.listen(NAMES, values, targets, groups, fold_of, 0)
    assert list(table["attribute"]) == NAMES
    assert table["verdict"][0] == verdicts.LEARNED
    assert table["verdict"][1] in (verdicts.NOTHING, verdicts.TOO_FEW)
    assert table["roc_auc_low"][0] > 0.8
    assert early_word.warning(table, False) == []
    assert np.isnan(log_odds[:10]).all()
    rows = slice(10, None)
    np.testing.assert_array_equal(log_odds[rows], probe.cross_validated(values[rows], targets[rows], fold_of[rows]))
    for column in range(2):
        known = [label for label in targets[rows, column] if not math.isnan(label)]
        assert table["ap_constant"][column] == pytest.approx(sum(known) / len(known))
        assert (table["positives"][column], table["negatives"][column]) == (known.count(1), known.count(0))


def test_rows_of_no_fold_take_no_part() -> None:
    values, targets, groups = drawn(signal=1.0)
    fold_of = np.where(np.arange(80) < 10, -1, groups % 5)
    before = early_word.listen(NAMES, values, targets, groups, fold_of, 0)
    values[:10], targets[:10] = 1e6, 1
    after = early_word.listen(NAMES, values, targets, groups, fold_of, 0)
    pd.testing.assert_frame_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_noise_is_warned_of() -> None:
    values, targets, groups = drawn(n_images=160, seed=3)
    table, _ = early_word.listen(NAMES, values, targets, groups, groups % 5, 0)
    assert list(table["verdict"]) == [verdicts.NOTHING] * 2
    assert "on no attribute is this better than a constant" in early_word.warning(table, False)[0]


def test_same_seed_same_word() -> None:
    values, targets, groups = drawn(signal=1.0)
    one, two = (early_word.listen(NAMES, values, targets, groups, groups % 5, 7)[0] for _ in range(2))
    pd.testing.assert_frame_equal(one, two)


def test_an_attribute_that_nothing_is_known_of_is_too_few() -> None:
    values, targets, groups = drawn(signal=3.0)
    targets[:, 1] = np.nan
    table, log_odds = early_word.listen(NAMES, values, targets, groups, groups % 5, 0)
    assert list(table["verdict"]) == [verdicts.LEARNED, verdicts.TOO_FEW]
    assert table.loc[1, ["ap", "roc_auc", "p", "ap_constant"]].isna().all()
    np.testing.assert_allclose(log_odds[:, 1], 0, atol=1e-9)
    lines = early_word.text(table, 80, 1.0, False).splitlines()
    assert "undefined" in lines[3]
    assert "0 present and 0 absent" in lines[3]


# Words.


def table_of(*words: str, **changes: float) -> pd.DataFrame:
    """A row per word, of 40 positives and 60 negatives."""
    row = {"positives": 40, "negatives": 60, "p": 0.3, "ap": 0.456, "ap_constant": 0.4}
    row |= {"roc_auc": 0.612, "roc_auc_low": 0.504, "roc_auc_high": 0.718} | changes
    return pd.DataFrame([{"attribute": f"attr_{number}", "verdict": word} | row for number, word in enumerate(words, 1)])


CASES = {  # verdicts -> how the warning begins
    "learned": ([verdicts.LEARNED], None),
    "one of many learned": ([verdicts.NOTHING, verdicts.WEAK, verdicts.TOO_FEW, verdicts.LEARNED], None),
    "weak": ([verdicts.NOTHING, verdicts.WEAK, verdicts.TOO_FEW], "weak"),
    "nothing": ([verdicts.TOO_FEW, verdicts.NOTHING], "better than a constant"),
    "too few": ([verdicts.TOO_FEW, verdicts.TOO_FEW], "label more"),
}


@pytest.mark.parametrize(("words", "warned"), CASES.values(), ids=CASES.keys())
def test_the_warning_is_that_of_the_best_verdict(words: list[str], warned: str | None) -> None:
    table = table_of(*words)
    found = early_word.warning(table, False)
    assert bool(found) == (warned is not None)
    text = early_word.text(table, 100, 2.0, False)
    assert ("WARNING" in text) == (warned is not None)
    assert text.endswith("\n".join(found))
    assert warned is None or warned in " ".join(found)
    others = {begin for _, begin in CASES.values() if begin and begin != warned}
    assert not any(other in " ".join(found) for other in others)


def test_the_text_tells_what_was_heard() -> None:
    lines = early_word.text(table_of(verdicts.LEARNED, verdicts.NOTHING), 123, 4.4, False).splitlines()
    assert len(lines) == 4
    assert "cross-validated over 123 images (4 s)" in lines[0]
    assert "RANDOM" not in lines[0]
    assert lines[2].split() == ["attr_1", "0.46", "(0.40)", "0.61", "[0.50,", "0.72]", "learned"]
    assert lines[3].endswith(verdicts.NOTHING)


def test_random_weights_are_named() -> None:
    assert "features of RANDOM weights, cross-validated" in early_word.text(table_of(verdicts.LEARNED), 10, 1.0, True)


def test_too_few_labels_say_how_many_would_do() -> None:
    text = early_word.text(table_of(verdicts.TOO_FEW, positives=3, negatives=5), 10, 1.0, False)
    assert f"3 present and 5 absent among the scored images; about {verdicts.rows_needed(3, 5, 1)} labels among them" in text


def test_features_of_random_weights_prove_nothing() -> None:
    (line,) = early_word.warning(table_of(verdicts.NOTHING), True)
    assert "random weights say little" in line


def test_a_long_table_is_cut_and_long_names_too() -> None:
    table = table_of(*[verdicts.LEARNED] * 23)
    table.loc[0, "attribute"] = "x" * 30
    lines = early_word.text(table, 10, 1.0, False).splitlines()
    assert len(lines) == 23
    assert lines[2].split()[0] == "x" * 19 + "…"
    assert lines[21].split()[0] == "attr_20"
    assert lines[22] == "  and 3 more in metrics/early_word.csv"
    assert "more in" not in early_word.text(table.head(20), 10, 1.0, False)


def test_undefined_scores_are_told_without_figures_that_are_none() -> None:
    undefined = {"roc_auc": np.nan, "roc_auc_low": np.nan, "roc_auc_high": np.nan}
    line = early_word.text(table_of(verdicts.TOO_FEW, **undefined), 10, 1.0, False).splitlines()[2]
    assert "undefined" in line
    assert "nan" not in line


def test_an_undefined_interval_is_left_out() -> None:
    ends = {"roc_auc_low": np.nan, "roc_auc_high": np.nan}
    line = early_word.text(table_of(verdicts.TOO_FEW, **ends), 10, 1.0, False).splitlines()[2]
    assert "0.61" in line
    assert "nan" not in line
