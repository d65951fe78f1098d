"""Train, evaluate and predict on two dozen made pictures: the real stages, shrunk."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from stages import evaluate, stats
from stages.lib import errors, files, images, inference, model, params
from stages.lib.metrics import average_precision
from stages.lib.preprocessing import to_input

# Small pictures gain nothing from a second thread, and lose much where another process computes too.
torch.set_num_threads(1)

ROOT = Path(__file__).parents[1]
CPU = torch.device("cpu")
SMALL = {
    "backbone": "tf_efficientnet_lite0",
    "weights": "none",
    "freeze": "layer2",
    "epochs": 2,
    "lr": 0.01,
    "validate.side": 64,
    "stats.val": 0.25,
    "stats.test": 0.25,
    "train.resolution": 32,
    "train.batch_size": 5,
    "train.hidden": 16,
    "train.device": "cpu",
}
FAST = SMALL | {"backbone": "test_resnet"}
ATTRIBUTES = ["red", "framed", "never"]


@dataclass
class Result:
    code: int
    out: str
    err: str


@dataclass
class Project:
    """A folder with pictures, labels, settings and what the stages write."""

    folder: Path

    def run(self, stage: str, *more: object, expect: int = 0) -> Result:
        """The stage as `python -m` would run it, without the seconds that a new interpreter takes."""
        places: dict[str, list[object]] = {
            "validate": ["--images", self / "images", "--labels", self / "labels.txt", "--out", self / "clean"],
            "stats": ["--clean", self / "clean"],
            "train": ["--clean", self / "clean", "--model", self / "model.pth"],
            "evaluate": ["--clean", self / "clean", "--model", self / "model.pth", "--decision", self / "decision.json"],
            "predict": ["--model", self / "model.pth", "--decision", self / "decision.json"],
        }
        arguments = [*places[stage], "--params", self / "params.yaml", *more]
        if stage != "predict":
            arguments += ["--metrics", self / "metrics"]
        out, err = io.StringIO(), io.StringIO()
        code: Any = 0
        module = importlib.import_module(f"stages.{stage}")
        argv = [stage, *map(str, arguments)]
        with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                errors.run_stage(module.main)
            except SystemExit as end:
                code = end.code
        assert code == expect, f"{stage}: {out.getvalue()}{err.getvalue()}"
        return Result(code, out.getvalue(), err.getvalue())

    def tag(self, folder: Path, *more: object) -> tuple[Result, pd.DataFrame, pd.DataFrame]:
        """Predict on a folder: what was printed, the predictions, the unreadable files."""
        places = ["--images", folder, "--out", self / "predictions.csv", "--unreadable", self / "unreadable.csv"]
        result = self.run("predict", *places, *more)
        tables = (files.read_table(self / name, "predict") for name in ("predictions.csv", "unreadable.csv"))
        return result, *tables

    def inputs(self, folds: int) -> evaluate.Inputs:
        clean, metrics = self / "clean", self / "metrics"
        return evaluate.read_inputs(mock.Mock(clean=clean, metrics=metrics, model=self / "model.pth"), folds)

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


def draw(seed: int, red: bool, framed: bool) -> Image.Image:
    chance = np.random.default_rng(seed)
    coarse = Image.fromarray(chance.integers(0, 200, (8, 8, 3), dtype=np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    pixels = np.array(coarse)
    if red:
        pixels[:, :, 0] = 255
    if framed:
        pixels[:8] = pixels[-8:] = pixels[:, :8] = pixels[:, -8:] = 0
    return Image.fromarray(pixels)


def project(folder: Path, changes: dict[str, Any], never: bool = False) -> Project:
    """24 pictures through validate and stats; with `never` a third attribute of which nothing is known."""
    made = Project(folder)
    (made / "images").mkdir(parents=True)
    chance = np.random.default_rng(1)
    lines = [" ".join(["image", *ATTRIBUTES[: 2 + never]])]
    for number in range(24):
        red, framed = chance.random(2) < [0.5, 0.3]
        draw(number, red, framed).save(made / "images" / f"{number}.png")
        cells = [str(int(red)), "NA" if number % 6 == 5 else str(int(framed)), *["NA"] * never]
        lines.append(" ".join([f"{number}.png", *cells]))
    (made / "labels.txt").write_text("\n".join(lines) + "\n")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        (settings[section] if section else settings)[name] = value
    (made / "params.yaml").write_text(yaml.safe_dump(settings))
    made.run("validate")
    made.run("stats")
    return made


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """All stages run; tests read it and leave it as it is."""
    made = project(tmp_path_factory.mktemp("done"), SMALL)
    made.run("train")
    made.run("evaluate")
    return made


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = project(tmp_path_factory.mktemp("folded"), FAST | {"folds": 3, "freeze": "layer4"})
    made.run("train")
    made.run("evaluate")
    return made


@pytest.fixture
def own(done: Project, tmp_path: Path) -> Project:
    """A copy of `done` to spoil."""
    shutil.copytree(done.folder, tmp_path / "own")
    return Project(tmp_path / "own")


def one_message(result: Result) -> str:
    """The message of a stage that ended with one."""
    assert result.err.startswith("error: ")
    assert "Traceback" not in result.err
    assert result.err.count("error: ") == 1
    return result.err


def test_evaluate_reproduces_the_best_validation_loss_from_the_saved_file(done: Project) -> None:
    inputs = done.inputs(1)
    scored = evaluate.score(inputs, inputs.saved.networks(), 1, 0, "val", CPU)
    assert list(scored.rows) == list(np.flatnonzero(inputs.parts == "val"))
    assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[0].val_loss, abs=1e-6)
    written = json.loads((done / "metrics" / "train.json").read_text())
    assert np.nanmean(scored.losses) == pytest.approx(written["val_loss"], abs=2e-6)
    assert np.nanmean(scored.constant_losses) == pytest.approx(written["val_loss_constant"], abs=2e-6)
    epochs = pd.read_csv(done / "metrics" / "epochs.csv")
    assert epochs["val_loss"].min() == pytest.approx(written["val_loss"], abs=2e-6)
    assert epochs["val_loss"].idxmin() + 1 == inputs.saved.members[0].epoch == written["best_epoch"]


def test_train_leaves_its_tables(done: Project) -> None:
    iterations = pd.read_csv(done / "metrics" / "iterations.csv")
    n_train = (done.inputs(1).parts == "train").sum()
    per_epoch = n_train // 5 + (n_train % 5 > 1)
    assert list(iterations["iteration"]) == list(range(1, 2 * per_epoch + 1))
    assert list(pd.read_csv(done / "metrics" / "epochs.csv")["epoch"]) == [1, 2]
    assert (done / "metrics" / "loss_curve.png").stat().st_size > 1000
    content = torch.load(done / "model.pth", weights_only=True)
    assert content["attributes"] == ["red", "framed"]
    assert content["settings"]["freeze"] == "layer2"
    assert content["preprocessing"]["side"] == 64


def test_evaluate_scores_the_test_rows_and_nothing_else(done: Project) -> None:
    inputs = done.inputs(1)
    table = files.read_table(done / "metrics" / "predictions.csv", "evaluate")
    tested = [name for name, part in zip(inputs.names, inputs.parts, strict=True) if part == "test"]
    assert list(table["image"]) == [name for name in tested for _ in range(2)]
    assert list(table["attribute"]) == ["red", "framed"] * len(tested)
    expected = inputs.targets[inputs.parts == "test"].ravel()
    np.testing.assert_array_equal(table["label"].to_numpy(float), expected)
    thresholds = json.loads((done / "decision.json").read_text())["thresholds"]
    decided = table["probability"] >= table["attribute"].map(thresholds)
    np.testing.assert_array_equal(table["decision"], decided.astype(int))
    written = json.loads((done / "metrics" / "evaluation.json").read_text())
    assert written["images"] == len(tested)
    assert all(np.isfinite(value) for value in written.values())


def test_thresholds_are_those_of_the_validation_rows(done: Project) -> None:
    """By hand: from the networks' logits to the best F1 over all candidate thresholds."""
    inputs = done.inputs(1)
    rows = np.flatnonzero(inputs.parts == "val")
    logits = inference.logits(inputs.saved.networks()[0], inputs.store, rows, inputs.saved.preprocessing, CPU)
    probabilities = 1 / (1 + np.exp(-(logits - inputs.saved.log_pos_weight(0))))
    thresholds = json.loads((done / "decision.json").read_text())["thresholds"]
    for column, name in enumerate(inputs.saved.attributes):
        truth, score = inputs.targets[rows, column], probabilities[:, column]
        known = ~np.isnan(truth)

        def f1(threshold: float, truth: np.ndarray = truth[known], score: np.ndarray = score[known]) -> float:
            called = score >= threshold
            return 2 * truth[called].sum() / (called.sum() + truth.sum())

        best = max(f1(candidate) for candidate in score[known])
        assert f1(thresholds[name]) == pytest.approx(best)


