"""Views shown again: those of the first epochs, in a new order, without another run of the trunk."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from stages.lib import feeding, mixing, trunk, views
from tests.lib.test_augment import dataset
from tests.lib.test_trunk import Counting

CPU = torch.device("cpu")
SIZE = 2
N_IMAGES = len(dataset())


def frozen() -> Counting:
    torch.manual_seed(0)
    return Counting(nn.Conv2d(3, 4, 3, stride=4).to(memory_format=torch.channels_last))


def opened(count: int, workers: int = 0) -> views.Views:
    return views.Views(feeding.Feed(dataset(), SIZE, workers), frozen(), count, CPU)


def fresh(epoch: int) -> list[mixing.Weighted]:
    """An epoch as it is without views."""
    mixed = mixing.mixed(feeding.Feed(dataset(), SIZE, 0).batches(epoch), "none", 1.0, 0)
    return list(trunk.through(frozen(), mixed, CPU))


def same(one: list[mixing.Weighted], other: list[mixing.Weighted]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a.nan_to_num(9), b.nan_to_num(9)) and a.stride() == b.stride()
        for batch, other_batch in zip(one, other, strict=True)
        for a, b in zip(batch, other_batch, strict=True)
    )


def by_picture(epoch: int) -> dict[int, torch.Tensor]:
    """What the trunk makes of each picture in an epoch of fresh views, one batch at a time."""
    plan = dataset().order(epoch, SIZE)
    return {
        index: batch[0][place] for indices, batch in zip(plan, fresh(epoch), strict=True) for place, index in enumerate(indices)
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_the_first_epochs_are_fresh_and_later_ones_show_them_again(workers: int) -> None:
    seen = opened(2, workers)
    assert all(same(list(seen.batches(epoch)), fresh(epoch)) for epoch in (1, 2))
    for epoch, first in ((3, 1), (4, 2), (5, 1)):
        expected, plan = by_picture(first), dataset().order(epoch, SIZE)
        assert plan != dataset().order(first, SIZE)
        for indices, (activations, targets, weights) in zip(plan, seen.batches(epoch), strict=True):
            assert torch.equal(activations, torch.stack([expected[index] for index in indices]))
            assert activations.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(targets.nan_to_num(9), dataset().targets[indices].nan_to_num(9))
            assert torch.equal(weights, (~targets.isnan()).float())
    assert isinstance(seen.frozen, Counting)
    assert seen.frozen.seen == 2 * N_IMAGES


@pytest.mark.parametrize("start", [2, 3, 4, 6])
def test_a_training_that_carries_on_sees_the_same(start: int) -> None:
    whole, later = opened(3), opened(3)
    expected = {epoch: list(whole.batches(epoch)) for epoch in range(1, 8)}
    assert all(same(list(later.batches(epoch)), expected[epoch]) for epoch in range(start, 8))


def test_features_of_a_whole_backbone_are_kept_too() -> None:
    seen = views.Views(feeding.Feed(dataset(), SIZE, 0), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 1, CPU)
    list(seen.batches(1))
    assert [batch[0].shape for batch in seen.batches(2)] == [(2, 3), (3, 3)]


def test_an_epoch_that_was_left_early_keeps_nothing() -> None:
    seen = opened(1)
    next(iter(seen.batches(1)))
    assert not seen.kept
    assert same(list(seen.batches(2)), list(opened(1).batches(2)))


def test_views_that_give_nothing_are_not_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    feed = feeding.Feed(dataset(), SIZE, 0)
    assert views.count_of(0, feed, frozen(), CPU) == 0
    assert not capsys.readouterr().out
    assert views.count_of(2, feed, frozen(), CPU) == 2
    assert "2 views of each picture" in capsys.readouterr().out
    assert views.count_of(2, feed, nn.Identity(), CPU) == 0
    assert "no part of this network runs apart as frozen" in capsys.readouterr().out
    size = 2 * frozen()(torch.zeros(N_IMAGES, 3, 32, 32)).nbytes
    for room, count in ((size, 2), (size - 1, 0)):
        monkeypatch.setattr(views, "KEPT_BYTES", room)
        assert views.count_of(2, feed, frozen(), CPU) == count
    assert "would take" in capsys.readouterr().out
