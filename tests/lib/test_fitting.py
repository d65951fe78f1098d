"""Settings reach the loop that trains: each lever of the recipe, one at a time, with a value of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from stages import train
from stages.lib import backbones, checkpoint, fitting, mixing, model, params, team, training
from stages.lib.preprocessing import Preprocessing

CPU = torch.device("cpu")
SIDE = 32
N_IMAGES = 12


class Seen(Exception):
    """The loop was called; nothing needs to be trained."""


@pytest.fixture
def called(settings_file: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`called({"train.ema": 0.5})` -> what `training.fit` gets, and what `mixing.mixed` gets in the first epoch.

    A second argument is the number of the network in its fold.
    """

    def call(changes: dict[str, Any], number: int = 0) -> SimpleNamespace:
        shrunk = {"train.workers": 0, "train.resolution": SIDE, "train.test_resolution": SIDE, "train.hidden": 0}
        settings = params.load(settings_file(shrunk | changes), train.READS)
        seen = SimpleNamespace()

        def fit(network: Any, batches: Any, n_batches: int, evaluate: Any, pos_weight: Any, recipe: Any, *rest: Any) -> None:
            seen.n_batches, seen.pos_weight, seen.recipe, seen.score_start = n_batches, pos_weight, recipe, rest[3]
            seen.chance = rest[2](1)
            found = list(batches(1))
            seen.sizes = [len(images) for images, *_ in found]
            seen.images, seen.targets = (torch.cat(part) for part in list(zip(*found, strict=True))[:2])
            raise Seen

        def mixed(batches: Iterable[mixing.Batch], how: str, alpha: float, seed: int) -> Iterator[mixing.Weighted]:
            seen.how, seen.alpha = how, alpha
            return real(batches, how, alpha, seed)

        real = mixing.mixed
        with monkeypatch.context() as patch:
            patch.setattr(training, "fit", fit)
            patch.setattr(mixing, "mixed", mixed)
            network = model.Tagger(backbones.create("test_resnet", "none", SIDE), 2, 0, settings.dropout)
            with pytest.raises(Seen):
                fitting.fit_fold(network, fold(settings), team.ALONE, checkpoint.NOTHING_KEPT, number)
        return seen

    return call


def fold(settings: Any) -> fitting.Fold:
    chance = np.random.default_rng(0)
    pictures: Any = [chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(N_IMAGES)]
    targets = chance.integers(0, 2, (N_IMAGES, 2)).astype(float)
    parts = np.array(["train"] * (N_IMAGES - 4) + ["val"] * 4)
    stats = {"models": [{"base_rate": {"one": 0.5, "two": 0.25}, "pos_weight": {"one": 1.0, "two": 3.0}}]}
    names = [str(number) for number in range(N_IMAGES)]
    inputs = fitting.Inputs(pictures, targets, ["one", "two"], names, np.arange(N_IMAGES), parts, stats)
    how = Preprocessing(SIDE, "squash", SIDE, 1.0, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return fitting.Fold(0, inputs, how, settings, CPU)


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("lr", 0.0123, "lr"),
        ("train.lr_decay", 0.37, "lr_decay"),
        ("weight_decay", 0.077, "weight_decay"),
        ("train.warmup", 0.41, "warmup"),
        ("epochs", 17, "epochs"),
        ("train.patience", 13, "patience"),
        ("train.ema", 0.71, "ema"),
        ("train.bf16", False, "bf16"),
    ],
)
def test_each_setting_is_that_field_of_the_recipe(called: Any, key: str, value: Any, name: str) -> None:
    before, after = vars(called({}).recipe), vars(called({key: value}).recipe)
    assert before[name] != value
    assert after == before | {name: value}


def test_mixing_gets_its_kind_and_its_alpha(called: Any) -> None:
    assert (called({}).how, called({}).alpha) == ("none", 0.2)
    seen = called({"augment.mix": "cutmix", "augment.mix_alpha": 0.9})
    assert (seen.how, seen.alpha) == ("cutmix", 0.9)


def test_the_start_competes_where_it_is_a_regression(called: Any) -> None:
    assert called({"train.head_start": "regression"}).score_start
    assert not called({"train.head_start": "random"}).score_start


def test_batches_have_the_size_of_the_settings(called: Any) -> None:
    seen = called({"train.batch_size": 3})
    assert (seen.sizes, seen.n_batches) == ([3, 3, 2], 3)
    assert list(seen.pos_weight) == [1.0, 3.0]


@pytest.mark.parametrize("mix", ["none", "mixup"])
def test_a_second_network_has_an_order_augmentation_and_dropout_of_its_own(called: Any, mix: str) -> None:
    changes = {"augment.mix": mix, "train.networks": 2}
    first, again, second = called(changes), called(changes), called(changes, 1)
    assert torch.equal(first.images, again.images)
    assert first.chance == again.chance != second.chance
    assert not torch.equal(first.targets, second.targets)  # another order
    same = [torch.allclose(one, other) for one in first.images for other in second.images]
    assert not any(same)  # no picture of one is among those of the other, in whatever place


def test_the_first_network_is_that_of_a_fold_with_one(called: Any) -> None:
    alone, first = called({"train.networks": 1}), called({"train.networks": 2})
    assert torch.equal(alone.images, first.images)
    assert alone.chance == first.chance