def test_logits_do_not_depend_on_the_batch_or_the_store(done: Project) -> None:
    inputs = done.inputs(1)
    network, how = inputs.saved.networks()[0], inputs.saved.preprocessing
    together = inference.logits(network, inputs.store, range(24), how, CPU)
    with torch.inference_mode():
        alone = torch.cat([network(to_input(np.array(inputs.store[row : row + 1]), how)) for row in range(24)])
    np.testing.assert_allclose(together, alone.numpy(), atol=1e-4)
    np.testing.assert_allclose(inference.logits(network, inputs.store, [7, 3], how, CPU), together[[7, 3]], atol=1e-4)


def test_predict_on_the_test_pictures_agrees_with_evaluate(done: Project, tmp_path: Path) -> None:
    evaluated = files.read_table(done / "metrics" / "predictions.csv", "evaluate").set_index(["image", "attribute"])
    for name in evaluated.index.unique("image"):
        shutil.copy(done / "images" / name, tmp_path / name)
    _, table, unreadable = done.tag(tmp_path)
    assert len(unreadable) == 0
    assert sorted(table["image"]) == sorted(evaluated.index.unique("image"))
    for row in table.to_dict("records"):
        for attribute in ("red", "framed"):
            expected = evaluated.loc[(row["image"], attribute)]
            assert row[f"{attribute}_probability"] == pytest.approx(expected["probability"], abs=1e-5)
            assert row[attribute] == expected["decision"]


