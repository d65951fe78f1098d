"""predict: one image, a folder, broken files, and refusals."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from stages.lib import files, images, model_file
from stages.lib.preprocessing import to_input
from tests.project import Project, one_message


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


def test_predict_averages_the_log_odds_of_the_members(folded: Project) -> None:
    _, table, _ = folded.tag(folded / "images")
    saved = model_file.load(folded / "model.pth")
    frame = images.Frame(64, "squash", 100, 20)
    networks = saved.networks()
    decision = json.loads((folded / "decision.json").read_text())["attributes"]
    temperature = np.array([decision[name]["temperature"] for name in ("red", "framed")])
    for row in table.head(4).to_dict("records"):
        picture = images.open_square(folded / "images" / row["image"], frame).pixels
        log_odds = []
        for index, network in enumerate(networks):
            with torch.inference_mode():
                logits = network(to_input(np.array(picture)[None], saved.preprocessing))[0].double().numpy()
            log_odds.append(logits - np.log(saved.members[index].pos_weight))
        expected = 1 / (1 + np.exp(-np.mean(log_odds, axis=0) / temperature))
        np.testing.assert_allclose([row["red_probability"], row["framed_probability"]], expected, atol=1e-5)


def test_a_threshold_overrides_those_of_the_decision_file_and_not_its_probabilities(own: Project) -> None:
    _, before, _ = own.tag(own / "images")
    _, table, _ = own.tag(own / "images", "--threshold", "0.4")
    for name in ("red", "framed"):
        np.testing.assert_array_equal(table[f"{name}_probability"], before[f"{name}_probability"])
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
    assert list(table["image"]) == ["a.png", "cut.png", "deeper/good.png", "empty.jpg", "notes.txt", "page.jpg"]
    assert list(table["red_probability"].isna()) == [False, True, False, True, True, True]
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
    assert (len(table), len(unreadable)) == (1, 1)
    assert table["red_probability"].isna().all()
    assert "1 files, 0 tagged, 1 could not be read" in result.out


def test_predict_on_an_empty_folder(done: Project, tmp_path: Path) -> None:
    result, table, unreadable = done.tag(tmp_path)
    assert list(table.columns) == ["image", "red_probability", "red", "framed_probability", "framed", "model", "reason"]
    assert (len(table), len(unreadable)) == (0, 0)
    assert "0 files, 0 tagged" in result.out


def test_predict_does_not_depend_on_the_batch_size(own: Project) -> None:
    _, before, _ = own.tag(own / "images")
    settings = yaml.safe_load((own / "params.yaml").read_text())
    settings["predict"] |= {"batch_size": 5, "workers": 1}
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    _, after, _ = own.tag(own / "images")
    # Not the decisions: a probability may lie on its threshold to the last bit.
    probabilities = ["image", "red_probability", "framed_probability"]
    pd.testing.assert_frame_equal(before[probabilities], after[probabilities], atol=1e-5, rtol=0)


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
    saved = model_file.load(own / "model.pth")
    saved.members[0].epoch += 1
    model_file.save(own / "model.pth", saved)
    message = one_message(own.run("predict", "--image", own / "images" / "3.png", expect=1))
    assert "decision.json belongs to another model file" in message


def test_a_missing_image_and_a_missing_folder(done: Project, tmp_path: Path) -> None:
    message = one_message(done.run("predict", "--image", tmp_path / "no.jpg", expect=1))
    assert f"{tmp_path / 'no.jpg'}: no such file" in message
    assert "does not exist" in one_message(done.run("predict", "--images", tmp_path / "no", expect=1))
    assert "--image '': " in one_message(done.run("predict", "--image", "", expect=1))


def test_a_folder_given_as_an_image(done: Project, tmp_path: Path) -> None:
    message = one_message(done.run("predict", "--image", done / "images" / "1.png", tmp_path, expect=1))
    assert f"{tmp_path} is a folder; tag the files in it with --images" in message
