"""train after an interruption: it carries on behind the last whole epoch, ends with the same bytes, and mixes nothing in."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import yaml

from stages.lib import all_folds, checkpoint, code, feeding, files, probe, training
from tests.project import SMALL, Project, project


class Stopped(Exception):
    """Stands for whatever ends a process."""


WRITTEN = ["model.pth", "frozen.safetensors", "metrics/train.json", "metrics/early_word.csv", "metrics/iterations.csv"]
WRITTEN += ["metrics/epochs.csv", "metrics/loss_curve.png"]


def copy(made: Project, folder: Path) -> Project:
    """A project after stats, as `made` was before train."""
    shutil.copytree(made.folder, folder)
    own = Project(folder)
    for name in WRITTEN:
        (own / name).unlink()
    return own


def stop_in_epoch(project: Project, number: int) -> None:
    """Run train until `number` epochs are trained, of all folds together, and stop in the middle of the next."""
    one_epoch, done = training.train_one_epoch, 0

    def counted(*given: Any) -> float:
        nonlocal done
        if done >= number:
            raise Stopped
        done += 1
        return one_epoch(*given)

    with mock.patch.object(training, "train_one_epoch", counted), pytest.raises(Stopped):
        project.run("train")


def epochs_trained(project: Project) -> int:
    with mock.patch.object(training, "train_one_epoch", side_effect=training.train_one_epoch) as trained:
        project.run("train")
    return trained.call_count


def bytes_of(project: Project) -> dict[str, bytes]:
    return {name: (project / name).read_bytes() for name in WRITTEN}


def test_a_stopped_training_ends_with_the_same_bytes(done: Project, tmp_path: Path) -> None:
    own = copy(done, tmp_path / "own")
    stop_in_epoch(own, 1)
    assert not (own / "model.pth").exists()
    with mock.patch.object(probe, "features") as features:
        assert epochs_trained(own) == 1
    assert features.call_count == 0  # those of the checkpoint
    assert bytes_of(own) == bytes_of(done)
    assert not (own / "checkpoint").exists()


def test_folds_that_are_trained_are_kept(folded: Project, tmp_path: Path) -> None:
    """Three folds of two networks of two epochs, stopped in the last of the second and again in the first of the third."""
    own = copy(folded, tmp_path / "own")
    stop_in_epoch(own, 7)
    stop_in_epoch(own, 1)
    assert epochs_trained(own) == 4
    assert bytes_of(own) == bytes_of(folded)


def test_a_network_that_is_trained_is_kept(done: Project, tmp_path: Path) -> None:
    """Two networks of two epochs, stopped in the last of the second."""
    own, whole = copy(done, tmp_path / "own"), copy(done, tmp_path / "whole")
    for each in (own, whole):
        each.set({"train.networks": 2})
    assert epochs_trained(whole) == 4
    stop_in_epoch(own, 3)
    assert epochs_trained(own) == 1
    assert bytes_of(own) == bytes_of(whole)


# All that may go on from one epoch to the next: a state that the checkpoint forgets makes the test below fail.
EVERYTHING = {"freeze": "layer3", "epochs": 4, "dropout": [0.4, 0.3], "train.hidden": 0, "train.head_start": "regression"}
EVERYTHING |= {"train.networks": 2, "train.ema": 0.7, "train.warmup": 0.3, "train.lr_decay": 0.7, "train.workers": 1}
EVERYTHING |= {"augment.vertical_flip": 0.2, "augment.hue": 0.1, "augment.grayscale": 0.2}


@pytest.mark.parametrize("more", [{"augment.mix": "cutmix"}, {"train.views": 2}], ids=str)  # which exclude each other
def test_a_training_that_stops_behind_every_epoch_ends_with_the_same_bytes(tmp_path: Path, more: dict[str, Any]) -> None:
    made = project(tmp_path / "made", SMALL | EVERYTHING | more)
    shutil.copytree(made.folder, tmp_path / "whole")
    whole = Project(tmp_path / "whole")
    in_all = EVERYTHING["epochs"] * EVERYTHING["train.networks"]
    assert epochs_trained(whole) == in_all

    save = checkpoint.Fold.save

    def save_and_stop(*given: Any, **named: Any) -> None:
        save(*given, **named)
        raise Stopped

    for number in range(in_all):
        for scrambled in (random.seed, np.random.seed, torch.manual_seed):  # as a process of its own begins with other numbers
            scrambled(1000 + number)
        with (
            mock.patch.object(all_folds, "start_head", side_effect=all_folds.start_head) as started,
            mock.patch.object(checkpoint.Fold, "save", save_and_stop),
            pytest.raises(Stopped),
        ):
            made.run("train")
        # Behind the first epoch of a network the head comes from the checkpoint.
        assert started.call_count == (number % EVERYTHING["epochs"] == 0)
    assert epochs_trained(made) == 0
    assert bytes_of(made) == bytes_of(whole)


def test_a_kill_while_outputs_are_written_costs_no_epoch(folded: Project, tmp_path: Path) -> None:
    own = copy(folded, tmp_path / "own")
    with mock.patch.object(files, "write_table", side_effect=Stopped), pytest.raises(Stopped):
        own.run("train")
    assert epochs_trained(own) == 0
    assert bytes_of(own) == bytes_of(folded)


@pytest.mark.parametrize("change", ["lr", "labels", "pixels", "code", "workers"])
def test_only_the_same_training_is_carried_on(done: Project, tmp_path: Path, change: str) -> None:
    own = copy(done, tmp_path / "own")
    stop_in_epoch(own, 1)
    settings = yaml.safe_load((own / "params.yaml").read_text())
    if change == "lr":
        settings["lr"] = 0.02
    elif change == "workers":  # which changes how batches are made, and not what they are
        settings["train"]["workers"] = 1
    elif change == "labels":
        text = (own / "clean" / "labels.csv").read_text()
        (own / "clean" / "labels.csv").write_text(text.replace(",1,0\n", ",1,1\n", 1))
    elif change == "pixels":
        content = bytearray((own / "clean" / "pixels.npy").read_bytes())
        content[-1] ^= 255
        (own / "clean" / "pixels.npy").write_bytes(content)
    (own / "params.yaml").write_text(yaml.safe_dump(settings))
    digest = "0" if change == "code" else code.digest_of("stages.train")
    with mock.patch.object(code, "digest_of", return_value=digest):
        out = own.run("train").out
    if change == "workers":
        assert "carrying on behind 1 epochs" in out
        assert bytes_of(own) == bytes_of(done)  # model.pth says nothing of the number of workers
    else:
        named = {"labels": "labels.csv", "pixels": "pixels.npy"}.get(change, change)
        assert f"checkpoint is of a training with other {named}: set aside" in out
        assert "carrying on" not in out
        assert (own / "checkpoint.other" / "fold-0.pth").is_file()


def test_views_are_the_same_after_a_stop_and_for_any_number_of_workers(tmp_path: Path) -> None:
    """Stopped in the third epoch, which shows the first one's views again: they are made again from the first one's batches."""
    made = project(tmp_path / "made", SMALL | {"freeze": "layer3", "epochs": 4, "train.views": 2, "train.workers": 1})
    assert "2 views of each picture" in made.run("train").out
    own = copy(made, tmp_path / "own")
    own.set({"train.workers": 0})
    stop_in_epoch(own, 2)
    assert epochs_trained(own) == 2
    assert bytes_of(own) == bytes_of(made)


def test_the_share_of_waiting_is_that_of_the_epochs_trained_here(done: Project, tmp_path: Path) -> None:
    """An earlier process's seconds are not among those that this one waited for data in."""
    own = copy(done, tmp_path / "own")
    stop_in_epoch(own, 1)
    with mock.patch.object(feeding, "Feed", WaitsASecond), mock.patch.object(training, "time", clock(seconds=4)):
        assert "waited for data 25.0% of the time" in own.run("train").out


class WaitsASecond(feeding.Feed):
    def batches(self, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        yield from super().batches(epoch)
        self.waited = 1.0


def clock(seconds: float) -> Any:
    """In place of the module `time`: every look at it finds that so many seconds have passed."""
    return SimpleNamespace(perf_counter=itertools.count(0, seconds).__next__)


def test_an_interrupted_run_leaves_the_earlier_outputs(own: Project) -> None:
    before = bytes_of(own)
    stop_in_epoch(own, 1)
    assert bytes_of(own) == before