def test_with_folds_every_row_is_scored_once_by_the_member_that_has_not_seen_it(folded: Project) -> None:
    inputs = folded.inputs(3)
    assert len(inputs.saved.members) == 3
    table = files.read_table(folded / "metrics" / "predictions.csv", "evaluate")
    assert list(table["image"]) == [name for name in inputs.names for _ in range(2)]
    networks = inputs.saved.networks()
    for row in range(24):
        fold = int(inputs.parts[row])  # the fold that is tested by the member of this number
        logits = inference.logits(networks[fold], inputs.store, [row], inputs.saved.preprocessing, CPU)[0]
        expected = 1 / (1 + np.exp(-(logits - inputs.saved.log_pos_weight(fold))))
        found = table[table["image"] == inputs.names[row]]["probability"]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for fold in range(3):
        scored = evaluate.score(inputs, networks, 3, fold, "val", CPU)
        assert (inputs.parts[scored.rows].astype(int) == (fold + 1) % 3).all()
        assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[fold].val_loss, abs=1e-6)


def test_members_start_from_different_heads(folded: Project) -> None:
    heads = [member.state["head.4.weight"] for member in folded.inputs(3).saved.members]
    assert not torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[1], heads[2])


def test_no_fold_is_decided_by_a_threshold_that_it_has_shaped() -> None:
    """Changing the labels of one fold changes no decision in that fold."""
    chance = np.random.default_rng(0)
    targets, probabilities = chance.integers(0, 2, (30, 2)).astype(float), chance.random((30, 2))
    fold_of = np.arange(30) % 3
    settings = params.Evaluate(threshold="f1", fixed_threshold=0.5)
    before = evaluate.decided_out_of_fold(targets, probabilities, fold_of, settings)
    changed = targets.copy()
    changed[fold_of == 1] = 1 - changed[fold_of == 1]
    after = evaluate.decided_out_of_fold(changed, probabilities, fold_of, settings)
    np.testing.assert_array_equal(before[fold_of == 1], after[fold_of == 1])
    assert (before != after).any()


