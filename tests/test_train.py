"""train: its tables, its model file, the same bits twice, and what a failure leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from stages.lib import assessment, fusing, inference, metrics, trunk
from stages.lib.preprocessing import to_input
from tests.project import CPU, ROOT, Project, one_message


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


def test_logits_do_not_depend_on_the_batch_or_the_store(done: Project) -> None:
    inputs = done.inputs(1)
    network, how = inputs.saved.networks()[0], inputs.saved.preprocessing
    together = inference.logits(network, inputs.store, range(24), how, CPU)
    with torch.inference_mode():
        alone = torch.cat([network(to_input(np.array(inputs.store[row][None]), how)) for row in range(24)])
    np.testing.assert_allclose(together, alone.numpy(), atol=1e-4)
    np.testing.assert_allclose(inference.logits(network, inputs.store, [7, 3], how, CPU), together[[7, 3]], atol=1e-4)


def test_networks_start_from_different_heads(folded: Project) -> None:
    """Three folds of two each: `fit` counts them through, fold by fold."""
    members = folded.inputs(3).saved.members
    heads = [state["head.4.weight"] for member in members for state in (member.state, *member.others)]
    assert len(heads) == 6
    assert not any(torch.equal(one, other) for one, other in combinations(heads, 2))
    epochs = pd.read_csv(folded / "metrics" / "epochs.csv")
    assert list(epochs.groupby("fit").size()) == [2] * 6
    own = [epochs[epochs["fit"] == 2 * fold] for fold in range(3)]  # the first network of each fold
    assert [rows.loc[rows["val_loss"].idxmin(), "epoch"] for rows in own] == [member.epoch for member in members]


@pytest.mark.parametrize("blend", [0, 0.25])
def test_networks_of_one_split_are_trained_in_turn_and_averaged(done: Project, own: Project, blend: float) -> None:
    own.set({"train.networks": 2, "train.blend": blend})
    told = own.run("train").out
    assert [f"network {number} of 2: " in told for number in (1, 2, 3)] == [True, True, False]
    assert told.count("  2 networks together: val loss ") == 1
    alone, epochs = (pd.read_csv(project / "metrics" / "epochs.csv") for project in (done, own))
    first, second = (epochs[epochs["fit"] == number].reset_index(drop=True) for number in (0, 1))
    pd.testing.assert_frame_equal(first, alone)
    assert list(second["epoch"]) == [1, 2]
    assert (second["val_loss"] != first["val_loss"]).all()
    inputs = own.inputs(1)
    (member,), (network,) = inputs.saved.members, inputs.saved.networks()
    (other,) = member.others
    assert "head.4.weight" in other
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) for name in other)  # frozen
    rows = np.flatnonzero(inputs.parts == "val")
    logits = inference.logits(network, inputs.store, rows, inputs.saved.preprocessing, CPU)
    written = json.loads((own / "metrics" / "train.json").read_text())
    assert written["blend"] == blend
    found = metrics.mean_loss(logits, inputs.targets[rows], np.array(member.pos_weight))
    assert written["val_loss"] == pytest.approx(found, abs=1e-4)
    assert written["val_ap"] == pytest.approx(metrics.macro(metrics.average_precision(inputs.targets[rows], logits)), abs=1e-4)


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
    kept = [own / "model.pth", own / "frozen.safetensors", *(own / "metrics").iterdir()]
    before = {path: path.read_bytes() for path in kept}
    message = one_message(own.run("train", expect=1))
    assert expected in message or (expected == "lr too high" and "lower lr" in message)
    assert {path: path.read_bytes() for path in kept} == before


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


def test_a_head_can_start_as_the_regression_that_evaluate_reports(own: Project) -> None:
    """At a learning rate of nearly nothing it is that regression still, shifted by what pos_weight does to the loss."""
    changed = {"train.head_start": "regression", "train.hidden": 0, "lr": 1e-12, "freeze": "all", "epochs": 1}
    own.set(changed | {"dropout": [0.0, 0.0]})
    own.run("train")
    own.run("evaluate")
    inputs = own.inputs(1)
    expected = assessment.features_log_odds(inputs, 1)
    tested = np.flatnonzero(inputs.parts == "test")
    logits = inference.logits(inputs.saved.networks()[0], inputs.store, tested, inputs.saved.preprocessing, CPU)
    np.testing.assert_allclose(logits - inputs.saved.log_pos_weight(0), expected[tested], atol=1e-3)
    assert json.loads((own / "metrics" / "train.json").read_text())["best_epoch"] in (0, 1)


def test_a_regression_can_not_start_a_head_with_a_hidden_layer(own: Project) -> None:
    own.set({"train.head_start": "regression", "train.hidden": 8})
    assert "set train.hidden to 0" in one_message(own.run("train", expect=1))


def test_training_and_scoring_may_see_other_sizes(own: Project) -> None:
    own.set({"train.resolution": 32, "train.test_resolution": 48, "augment.mix": "mixup", "train.ema": 0.5})
    own.run("train")
    assert own.inputs(1).saved.preprocessing.resolution == 48
    own.run("evaluate")


def test_it_says_what_trains_and_what_is_frozen(own: Project) -> None:
    own.set({"freeze": "layer3"})
    said = own.run("train").out
    table = {line.split()[0]: line.split()[-1] for line in said.splitlines() if " parameters  " in line}
    assert list(table) == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert list(table.values()) == ["frozen"] * 3 + ["trains"] * 3


def test_a_wrong_setting_is_answered_before_pytorch_is_imported(own: Project, tmp_path: Path) -> None:
    own.set({"dropout": 1.5})
    (tmp_path / "torch.py").write_text("raise SystemExit('PyTorch was imported')\n")
    command = [sys.executable, "-m", "stages.train", "--params", str(own / "params.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert "dropout" in done.stderr


def test_what_is_frozen_runs_as_prediction_does(own: Project) -> None:
    """The backbone that gives the frozen features, and the trunk below the first trained stage."""
    with (
        mock.patch.object(fusing, "at_work", side_effect=fusing.at_work) as made,
        mock.patch.object(trunk, "through", side_effect=trunk.through) as through,
    ):
        own.run("train")
    assert made.call_count == 2
    assert through.call_count
    for call in through.call_args_list:
        assert any(isinstance(module, fusing.Fused) for module in call.args[0].modules())


def test_two_processes_train_what_one_does(own: Project) -> None:
    """As `train.processes: 2` starts them, two networks; without dropout, whose masks differ. Rounding grows over the steps.

    The first epoch has fresh views, the second those of the first in another order, of which each process had a part.
    """
    settings = yaml.safe_load((own / "params.yaml").read_text()) | {"dropout": 0.0}
    found = []
    for processes in (1, 2):
        settings["train"] |= {"processes": processes, "views": 1, "networks": 2, "blend": 0}
        (own / "params.yaml").write_text(yaml.safe_dump(settings))
        (own / "model.pth").unlink()
        if processes == 1:
            own.run("train")
        else:
            places = ["--clean", own / "clean", "--model", own / "model.pth", "--frozen", own / "frozen.safetensors"]
            places += ["--metrics", own / "metrics", "--params", own / "params.yaml", "--checkpoint", own / "checkpoint"]
            command = [sys.executable, "-m", "stages.train", *map(str, places)]
            done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
            assert done.stdout.count("kept epoch") == 2
        found.append(yaml.safe_load((own / "metrics" / "train.json").read_text()))
    assert found[1] == pytest.approx(found[0], rel=5e-3)
    with (own / "params.yaml").open("w") as opened:
        yaml.safe_dump(settings | {"lr": 1e30, "weights": "none"}, opened)
    failed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: ")
    assert failed.stderr.count("error: ") == 1
    assert "Traceback" not in failed.stderr
