"""evaluate: the right rows by the right networks, thresholds from other rows, and what it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import yaml

from stages import stats
from stages.lib import blending, decisions, files, held_out, inference, params, probe, splits
from stages.lib.metrics import average_precision
from tests.project import CPU, SMALL, Project, one_message, project


def thresholds(made: Project) -> dict[str, float]:
    content = json.loads((made / "decision.json").read_text())["attributes"]
    return {name: value["threshold"] for name, value in content.items()}


def test_evaluate_reproduces_the_best_validation_loss_from_the_saved_file(done: Project) -> None:
    inputs = done.inputs(1)
    scored = held_out.score(inputs, inputs.saved.networks()[0], 1, 0, "val", CPU)
    assert list(scored.rows) == list(np.flatnonzero(inputs.parts == "val"))
    assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[0].val_loss, abs=1e-6)
    written = json.loads((done / "metrics" / "train.json").read_text())
    assert np.nanmean(scored.losses) == pytest.approx(written["val_loss"], abs=2e-6)
    assert np.nanmean(scored.constant_losses) == pytest.approx(written["val_loss_constant"], abs=2e-6)
    epochs = pd.read_csv(done / "metrics" / "epochs.csv")
    # Of the network by itself, without the regression that has a share of what it says.
    (member,) = inputs.saved.members
    alone = replace(inputs.saved, members=[replace(member, share=0.0)]).networks()
    losses = held_out.score(inputs, alone[0], 1, 0, "val", CPU).losses
    assert epochs["val_loss"].min() == pytest.approx(np.nanmean(losses), abs=2e-6)
    assert epochs["val_loss"].idxmin() + 1 == member.epoch == written["best_epoch"]
    assert member.share == written["blend"] > 0


def test_the_share_of_the_regression_is_that_which_validation_rows_ask_for(done: Project) -> None:
    """By hand, from the features and the network by itself."""
    inputs = done.inputs(1)
    (member,) = inputs.saved.members
    alone = replace(inputs.saved, members=[replace(member, share=0.0)]).networks()
    scored = held_out.score(inputs, alone[0], 1, 0, "val", CPU)
    fitted = probe.chosen(inputs.features, inputs.targets, inputs.parts)
    regression = inputs.features[scored.rows].astype(float) @ fitted.weights.T + fitted.bias
    assert member.share == blending.chosen_share(scored.log_odds, regression, inputs.targets[scored.rows])
    both = held_out.score(inputs, inputs.saved.networks()[0], 1, 0, "val", CPU)
    expected = (1 - member.share) * scored.log_odds + member.share * regression
    np.testing.assert_allclose(both.log_odds, expected, atol=1e-3)


def test_the_kept_regressions_are_those_of_the_rows_that_each_network_learned_from(done: Project, folded: Project) -> None:
    for where, folds in ((done, 1), (folded, 3)):
        inputs = where.inputs(folds)
        assert len(inputs.regressions) == folds
        for fold, found in enumerate(inputs.regressions):
            expected = probe.chosen(inputs.features, inputs.targets, splits.roles(inputs.parts, folds, fold))
            # Sums in another order, by another number of threads.
            np.testing.assert_allclose(found.weights, expected.weights, rtol=1e-3, atol=1e-6)
            np.testing.assert_allclose(found.bias, expected.bias, rtol=1e-3, atol=1e-6)
    assert np.abs(inputs.regressions[0].weights - inputs.regressions[1].weights).max() > 1e-3


def test_a_share_that_is_set_is_taken_and_0_leaves_the_network_alone(own: Project) -> None:
    for share in (0.25, 0):
        own.set({"train.blend": share})
        own.run("train")
        (member,) = own.inputs(1).saved.members
        assert member.share == share
        assert bool(member.untouched) == bool(share)


def test_evaluate_scores_the_test_rows_and_nothing_else(done: Project) -> None:
    inputs = done.inputs(1)
    table = files.read_table(done / "metrics" / "predictions.csv", "evaluate")
    tested = [name for name, part in zip(inputs.names, inputs.parts, strict=True) if part == "test"]
    assert list(table["image"]) == [name for name in tested for _ in range(2)]
    assert list(table["attribute"]) == ["red", "framed"] * len(tested)
    expected = inputs.targets[inputs.parts == "test"].ravel()
    np.testing.assert_array_equal(table["label"].to_numpy(float), expected)
    decided = table["probability"] >= table["attribute"].map(thresholds(done))
    np.testing.assert_array_equal(table["decision"], decided.astype(int))
    assert json.loads((done / "metrics" / "evaluation.json").read_text())["images"] == len(tested)


def test_thresholds_are_those_of_the_validation_rows(done: Project) -> None:
    """By hand: from the networks' logits to the best F1 over all candidate thresholds."""
    inputs = done.inputs(1)
    rows = np.flatnonzero(inputs.parts == "val")
    logits = inference.logits(inputs.saved.networks()[0], inputs.store, rows, inputs.saved.preprocessing, CPU)
    decision = json.loads((done / "decision.json").read_text())["attributes"]
    temperature = np.array([decision[name]["temperature"] for name in inputs.saved.attributes])
    probabilities = 1 / (1 + np.exp(-(logits - inputs.saved.log_pos_weight(0)) / temperature))
    for column, name in enumerate(inputs.saved.attributes):
        truth, score = inputs.targets[rows, column], probabilities[:, column]
        known = ~np.isnan(truth)

        def f1(threshold: float, truth: np.ndarray = truth[known], score: np.ndarray = score[known]) -> float:
            called = score >= threshold
            return 2 * truth[called].sum() / (called.sum() + truth.sum())

        best = max(f1(candidate) for candidate in score[known])
        assert f1(decision[name]["threshold"]) == pytest.approx(best)