def test_predict_averages_the_log_odds_of_the_members(folded: Project) -> None:
    _, table, _ = folded.tag(folded / "images")
    saved = model.load(folded / "model.pth")
    frame = images.Frame(64, "squash", 100, 20)
    networks = saved.networks()
    for row in table.head(4).to_dict("records"):
        picture = images.open_square(folded / "images" / row["image"], frame).pixels
        log_odds = []
        for index, network in enumerate(networks):
            with torch.inference_mode():
                logits = network(to_input(np.array(picture)[None], saved.preprocessing))[0].double().numpy()
            log_odds.append(logits - np.log(saved.members[index].pos_weight))
        expected = 1 / (1 + np.exp(-np.mean(log_odds, axis=0)))
        np.testing.assert_allclose([row["red_probability"], row["framed_probability"]], expected, atol=1e-5)


def test_predict_one_image(done: Project) -> None:
    result = done.run("predict", "--image", done / "images" / "3.png", "--threshold", "0.5")
    lines = result.out.splitlines()
    present = []
    assert len(lines) == 3
    for name, line in zip(("red", "framed"), lines, strict=False):
        found = re.fullmatch(r"(\S+) +(present|absent) +([01]\.\d{3})  \(threshold 0\.50\)", line)
        assert found, line
        assert found[1] == name
        assert (found[2] == "present") == (float(found[3]) >= 0.5)
        present += [name] if found[2] == "present" else []
    assert lines[2] == f"present: {', '.join(present) or 'none'}"


@pytest.mark.parametrize(("threshold", "present"), [("0", "red, framed"), ("1", "none")])
def test_predict_one_image_lists_what_is_present(done: Project, threshold: str, present: str) -> None:
    result = done.run("predict", "--image", done / "images" / "3.png", "--threshold", threshold)
    assert result.out.splitlines()[-1] == f"present: {present}"


def test_predict_one_image_uses_the_thresholds_of_the_decision_file(own: Project) -> None:
    content = json.loads((own / "decision.json").read_text())
    content["thresholds"] = {"framed": 0.0, "red": 1.0}
    (own / "decision.json").write_text(json.dumps(content))
    lines = own.run("predict", "--image", own / "images" / "3.png").out.splitlines()
    assert "(threshold 1.00)" in lines[0]
    assert "(threshold 0.00)" in lines[1]
    assert lines[2] == "present: framed"


def test_a_threshold_overrides_the_decision_file_and_needs_none(own: Project) -> None:
    (own / "decision.json").unlink()
    _, table, _ = own.tag(own / "images", "--threshold", "0.4")
    for name in ("red", "framed"):
        np.testing.assert_array_equal(table[name], (table[f"{name}_probability"] >= 0.4).astype(int))


