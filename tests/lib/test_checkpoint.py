"""The checkpoint: a fit that is cut anywhere ends with the same bits; what is of another training is never used."""

from __future__ import annotations

import fcntl
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stages.lib import backbones, checkpoint, model, training
from stages.lib.errors import UserError

torch.set_num_threads(1)

CPU = torch.device("cpu")
RUN = {"lr": 0.1, "labels.csv": "abc", "dropout": [0.3, 0.3]}


class Cut(Exception):
    """Stands for whatever ends a process."""


def fit(
    fold: checkpoint.Fold, cut: tuple[int, int] | None = None, epochs: int = 5, patience: int = 2, ema: float = 0.0
) -> training.Fit:
    """Four epochs of three batches with dropout and BatchNorm; the best is the second. Ends with Cut in (epoch, batch)."""
    torch.manual_seed(7)
    network = model.Tagger(backbones.create("test_resnet", "none", 32), 2, 8, (0.5, 0.5)).to(memory_format=torch.channels_last)
    network.freeze("layer2")
    losses = [0.9, 0.5, 0.7, 0.6, 0.8]
    seen: list[int] = []

    def batches(epoch: int):
        seen.append(epoch)
        chance = torch.Generator().manual_seed(epoch)
        for number in range(3):
            if (epoch, number) == cut:
                raise Cut
            pictures, targets = torch.randn(4, 3, 32, 32, generator=chance), torch.randint(0, 2, (4, 2), generator=chance).float()
            yield pictures, targets, torch.ones(4, 2)

    recipe = training.Recipe(0.01, 0.8, 0.01, 0.2, epochs, patience, ema)
    torch.manual_seed(len(os.listdir()))  # what was drawn before does not matter
    return training.fit(
        network,
        batches,
        3,
        lambda _: {"val_loss": losses[seen[-1] - 1], "val_ap": 0.5},
        np.ones(2),
        recipe,
        CPU,
        lambda row: None,
        lambda epoch: 100 + epoch,
        checkpoint=fold,
    )


def same(one: training.Fit, other: training.Fit) -> bool:
    """But for the seconds that they took."""
    alike = list(one.state) == list(other.state) and all(torch.equal(t, other.state[n]) for n, t in one.state.items())
    tables = [{name: value for name, value in vars(fit).items() if name not in ("state", "seconds")} for fit in (one, other)]
    return alike and tables[0] == tables[1]


@pytest.mark.parametrize("ema", [0.0, 0.7])
@pytest.mark.parametrize("cut", [(epoch, batch) for epoch in (1, 2, 3, 4) for batch in (0, 2)])
def test_a_fit_that_is_cut_ends_with_the_bits_of_one_that_is_not(tmp_path: Path, cut: tuple[int, int], ema: float) -> None:
    whole = fit(checkpoint.NOTHING_KEPT, ema=ema)
    assert (whole.epoch, len(whole.epochs)) == (2, 4)
    fold = checkpoint.Fold(tmp_path / "fold-0.pth")
    with pytest.raises(Cut):
        fit(fold, cut, ema=ema)
    assert fold.path is not None
    assert fold.path.exists() == (cut[0] > 1)
    assert same(fit(fold, ema=ema), whole)


def test_a_fit_that_is_cut_in_every_epoch(tmp_path: Path) -> None:
    fold = checkpoint.Fold(tmp_path / "fold-0.pth")
    for epoch in (1, 2, 3, 4):
        with pytest.raises(Cut):
            fit(fold, (epoch, 1))
    assert same(fit(fold), fit(checkpoint.NOTHING_KEPT))


def test_a_finished_fold_is_not_trained_again(tmp_path: Path) -> None:
    fold = checkpoint.Fold(tmp_path / "fold-0.pth")
    whole = fit(fold)
    assert same(fit(fold, (1, 0)), whole)  # no batch is asked for
    content = torch.load(tmp_path / "fold-0.pth", weights_only=True)
    assert content["moving"] == {}


@pytest.mark.parametrize("part", ["network", "optimizer", "averaged"])
def test_without_any_part_of_the_state_the_bits_would_differ(tmp_path: Path, part: str) -> None:
    """The comparisons above can fail: here a checkpoint lacks what it should hold."""
    fold = checkpoint.Fold(tmp_path / "fold-0.pth")
    with pytest.raises(Cut):
        fit(fold, (1, 2), ema=0.7)
    with pytest.raises(Cut):
        fit(fold, (2, 0), ema=0.7)
    content = torch.load(tmp_path / "fold-0.pth", weights_only=True)
    assert set(content["moving"]) == {"network", "optimizer", "averaged"}
    if part == "optimizer":
        content["moving"]["optimizer"]["state"] = {}
    else:
        content["moving"][part] = {name: tensor * 1.01 for name, tensor in content["moving"][part].items()}
    torch.save(content, tmp_path / "fold-0.pth")
    assert not same(fit(fold, ema=0.7), fit(checkpoint.NOTHING_KEPT, ema=0.7))