def test_with_folds_every_row_is_scored_once_by_the_member_that_has_not_seen_it(folded: Project) -> None:
    inputs = folded.inputs(3)
    assert len(inputs.saved.members) == 3
    table = files.read_table(folded / "metrics" / "predictions.csv", "evaluate")
    assert list(table["image"]) == [name for name in inputs.names for _ in range(2)]
    networks = inputs.saved.networks()
    temperatures: dict[int, list[np.ndarray]] = {}
    for row in range(24):
        fold = int(inputs.parts[row])  # the fold that is tested by the member of this number
        logits = inference.logits(networks[fold], inputs.store, [row], inputs.saved.preprocessing, CPU)[0]
        expected = 1 / (1 + np.exp(-(logits - inputs.saved.log_pos_weight(fold))))
        found = table[table["image"] == inputs.names[row]]["probability"]
        assert ((found > 0.5) == (expected > 0.5)).all()  # a temperature changes how sure, not which
        ratio = np.log(found / (1 - found)) / np.log(expected / (1 - expected))
        temperatures.setdefault(fold, []).append(1 / ratio)
    for fold in range(3):
        # One temperature for all rows of a fold: only the right network's log-odds are that far apart by one factor.
        np.testing.assert_allclose(temperatures[fold], np.broadcast_to(temperatures[fold][0], (8, 2)), rtol=5e-2)
        scored = held_out.score(inputs, networks[fold], 3, fold, "val", CPU)
        assert (inputs.parts[scored.rows].astype(int) == (fold + 1) % 3).all()
        assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[fold].val_loss, abs=1e-6)


def test_no_fold_is_calibrated_or_decided_by_what_it_has_shaped() -> None:
    """Changing the labels of one fold changes no probability and no decision in that fold."""
    chance = np.random.default_rng(0)
    log_odds = chance.normal(0, 3, (60, 2))
    targets = (log_odds + chance.normal(0, 3, (60, 2)) > 0).astype(float)
    fold_of, goal = np.arange(60) % 3, decisions.Goal("f1", 0.9, 0.5)

    def outcome(labels: np.ndarray):
        rows = np.arange(60)
        inputs = mock.Mock(targets=labels, groups=rows)
        scored = held_out.Scored(rows, fold_of, log_odds, log_odds, log_odds, log_odds, log_odds)
        return held_out.outcome_of(inputs, scored, decisions.tune(labels, log_odds, rows, goal), goal, 3)

    before = outcome(targets)
    changed = targets.copy()
    changed[fold_of == 1] = 1 - changed[fold_of == 1]
    after = outcome(changed)
    own = fold_of == 1
    np.testing.assert_array_equal(before.decided[own], after.decided[own])
    np.testing.assert_array_equal(before.log_odds[own], after.log_odds[own])
    assert (before.decided != after.decided).any()
    assert (before.log_odds != after.log_odds).any()