def test_predict_lists_what_it_can_not_read_and_goes_on(done: Project, tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    shutil.copy(done / "images" / "1.png", tmp_path / "deeper" / "good.png")
    shutil.copy(done / "images" / "2.png", tmp_path / "a.png")
    whole = (done / "images" / "3.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image by its name")
    result, table, unreadable = done.tag(tmp_path)
    assert list(table["image"]) == ["a.png", "deeper/good.png"]
    reasons = dict(unreadable.itertuples(index=False))
    assert list(reasons) == ["cut.png", "empty.jpg", "notes.txt", "page.jpg"]
    assert "not an image" in reasons["notes.txt"]
    assert "HTML" in reasons["page.jpg"]
    assert "empty" in reasons["empty.jpg"]
    assert "cut off" in reasons["cut.png"] or "damaged" in reasons["cut.png"]
    assert "6 files, 2 tagged, 4 could not be read" in result.out


def test_predict_on_a_folder_of_unreadable_files_only(done: Project, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_text("<html></html>")
    result, table, unreadable = done.tag(tmp_path)
    assert (len(table), len(unreadable)) == (0, 1)
    assert "1 files, 0 tagged, 1 could not be read" in result.out


def test_predict_on_an_empty_folder(done: Project, tmp_path: Path) -> None:
    result, table, unreadable = done.tag(tmp_path)
    assert list(table.columns) == ["image", "red_probability", "red", "framed_probability", "framed"]
    assert (len(table), len(unreadable)) == (0, 0)
    assert "0 files, 0 tagged" in result.out


def test_predict_does_not_depend_on_the_batch_size(own: Project) -> None:
    _, before, _ = own.tag(own / "images")
    settings = yaml.safe_load((own / "params.yaml").read_text())
    settings["predict"] |= {"batch_size": 5, "workers": 1}
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    _, after, _ = own.tag(own / "images")
    pd.testing.assert_frame_equal(before, after, atol=1e-5, rtol=0)


@pytest.mark.parametrize("threshold", ["1.5", "-0.1", "half", "nan", "inf", ""])
def test_a_wrong_threshold(done: Project, threshold: str) -> None:
    """Refused by argparse, whose exit code for a wrong command line is 2."""
    result = done.run("predict", "--image", done / "images" / "3.png", f"--threshold={threshold}", expect=2)
    assert f"{threshold!r} is not a probability from 0 to 1" in result.err
    assert result.out == ""


def test_a_stage_as_a_command_ends_with_exit_code_1_and_one_message(
    run_stage: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_stage("predict", "--image", tmp_path / "photo.jpg", "--model", tmp_path / "model.pth")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error: model {tmp_path / 'model.pth'} is missing; the train stage writes it: run 'dvc repro train'"
    ]


@pytest.mark.parametrize("stage", ["predict", "evaluate"])
def test_a_missing_model(own: Project, stage: str) -> None:
    (own / "model.pth").unlink()
    before = (own / "decision.json").read_bytes()
    more = ["--image", own / "images" / "3.png"] if stage == "predict" else []
    assert "model.pth is missing" in one_message(own.run(stage, *more, expect=1))
    assert (own / "decision.json").read_bytes() == before


def test_a_missing_decision_file(own: Project) -> None:
    (own / "decision.json").unlink()
    message = one_message(own.run("predict", "--image", own / "images" / "3.png", expect=1))
    assert "decision.json is missing; the evaluate stage writes it" in message


def test_a_decision_file_of_another_model(own: Project) -> None:
    saved = model.load(own / "model.pth")
    saved.members[0].epoch += 1
    model.save(own / "model.pth", saved)
    message = one_message(own.run("predict", "--image", own / "images" / "3.png", expect=1))
    assert "decision.json belongs to another model file" in message


def test_a_missing_image_and_a_missing_folder(done: Project, tmp_path: Path) -> None:
    message = one_message(done.run("predict", "--image", tmp_path / "no.jpg", expect=1))
    assert f"{tmp_path / 'no.jpg'}: no such file" in message
    assert "does not exist" in one_message(done.run("predict", "--images", tmp_path / "no", expect=1))


def test_a_model_of_other_folds_is_not_evaluated(own: Project) -> None:
    settings = yaml.safe_load((own / "params.yaml").read_text())
    (own / "params.yaml").write_text(yaml.safe_dump(settings | {"folds": 3}))
    assert "was trained on other attributes, folds or images" in one_message(own.run("evaluate", expect=1))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"backbone": "resnet5"}, "near matches: "),
        ({"weights": "nowhere.pth"}, "'nowhere.pth' is not a file"),
        ({"freeze": "layer9"}, "layer1, layer2, layer3, layer4, all"),
        ({"lr": 1e30, "weights": "none"}, "lr too high"),
    ],
    ids=["backbone", "weights", "freeze", "lr"],
)
def test_a_failed_training_leaves_the_earlier_outputs(own: Project, change: dict[str, Any], expected: str) -> None:
    settings = yaml.safe_load((own / "params.yaml").read_text())
    (own / "params.yaml").write_text(yaml.safe_dump(settings | change))
    before = {path: path.read_bytes() for path in [own / "model.pth", *(own / "metrics").iterdir()]}
    message = one_message(own.run("train", expect=1))
    assert expected in message or (expected == "lr too high" and "lower lr" in message)
    assert {path: path.read_bytes() for path in [own / "model.pth", *(own / "metrics").iterdir()]} == before