class Dangerous:
    def __reduce__(self):
        return pytest.fail, ("something in the file was executed",)


@pytest.mark.parametrize("content", ["empty", "cut", "pickle", "other network", "list"])
def test_a_file_that_can_not_be_used_is_moved_away_and_the_next_run_starts_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "fold-0.pth"
    fold = checkpoint.Fold(path)
    with pytest.raises(Cut):
        fit(fold, (2, 0))
    if content == "other network":
        saved = torch.load(path, weights_only=True)
        saved["moving"]["network"].pop("head.1.bias")
        torch.save(saved, path)
    else:
        kinds = {"empty": b"", "cut": path.read_bytes()[:-500], "pickle": pickle.dumps(Dangerous()), "list": pickle.dumps([1])}
        path.write_bytes(kinds[content])
    with pytest.raises(UserError, match=r"fold-0\.pth can't be used .* is now called fold-0\.pth\.damaged: the same command"):
        fit(fold)
    assert same(fit(fold), fit(checkpoint.NOTHING_KEPT))


def interrupted(place: Path, run: dict[str, Any], name: str) -> None:
    with suppress(Cut), checkpoint.opened(place, run) as kept:
        (kept.place / name).write_text(str(run))
        raise Cut


def test_a_checkpoint_stays_after_an_interruption_and_goes_at_the_end(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    place = tmp_path / "checkpoint"
    interrupted(place, RUN, "fold-0.pth")
    with checkpoint.opened(place, RUN) as kept:
        assert kept.fold(0).path is not None
        assert (place / "fold-0.pth").is_file()
        (place / ".fold-1.12345.pth").write_text("half")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


def test_a_checkpoint_of_another_training_is_set_aside_and_there_is_never_more_than_one(tmp_path: Path, capsys) -> None:
    place = tmp_path / "checkpoint"
    for lr in (0.1, 0.2, 0.3):
        interrupted(place, RUN | {"lr": lr}, f"fold-{round(10 * lr)}.pth")
    assert "of a training with other lr: set aside as" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint", "checkpoint.other"]
    assert sorted(path.name for path in (tmp_path / "checkpoint.other").iterdir()) == ["fold-2.pth", "run.json"]
    with checkpoint.opened(place, RUN | {"lr": 0.4, "more": 1}):
        assert [path.name for path in place.iterdir()] == ["run.json"]
    assert "of a training with other lr, more" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "checkpoint.other").iterdir() if "fold" in path.name] == ["fold-3.pth"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"lr": 0.1}'])
def test_a_description_that_is_damaged_matches_nothing(tmp_path: Path, content: str) -> None:
    interrupted(tmp_path / "c", RUN, "fold-0.pth")
    (tmp_path / "c" / "run.json").write_text(content)
    with checkpoint.opened(tmp_path / "c", RUN):
        assert not (tmp_path / "c" / "fold-0.pth").exists()


def test_what_a_killed_removal_leaves_counts_for_nothing(tmp_path: Path) -> None:
    interrupted(tmp_path / "c", RUN, "fold-0.pth")
    (tmp_path / "c" / "run.json").unlink()
    with checkpoint.opened(tmp_path / "c", RUN):
        assert [path.name for path in (tmp_path / "c").iterdir()] == ["run.json"]


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="has other files in it; choose another --checkpoint"), checkpoint.opened(tmp_path, RUN):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_two_processes_do_not_train_with_one_checkpoint(tmp_path: Path) -> None:
    with checkpoint.opened(tmp_path / "c", RUN):
        with pytest.raises(UserError, match="another process is training with"), checkpoint.opened(tmp_path / "c", RUN):
            pass
        assert (tmp_path / "c" / "run.json").is_file()
    (tmp_path / "c").mkdir()
    descriptor = os.open(tmp_path / "c", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # free again after `opened`, or this would wait
    os.close(descriptor)


def test_features_are_computed_once(tmp_path: Path) -> None:
    calls = []

    def compute() -> np.ndarray:
        calls.append(1)
        return np.arange(6, dtype=np.float32).reshape(3, 2)

    with checkpoint.opened(tmp_path / "c", RUN) as kept:
        first, second = kept.features(compute, 3), kept.features(compute, 3)
        assert len(calls) == 1
        np.testing.assert_array_equal(first, second)
        assert len(kept.features(compute, 4)) == 3  # another number of rows: what is there is not taken
        assert len(calls) == 2