def test_a_model_of_other_folds_is_not_evaluated(own: Project) -> None:
    settings = yaml.safe_load((own / "params.yaml").read_text())
    (own / "params.yaml").write_text(yaml.safe_dump(settings | {"folds": 3}))
    assert "was trained on other attributes, folds or images" in one_message(own.run("evaluate", expect=1))


def test_an_attribute_of_which_nothing_is_known_goes_through_all_stages(tmp_path: Path) -> None:
    made = project(tmp_path / "never", SMALL, never=True)
    made.run("train")
    made.run("evaluate")
    inputs = made.inputs(1)
    scored = held_out.score(inputs, inputs.saved.networks()[0], 1, 0, "val", CPU)
    assert np.isnan(scored.losses[:, 2]).all()
    assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[0].val_loss, abs=1e-6)
    table = files.read_table(made / "metrics" / "attributes.csv", "evaluate").set_index("attribute")
    assert table.loc["never", "known"] == 0
    assert np.isnan(table.loc["never", "ap"])
    assert table.loc["never", "verdict"] == "too few examples to tell"
    written = json.loads((made / "metrics" / "evaluation.json").read_text())["attributes"]["never"]
    assert written["known"] == 0
    assert "ap" not in written
    assert thresholds(made)["never"] == 0.5
    _, tagged, _ = made.tag(made / "images")
    assert tagged["never_probability"].between(0, 1).all()


def test_an_attribute_that_training_rows_know_nothing_of(own: Project) -> None:
    """Known on validation and test rows only: weight 1, and the constant gives it even odds."""
    table = files.read_table(own / "clean" / "labels.csv", "validate")
    parts = files.read_table(own / "clean" / "splits.csv", "stats")["part"].to_numpy()
    table.loc[parts == "train", "framed"] = np.nan
    files.write_table(own / "clean" / "labels.csv", table)
    targets = table[["red", "framed"]].to_numpy(float)
    settings = params.load(own / "params.yaml", stats.READS)
    files.write_json(own / "metrics" / "stats.json", stats.statistics(targets, parts, ["red", "framed"], settings))
    own.run("train")
    own.run("evaluate")
    inputs = own.inputs(1)
    assert inputs.saved.members[0].pos_weight[1] == 1
    scored = held_out.score(inputs, inputs.saved.networks()[0], 1, 0, "test", CPU)
    known = ~np.isnan(scored.losses[:, 1])
    assert known.any()
    np.testing.assert_allclose(scored.constant_losses[known, 1], np.log(2), atol=1e-12)


def test_spread_over_folds_is_that_of_each_fold_scored_by_itself(folded: Project) -> None:
    inputs = folded.inputs(3)
    table = files.read_table(folded / "metrics" / "predictions.csv", "evaluate")
    wide = table.pivot(index="image", columns="attribute", values="probability").loc[inputs.names, inputs.saved.attributes]
    each = []
    for fold in range(3):
        rows = inputs.parts.astype(int) == fold
        each.append(average_precision(inputs.targets[rows], wide.to_numpy()[rows]))
    everywhere = ~np.isnan(each).any(axis=0)
    each = np.array(each)[:, everywhere].mean(axis=1)
    figures = json.loads((folded / "metrics" / "evaluation.json").read_text())["macro"]
    assert figures["ap_fold_mean"] == pytest.approx(np.mean(each), abs=1e-5)
    assert figures["ap_fold_std"] == pytest.approx(np.std(each, ddof=1), abs=1e-5)


def test_a_model_of_another_split_is_not_evaluated(own: Project) -> None:
    """Its test images may be among those it has learned from."""
    split = files.read_table(own / "clean" / "splits.csv", "stats")
    split["part"] = split["part"].map({"train": "test", "test": "train", "val": "val"})
    files.write_table(own / "clean" / "splits.csv", split)
    assert "was trained on another split" in one_message(own.run("evaluate", expect=1))