def test_an_attribute_of_which_nothing_is_known_goes_through_all_stages(tmp_path: Path) -> None:
    made = project(tmp_path / "never", FAST, never=True)
    made.run("train")
    made.run("evaluate")
    inputs = made.inputs(1)
    scored = evaluate.score(inputs, inputs.saved.networks(), 1, 0, "val", CPU)
    assert np.isnan(scored.losses[:, 2]).all()
    assert np.nanmean(scored.losses) == pytest.approx(inputs.saved.members[0].val_loss, abs=1e-6)
    table = files.read_table(made / "metrics" / "attributes.csv", "evaluate").set_index("attribute")
    assert table.loc["never", "known"] == 0
    assert np.isnan(table.loc["never", "ap"])
    written = json.loads((made / "metrics" / "evaluation.json").read_text())
    assert written["attributes_scored"] <= 2
    assert "ap_never" not in written
    assert json.loads((made / "decision.json").read_text())["thresholds"]["never"] == 0.5
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
    scored = evaluate.score(inputs, inputs.saved.networks(), 1, 0, "test", CPU)
    known = ~np.isnan(scored.losses[:, 1])
    assert known.any()
    np.testing.assert_allclose(scored.constant_losses[known, 1], np.log(2), atol=1e-12)


def test_two_runs_of_train_and_evaluate_are_bit_identical(done: Project, own: Project) -> None:
    torch.manual_seed(99)  # what was drawn before must not matter
    own.run("train")
    own.run("evaluate")
    one, two = (torch.load(where / "model.pth", weights_only=True)["members"][0]["state"] for where in (done, own))
    assert list(one) == list(two)
    assert [name for name in one if not torch.equal(one[name], two[name])] == []
    names = sorted(path.name for path in (done / "metrics").iterdir())
    assert "train.json" in names
    assert [name for name in names if (done / "metrics" / name).read_bytes() != (own / "metrics" / name).read_bytes()] == []
    # The decisions too: the fingerprint in decision.json says that model.pth is the same byte for byte.
    assert (done / "decision.json").read_bytes() == (own / "decision.json").read_bytes()


def test_another_seed_gives_another_model(done: Project, own: Project) -> None:
    settings = yaml.safe_load((own / "params.yaml").read_text())
    (own / "params.yaml").write_text(yaml.safe_dump(settings | {"seed": 1}))
    own.run("train")  # on the same split: stats is not run again
    one, two = (torch.load(where / "model.pth", weights_only=True)["members"][0]["state"] for where in (done, own))
    assert not torch.equal(one["head.4.weight"], two["head.4.weight"])
    assert (done / "metrics" / "train.json").read_bytes() != (own / "metrics" / "train.json").read_bytes()


def test_spread_over_folds_is_that_of_each_fold_scored_by_itself(folded: Project) -> None:
    inputs = folded.inputs(3)
    table = files.read_table(folded / "metrics" / "predictions.csv", "evaluate")
    wide = table.pivot(index="image", columns="attribute", values="probability").loc[inputs.names, inputs.saved.attributes]
    each = []
    for fold in range(3):
        rows = inputs.parts.astype(int) == fold
        each.append(np.nanmean(average_precision(inputs.targets[rows], wide.to_numpy()[rows])))
    figures = json.loads((folded / "metrics" / "evaluation.json").read_text())
    assert figures["ap_fold_mean"] == pytest.approx(np.mean(each), abs=1e-5)
    assert figures["ap_fold_std"] == pytest.approx(np.std(each, ddof=1), abs=1e-5)
